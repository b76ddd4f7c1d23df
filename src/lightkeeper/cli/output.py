"""How commands speak: tables and colour on a terminal, plain columns in a pipe, one JSON document with `--json`.

Results go to stdout, refusals and progress to stderr.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import zip_longest

from lightkeeper.errors import AgentError, ConfigInvalid, Finding

EXIT_FAILED = 1
"""The exit code of a command whose result says itself that something is wrong; refusals have theirs in `cli`."""

PROGRESS_BYTES = 16 * 1024 * 1024
"""Below this a progress bar would only flicker."""


def add_json_flag(parser: argparse.ArgumentParser) -> None:
    """Give a command the `--json` flag."""
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of text")


def document(value: object) -> None:
    """Print one JSON document."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def note(text: str) -> None:
    """Print a remark beside the result, on stderr."""
    print(text, file=sys.stderr)


@contextmanager
def progress(what: str, least_bytes: int, total_bytes: int | None) -> Iterator[Callable[[int], None]]:
    """Give a function that counts bytes; on a terminal, and where there are many, it moves a bar on stderr."""
    if least_bytes < PROGRESS_BYTES or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total_bytes)
        yield lambda size_bytes: bar.advance(task, size_bytes)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show on a terminal that something is under way."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield


def table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], *, empty: str = "", styles: Sequence[str] = ()
) -> None:
    """Print rows of text under headings: framed on a terminal, tab-separated without headings in a pipe.

    Where there is no row, `empty` is said on stderr instead. `styles` colours each row on a terminal.
    """
    if not rows:
        note(empty)
        return
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table

    framed = Table(show_lines=any("\n" in cell for row in rows for cell in row))
    for heading in headings:
        framed.add_column(heading, overflow="fold")  # a path that is cut is of no use
    for row, style in zip_longest(rows, styles):
        framed.add_row(*row, style=style)
    Console().print(framed, markup=False)


def findings(found: Sequence[Finding]) -> list[dict[str, str]]:
    """Return what was found in a configuration, fit for a JSON document."""
    return [asdict(finding) for finding in found]


def refusal(error: AgentError, *, as_json: bool, program: str) -> None:
    """Print a refusal: as JSON on stdout where the caller asked for JSON, else as text on stderr."""
    if as_json:
        fault: dict[str, object] = {
            "reason": error.reason,
            "message": error.message,
            "facts": error.facts,
            "next_step": error.next_step,
        }
        if isinstance(error, ConfigInvalid):
            fault |= {"faults": findings(error.faults), "warnings": findings(error.warnings)}
        document({"error": fault})
        return
    first, *rest = error.diagnostics().splitlines()
    if sys.stderr.isatty():
        first = f"\x1b[31m{first}\x1b[0m"
    print(f"{program}: {first}", *rest, sep="\n", file=sys.stderr)
