"""What the start of the agent does with what a crash, a failing disk or a stranger left in the spool's folder.

Every file is either named by a row and whole, or goes to quarantine with its cause; every row that names a payload
file which is missing or of another size ends as QUARANTINED. The start costs one look at each payload file, and nothing
for captures without one.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightkeeper import paths
from lightkeeper.capture.journal import Durability, Journal, is_damage
from lightkeeper.capture.ledger import FORMAT_VERSION, SCHEMA, State, end_captures
from lightkeeper.capture.quarantine import Quarantine
from lightkeeper.capture.sums import put_right
from lightkeeper.errors import SpoolBroken

DATABASE = "spool.db"
PAYLOADS = "payloads"
QUARANTINE = "quarantine"
DAMAGED_MARK = "damaged"
"""An empty file that says that the database proved damaged while the agent ran."""

OURS = frozenset(
    {DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", f"{DATABASE}-journal", PAYLOADS, QUARANTINE, DAMAGED_MARK}
)

log = logging.getLogger(__name__)


def start(
    folder: Path,
    durability: Durability,
    quarantine: Quarantine,
    *,
    on_rollback: Callable[[], None],
    now_ms: Callable[[], int],
) -> Journal:
    """Open the spool's database and put in order what lies beside it; a damaged one is moved aside and a new one begun.

    Raises `SpoolBroken`, `SpoolDiskFull`, `SpoolTooNew` or `OSError`.
    """

    def attempt() -> Journal:
        journal = Journal(folder / DATABASE, SCHEMA, FORMAT_VERSION, durability, on_rollback=on_rollback)
        try:
            _tidy(folder, journal, quarantine, now_ms=now_ms)
            journal.write(put_right)
        except BaseException:
            journal.close(save=False)
            raise
        return journal

    if paths.exists(folder / DAMAGED_MARK):
        _move_aside(folder, quarantine, "it proved damaged while the agent ran")
        (folder / DAMAGED_MARK).unlink()
    try:
        return attempt()
    except SpoolBroken as error:
        if not is_damage(error):
            raise
        _move_aside(folder, quarantine, error.message)
    return attempt()


def _move_aside(folder: Path, quarantine: Quarantine, cause: str) -> None:
    log.error("spool_damaged", extra={"file": str(folder / DATABASE), "cause": cause})
    for name in (DATABASE, f"{DATABASE}-wal"):
        if paths.exists(folder / name):
            quarantine.take(folder / name, why=f"the spool's database is damaged: {cause}")
    for name in (f"{DATABASE}-shm", f"{DATABASE}-journal"):
        (folder / name).unlink(missing_ok=True)


def _tidy(folder: Path, journal: Journal, quarantine: Quarantine, *, now_ms: Callable[[], int]) -> None:
    """Complete or quarantine whatever lies in the folder. Raises `SpoolBroken`, `SpoolDiskFull` or `OSError`."""
    for entry in sorted(folder.iterdir()):
        if entry.name not in OURS:
            quarantine.take(entry, why="a foreign file in the spool's folder")
    payloads = folder / PAYLOADS
    found: dict[str, int] = {}
    with os.scandir(payloads) as entries:
        for item in entries:
            found[item.name] = item.stat().st_size if item.is_file(follow_symlinks=False) else -1
    rows = journal.read("SELECT capture, file, size_bytes FROM payloads")
    faults: dict[int, str] = {}
    for capture, file, size_bytes in rows:
        given_bytes = found.pop(file, None)
        if given_bytes != size_bytes:
            given = "is missing" if given_bytes is None else f"has {given_bytes} bytes"
            faults.setdefault(capture, f"its payload file {file} of {size_bytes} bytes {given}")
    for name in sorted(found):
        quarantine.take(payloads / name, why="a payload file that no accepted capture names")
    for capture, fault in sorted(faults.items()):
        _end_broken(capture, fault, payloads, journal, quarantine, now_ms)


def _end_broken(  # noqa: PLR0913, PLR0917  # collaborators, called from one place
    seq: int, fault: str, payloads: Path, journal: Journal, quarantine: Quarantine, now_ms: Callable[[], int]
) -> None:
    """End a capture whose payload is not whole; what is left of it is kept in quarantine."""
    ((capture_id, header, inline),) = journal.read("SELECT id, header, inline FROM captures WHERE seq = ?", seq)
    left: dict[str, Any] = {
        "id": capture_id,
        "header": json.loads(header),
        "inline": b64encode(inline).decode("ascii"),
    }
    why = f"capture {capture_id}: {fault}"
    quarantine.keep(f"{capture_id}.json", [json.dumps(left, indent=2).encode()], why=why)

    def end(database: sqlite3.Connection) -> list[str]:
        return end_captures(database, [seq], State.QUARANTINED, ended_ms=now_ms(), reason=fault).files

    for file in journal.write(end):
        if os.path.lexists(payloads / file):
            quarantine.take(payloads / file, why=why)
