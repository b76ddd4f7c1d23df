"""`lightkeeper models swap|rollback|status`: a new version in the place of a loaded one, and what became of it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lightkeeper.cli import output
from lightkeeper.cli.address import connect, package_url

if TYPE_CHECKING:
    from concurrent.futures import Future

    from lightkeeper.client import Client
    from lightkeeper.models.report import Comparison, ModelStatus, SwapReport

POLL_SECONDS = 0.2
INPUTS = {"recent": "the last inputs of Predict", "golden": "the golden input of its package", "zeros": "zeros"}


def add_to(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> Iterator[argparse.ArgumentParser]:
    """Add the verbs, and yield their parsers."""
    swap = verbs.add_parser(
        "swap",
        help="put a new version in the place of a loaded model, with no failed call",
        description="Verify and load a package beside the loaded model, have both answer the last inputs, and switch "
        "to the new one if it keeps the limits of its package and the agent's configuration. Exits 1, with the old "
        "version going on, if it does not.",
    )
    swap.add_argument("name")
    swap.add_argument("package", help="path or file:// URL of a package folder or .tar.gz, as the agent sees it")
    swap.set_defaults(command=_swap)
    yield swap

    rollback = verbs.add_parser("rollback", help="put the version before in the place of a loaded model")
    rollback.add_argument("name")
    rollback.set_defaults(command=_rollback)
    yield rollback

    status = verbs.add_parser("status", help="show the models' versions, and what they have done")
    status.set_defaults(command=_status)
    yield status


def _swap(args: argparse.Namespace) -> None:
    with connect(args) as client, ThreadPoolExecutor(1) as thread:
        call = thread.submit(client.swap_model, args.name, package_url(args.package))
        if sys.stderr.isatty():
            _show_progress(client, args.name, call)
        report = call.result()
    _show(report, as_json=args.json)


def _rollback(args: argparse.Namespace) -> None:
    with connect(args) as client, output.working(f"going back to the version of {args.name} before"):
        report = client.roll_back_model(args.name)
    _show(report, as_json=args.json)


def _show_progress(client: Client, name: str, call: Future[SwapReport]) -> None:
    """Show on a terminal what the agent is about until the call is over."""
    from concurrent.futures import wait

    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from lightkeeper.errors import AgentError

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[so_far]}"), TimeElapsedColumn())
    with Progress(*columns, transient=True) as bars:
        bar = bars.add_task("swapping", total=None, so_far="")
        while not wait([call], POLL_SECONDS).done:
            try:
                progress = client.swap_progress(name)
            except AgentError:
                continue  # the call itself will say what is wrong
            if progress is None:
                continue
            so_far = f"{progress.done} of {progress.total} runs" if progress.total else f"{progress.done:,} bytes"
            bars.update(bar, description=progress.stage, total=progress.total or None, completed=progress.done)
            bars.update(bar, so_far=so_far)


def _show(report: SwapReport, *, as_json: bool) -> None:
    if as_json:
        document = asdict(report)
        if report.comparison is not None:
            document["comparison"]["latency_ratio"] = report.comparison.latency_ratio
        output.document(document)
        return
    if report.old.digest == report.new.digest:
        print(f"{report.name}: version {report.new.version} runs already")
        return
    print(f"{report.name}: version {report.new.version} took the place of {report.old.version}")
    if report.comparison is not None:
        _show_comparison(report.comparison)
    if report.watch_seconds:
        print(f"watched for {report.watch_seconds:g} s; if it fails or is too slow, {report.old.version} comes back")


def _show_comparison(comparison: Comparison) -> None:
    inputs = "1 input" if comparison.inputs == 1 else f"{comparison.inputs} inputs"
    print(f"compared on {inputs}: {INPUTS.get(comparison.source, comparison.source)}")
    old_ms, new_ms = comparison.old_seconds * 1000, comparison.new_seconds * 1000
    print(f"time of a run: {old_ms:.3g} ms before, {new_ms:.3g} ms now ({comparison.latency_ratio:.2f} of before)")
    rows = [
        [
            item.name,
            f"{item.absolute_difference:.3g}",
            f"{item.relative_difference:.3g}",
            "-" if item.argmax_disagreement is None else f"{item.argmax_disagreement:.1%}",
            str(item.shapes_differ),
        ]
        for item in comparison.outputs
    ]
    output.table(["output", "largest difference", "relative", "other argmax", "other shape"], rows)


def _status(args: argparse.Namespace) -> None:
    with connect(args) as client:
        models = client.model_status()
    if args.json:
        output.document({"models": [_as_json(model) for model in models]})
        return
    rows = [
        [
            model.name,
            model.package.version,
            model.previous.version if model.previous else "-",
            _state(model),
            str(model.reading.inferences),
            str(model.reading.failures),
            f"{model.reading.mean_seconds * 1000:.3g}",
            f"{model.reading.slowest_seconds * 1000:.3g}",
            "-" if model.reading.last_inference is None else _time(model.reading.last_inference),
        ]
        for model in models
    ]
    headings = ["name", "version", "before", "state", "inferences", "failures", "mean ms", "slowest ms", "last"]
    output.table(headings, rows, empty="no model is loaded")


def _state(model: ModelStatus) -> str:
    if model.watch_seconds_left is not None:
        return f"watched, {model.watch_seconds_left:.0f} s left"
    if model.returned is not None:
        return f"taken back: {model.returned.reason}"
    return "runs"


def _as_json(model: ModelStatus) -> dict[str, Any]:
    document = asdict(model)
    reading = document.pop("reading")
    if model.reading.last_inference is not None:
        reading["last_inference"] = _time(model.reading.last_inference)
    more: dict[str, Any] = document | reading
    return more | {"mean_seconds": model.reading.mean_seconds}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
