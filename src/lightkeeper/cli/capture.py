"""`lightkeeper capture audit|status|list|flush`: what became of every capture that an agent accepted.

`audit`, `status` and `list` read the ledger in the agent's state folder, whether the agent runs or not.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightkeeper.cli import output
from lightkeeper.cli.address import add_address_flag, connect
from lightkeeper.errors import AuditFailed, CaptureUnknown, FlushIncomplete

if TYPE_CHECKING:
    from lightkeeper.capture.audit import Audit, Entry, LedgerReader

STATES = ("open", "waiting", "written", "uploaded", "expired", "thinned", "quarantined")
LIST_LIMIT = 100
FLUSH_SECONDS = 60.0


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command group `capture`."""
    group = commands.add_parser("capture", help="audit, look up and flush captures", description=__doc__)
    verbs = group.add_subparsers(title="commands", metavar="COMMAND", required=True)

    audit = verbs.add_parser(
        "audit",
        help="prove that every accepted capture is accounted for",
        description="Prove that accepted = the sum over the states + what was forgotten, and that ledger and payload "
        "files agree; list what waits. Exits 1 where something does not add up.",
    )
    audit.set_defaults(command=_audit)

    status = verbs.add_parser("status", help="say what became of one capture")
    status.add_argument("id", metavar="ID")
    status.set_defaults(command=_status)

    listing = verbs.add_parser("list", help="list captures, the newest first")
    listing.add_argument("--only", dest="states", choices=STATES, action="append", help="only these; may be repeated")
    listing.add_argument("--limit", type=int, default=LIST_LIMIT, help="at most so many (default: %(default)s)")
    listing.set_defaults(command=_list)

    for verb in (audit, status, listing):
        place = verb.add_mutually_exclusive_group(required=True)
        place.add_argument("-c", dest="config", metavar="CONFIG", type=Path, help="the agent's configuration file")
        place.add_argument("--state", dest="state_path", metavar="DIR", type=Path, help="the agent's state folder")
        output.add_json_flag(verb)

    flush = verbs.add_parser("flush", help="have a running agent deliver what waits, now")
    flush.add_argument(
        "--timeout", type=float, default=FLUSH_SECONDS, metavar="SECONDS", help="how long (default: %(default)s)"
    )
    add_address_flag(flush)
    output.add_json_flag(flush)
    flush.set_defaults(command=_flush)


def _reader(args: argparse.Namespace) -> LedgerReader:
    from lightkeeper.capture.audit import LedgerReader

    state: Path | None = args.state_path
    if state is None:
        from lightkeeper import config

        state = config.load(args.config).state_path
    return LedgerReader(state / "spool")


def _audit(args: argparse.Namespace) -> int:
    audit = _reader(args).audit()
    if args.json:
        output.document(_audit_as_json(audit))
        return output.EXIT_FAILED if audit.faults else 0
    _print_audit(audit)
    if audit.faults:
        raise AuditFailed(f"the ledger does not add up: {len(audit.faults)} faults", first=audit.faults[0])
    return 0


def _print_audit(audit: Audit) -> None:
    rows = [["accepted", str(audit.accepted)]]
    rows += [[state.name.lower(), str(count)] for state, count in audit.states.items()]
    rows += [[f"forgotten ({state.name.lower()})", str(count)] for state, count in audit.forgotten.items() if count]
    output.table(["", "captures"], rows)
    if audit.waiting:
        output.table(
            ["waiting batch", "closed", "captures", "bytes", "for"],
            [
                [batch.name, _time(batch.closed_ms), str(batch.captures), str(batch.held_bytes), batch.root]
                for batch in audit.waiting
            ],
        )
    for fault in audit.faults:
        print(f"FAULT: {fault}")
    if not audit.faults:
        print("every accepted capture is accounted for")


def _audit_as_json(audit: Audit) -> dict[str, Any]:
    return {
        "accepted": audit.accepted,
        "states": {state.name.lower(): count for state, count in audit.states.items()},
        "forgotten": {state.name.lower(): count for state, count in audit.forgotten.items()},
        "waiting": [
            {
                "batch": batch.name,
                "root": batch.root,
                "closed": _time(batch.closed_ms),
                "captures": batch.captures,
                "bytes": batch.held_bytes,
            }
            for batch in audit.waiting
        ],
        "faults": list(audit.faults),
        "adds_up": not audit.faults,
    }


def _status(args: argparse.Namespace) -> None:
    entry = _reader(args).entry(args.id)
    if entry is None:
        raise CaptureUnknown(f"the ledger has no capture {args.id}", capture_id=args.id)
    said = _entry_as_json(entry)
    if args.json:
        output.document(said)
        return
    output.table(["", entry.id], [[key, str(value)] for key, value in said.items() if value is not None])


def _list(args: argparse.Namespace) -> None:
    from lightkeeper.capture.ledger import State

    states = frozenset(State[name.upper()] for name in args.states or STATES)
    entries = _reader(args).entries(states, args.limit)
    if args.json:
        output.document({"captures": [_entry_as_json(entry) for entry in entries]})
        return
    rows = [
        [entry.id, entry.state.name.lower(), _time(entry.accepted_ms), entry.batch or "", entry.reason or ""]
        for entry in entries
    ]
    output.table(["id", "state", "accepted", "batch", "reason"], rows, empty="no such capture")


def _flush(args: argparse.Namespace) -> None:
    with connect(args) as client, output.working("delivering what waits"):
        delivered = client.flush_captures(args.timeout)
    if not delivered:
        raise FlushIncomplete(f"not everything was delivered within {args.timeout:g} s", seconds=args.timeout)
    if args.json:
        output.document({"delivered": True})
    else:
        print("delivered everything that waited")


def _entry_as_json(entry: Entry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "state": entry.state.name.lower(),
        "accepted": _time(entry.accepted_ms),
        "ended": None if entry.ended_ms is None else _time(entry.ended_ms),
        "weight": entry.weight,
        "reason": entry.reason,
        "batch": entry.batch,
        "root": entry.root,
        "key": entry.key,
        "size_bytes": entry.size_bytes,
        "etag": entry.etag,
        "sha256": entry.sha256,
    }


def _time(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")
