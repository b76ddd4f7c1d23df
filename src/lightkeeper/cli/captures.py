"""`lightkeeper captures show|export`: captures that were written, read back from a folder or a bucket."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightkeeper.cli import EXIT_REFUSED, output
from lightkeeper.errors import CaptureDamaged, PayloadUnreadable

if TYPE_CHECKING:
    import numpy as np

    from lightkeeper.captures import Captures, Damage, Entry, Record, Wanted

SHOWN_BY_DEFAULT = 20
SHOWN_DAMAGE = 20
"""Damaged lines that are told one by one; the rest are counted."""

SHOWN_VALUES = 6


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `captures`."""
    parser = commands.add_parser("captures", help="read back captures that were written")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    show = verbs.add_parser(
        "show", help="show captures, the newest batch first", description="Show captures, the newest batch first."
    )
    show.add_argument("--limit", type=_positive, default=SHOWN_BY_DEFAULT, metavar="N", help="at most (%(default)s)")
    show.set_defaults(command=_show)

    export = verbs.add_parser(
        "export",
        help="write captures as Parquet or .npz",
        description="Write captures into OUT: one Parquet file where its name ends in .parquet, else a folder with one "
        ".npz file a capture.",
    )
    export.set_defaults(command=_export)

    for verb in (show, export):
        verb.add_argument("place", metavar="PATH", help="a folder, one .jsonl file, or s3://bucket/prefix")
        for name in ("model", "version", "device", "fleet"):
            verb.add_argument(f"--{name}", metavar=name[0].upper(), help=f"only this {name}")
        verb.add_argument(
            "--since", type=_time, metavar="T", help="only from this time on, UTC: 2026-11-22 or …T15:04:05"
        )
        verb.add_argument("--until", type=_time, metavar="T", help="only before this time")
        verb.add_argument("--region", help="of the bucket; the environment's where it is left out")
        verb.add_argument("--endpoint", metavar="URL", help="of another S3 than Amazon's")
        output.add_json_flag(verb)
    export.add_argument("out", metavar="OUT", type=Path, help="a new .parquet file, or a new folder")


def _show(args: argparse.Namespace) -> None:
    captures, wanted, damage = _open(args), _wanted(args), _DamageReport()
    shown: list[Record] = []
    more = False
    for record in captures.records(wanted, on_damage=damage.add, newest_first=True):
        if len(shown) == args.limit:
            more = True
            break
        shown.append(record)
    if args.json:
        documents = [_as_json(record, damage) for record in shown]
        output.document({"captures": documents, "more": more, "damaged": damage.as_json()})
    else:
        rows = [_row(record, damage) for record in shown]
        output.table(["time (UTC)", "id", "model", "rule", "inputs", "outputs"], rows, empty="no capture")
        if more:
            output.note(f"there are more than these {args.limit}; --limit N shows more")
    damage.tell(as_json=args.json)


def _export(args: argparse.Namespace) -> None:
    from lightkeeper.captures.npz import to_npz
    from lightkeeper.captures.parquet import to_parquet

    captures, wanted, damage = _open(args), _wanted(args), _DamageReport()
    write = to_parquet if args.out.suffix == ".parquet" else to_npz
    with _progress("reading batches") as on_batch:
        count = write(captures, args.out, wanted, on_damage=damage.add, on_batch=on_batch)
    if args.json:
        output.document({"output": str(args.out), "captures": count, "damaged": damage.as_json()})
    else:
        print(f"{args.out}: {count} captures")
    damage.tell(as_json=args.json)


class _DamageReport:
    """What could not be read: the first few told, all counted."""

    def __init__(self) -> None:
        self._count = 0
        self._told: list[Damage] = []

    def add(self, damage: Damage) -> None:
        """Count one damaged line."""
        self._count += 1
        if len(self._told) < SHOWN_DAMAGE:
            self._told.append(damage)

    def add_payload(self, record: Record, error: PayloadUnreadable) -> None:
        """Count a capture with a payload that cannot be read."""
        from lightkeeper.captures import Damage

        self.add(Damage(record.file, record.line, error.message))

    def as_json(self) -> dict[str, Any]:
        """Return the report, fit for a JSON document."""
        lines = [{"file": item.file, "line": item.line, "problem": item.problem} for item in self._told]
        return {"count": self._count, "lines": lines}

    def tell(self, *, as_json: bool) -> None:
        """Say what was damaged, after all that was not has been shown. Raises `CaptureDamaged` where anything was."""
        if not self._count:
            return
        if as_json:  # the document has it; a second one would make it unreadable
            raise SystemExit(EXIT_REFUSED)
        for item in self._told:
            output.note(str(item))
        raise CaptureDamaged(f"{self._count} captures could not be read", damaged=self._count)


def _open(args: argparse.Namespace) -> Captures:
    from lightkeeper.captures import open_captures

    return open_captures(args.place, region=args.region, endpoint=args.endpoint)


def _wanted(args: argparse.Namespace) -> Wanted:
    from lightkeeper.captures import Wanted

    return Wanted(args.model, args.version, args.device, args.fleet, args.since, args.until)


def _row(record: Record, damage: _DamageReport) -> list[str]:
    between = "\n" if sys.stdout.isatty() else "; "
    inputs = [_described(record, entry, damage) for entry in record.inputs + record.auxiliary_inputs]
    outputs = [_described(record, entry, damage) for entry in record.outputs + record.auxiliary_outputs]
    return [
        str(record.time)[:23].replace("T", " "),
        _printable(record.id),
        _printable(f"{record.model} {record.version}"),
        _printable(record.rule),
        between.join(map(_printable, inputs)),
        between.join(map(_printable, outputs)),
    ]


def _printable(text: str) -> str:
    """Return text on one line: what a terminal would take for a command, or a reader for an end, is escaped."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def _described(record: Record, entry: Entry, damage: _DamageReport) -> str:
    """Return an entry in short: its type and shape, and the first of its values where they stand in the line."""
    if entry.data_type is None or entry.shape is None:
        size = f"({len(entry.data())} bytes)" if entry.reference is None else "(in a file)"
        return f"{entry.name} {size}"
    described = f"{entry.name} {entry.data_type.name}{list(entry.shape)}"
    if entry.reference is not None:
        return described
    try:
        values = entry.array().reshape(-1)
    except PayloadUnreadable as error:
        damage.add_payload(record, error)
        return f"{described} (damaged)"
    shown = " ".join(f"{value:.6g}" for value in values[:SHOWN_VALUES].tolist())
    return f"{described} {shown}{' …' if values.size > SHOWN_VALUES else ''}"


def _as_json(record: Record, damage: _DamageReport) -> dict[str, Any]:
    about = ("id", "device", "fleet", "model", "version", "rule", "weight", "package_digest", "agent_version")
    said: dict[str, Any] = {name: getattr(record, name) for name in about}
    said |= {"time": f"{record.time}Z", "file": record.file, "line": record.line}
    for part in ("inputs", "outputs", "auxiliary_inputs", "auxiliary_outputs"):
        said[part] = [_entry_as_json(record, entry, damage) for entry in getattr(record, part)]
    return said


def _entry_as_json(record: Record, entry: Entry, damage: _DamageReport) -> dict[str, Any]:
    """Return an entry; the values of a tensor that stands in the line are shown, but for those JSON does not know."""
    from math import isfinite

    said: dict[str, Any] = {"name": entry.name, "content_type": entry.content_type}
    if entry.reference is not None:
        said["data_ref"] = entry.reference
    if entry.data_type is not None and entry.shape is not None:
        said |= {"data_type": entry.data_type.name, "shape": list(entry.shape)}
        if entry.reference is None:
            try:
                values = entry.array().reshape(-1).tolist()
                said["values"] = [value if isfinite(value) else str(value) for value in values]
            except PayloadUnreadable as error:
                damage.add_payload(record, error)
    elif entry.reference is None:
        said["size_bytes"] = len(entry.data())
    return said


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Give a function that is told how much of how much is done; on a terminal it moves a bar on stderr."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _time(text: str) -> np.datetime64:
    import numpy as np

    try:
        time = np.datetime64(text.removesuffix("Z"), "ns")
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 2026-11-22 or 2026-11-22T15:04:05") from error
    if np.isnat(time):
        raise argparse.ArgumentTypeError(f"{text!r} is no time")
    return time
