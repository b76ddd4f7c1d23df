"""`lightkeeper doctor`: find what is wrong with a device, and say what to do about it."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from lightkeeper.cli import output
from lightkeeper.cli.address import add_address_flag
from lightkeeper.cli.config import DEFAULT_FILE

if TYPE_CHECKING:
    from lightkeeper.doctor import Result

VARIABLE = "AGENT_CONFIG_FILE_PATH"
"""What the service's agent.env calls the configuration."""

STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red", "skipped": "dim"}


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `doctor`."""
    parser = commands.add_parser(
        "doctor",
        help="find what is wrong with this device",
        description="Check what goes wrong on devices in the field, and say how to put each right. Run it as the "
        "agent's user, in the agent's working folder, beside a running agent or without one: it takes no lock, and "
        "changes nothing but for one small object in the bucket. Exits 0 if no check failed, though there may be "
        "warnings, and 1 if one did.",
    )
    parser.add_argument(
        "-c",
        "--config",
        metavar="CONFIG",
        type=Path,
        help=f"the agent's configuration file (default: ${VARIABLE}, else {DEFAULT_FILE} if it is there)",
    )
    parser.add_argument("--offline", action="store_true", help="leave out the checks that need a network")
    add_address_flag(parser)
    output.add_json_flag(parser)
    parser.set_defaults(command=_examine)


def _examine(args: argparse.Namespace) -> int:
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the agent does

    from lightkeeper.doctor import Patient, State, examine

    patient = Patient(args.config or _default_config(), args.address, offline=args.offline)
    with _silenced_log(), _progress() as begin:
        results = list(examine(patient, begin))
    counts = Counter(result.diagnosis.state for result in results)
    if args.json:
        output.document(_as_json(results, passed=not counts[State.FAILED]))
    else:
        _print(results)
        print(", ".join(f"{counts[state]} {state}" for state in State if counts[state]))
    return output.EXIT_FAILED if counts[State.FAILED] else 0


def _default_config() -> Path | None:
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    return DEFAULT_FILE if DEFAULT_FILE.exists() else None


def _as_json(results: Sequence[Result], *, passed: bool) -> dict[str, object]:
    checks = [
        {"name": result.name, **asdict(result.diagnosis), "seconds": round(result.seconds, 3)} for result in results
    ]
    return {"passed": passed, "checks": checks}


def _print(results: Sequence[Result]) -> None:
    rows = []
    for result in results:
        found = result.diagnosis
        code = f" [{found.reason}]" if found.reason else ""
        rows.append([result.name, found.state.value, f"{found.found}{code}", found.fix])
    if not sys.stdout.isatty():
        output.table((), rows)
        return
    framed = [[name, state, f"{found}\n→ {fix}" if fix else found] for name, state, found, fix in rows]
    output.table(["check", "", "what was found → what to do"], framed, styles=[STYLES[row[1]] for row in framed])


@contextmanager
def _silenced_log() -> Iterator[None]:
    """Keep what the agent's code would log from the terminal: a check says it."""
    logger, silent = logging.getLogger("lightkeeper"), logging.NullHandler()
    logger.addHandler(silent)
    try:
        yield
    finally:
        logger.removeHandler(silent)


@contextmanager
def _progress() -> Iterator[Callable[[str], object]]:
    """Show on a terminal which check is under way."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console

    with Console(stderr=True).status("examining") as status:
        yield lambda name: status.update(f"examining: {name}")
