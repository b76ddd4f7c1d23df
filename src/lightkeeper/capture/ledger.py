"""The ledger: the words for where a capture stands, the tables that say so, and how rows come to their end.

A capture's number (`seq`) counts accepted captures without a gap, so the last number given is how many were accepted.
A batch is a range of numbers, `first` to `last`: closing one adds one row and touches no capture. In a capture's row,
state 0 stands for open and waiting alike; it is open while no batch has its number.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

from lightkeeper.capture.record import Stored
from lightkeeper.errors import CaptureIdTaken

FORMAT_VERSION = 1
"""What this release writes; a spool of a later version is refused."""

SCHEMA = f"""
BEGIN;
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS captures (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    state INTEGER NOT NULL,
    accepted_ms INTEGER NOT NULL,
    ended_ms INTEGER,
    size_bytes INTEGER NOT NULL,
    weight INTEGER NOT NULL,
    reason TEXT,
    header BLOB,
    inline BLOB
);
CREATE INDEX IF NOT EXISTS captures_ended ON captures (ended_ms) WHERE ended_ms IS NOT NULL;
CREATE TABLE IF NOT EXISTS payloads (
    capture INTEGER NOT NULL,
    position INTEGER NOT NULL,
    file TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    progress TEXT,
    PRIMARY KEY (capture, position)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batches (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    state INTEGER NOT NULL,
    closed_ms INTEGER NOT NULL,
    ended_ms INTEGER,
    root TEXT NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    captures INTEGER NOT NULL,
    held_bytes INTEGER NOT NULL,
    begun INTEGER NOT NULL DEFAULT 0,
    key TEXT,
    size_bytes INTEGER,
    etag TEXT,
    sha256 TEXT,
    reason TEXT
);
CREATE INDEX IF NOT EXISTS batches_waiting ON batches (seq) WHERE state = 1;
CREATE INDEX IF NOT EXISTS batches_written ON batches (seq) WHERE state = 2;
CREATE INDEX IF NOT EXISTS batches_last ON batches (last);
CREATE INDEX IF NOT EXISTS batches_ended ON batches (ended_ms) WHERE ended_ms IS NOT NULL;
PRAGMA user_version = {FORMAT_VERSION};
COMMIT;
"""

BATCH_OF = "(SELECT seq FROM batches WHERE last >= captures.seq ORDER BY last LIMIT 1)"
"""The batch that a capture's number falls into, in a query on `captures`; NULL while it is open."""


ENDED = "ended_"
"""With the name of a final state, the counter of all captures that ever came to it and are there still."""


class State(IntEnum):
    """Where a capture stands; from WRITTEN on for good."""

    OPEN = 0
    WAITING = 1
    WRITTEN = 2
    UPLOADED = 3
    EXPIRED = 4
    THINNED = 5
    QUARANTINED = 6

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen to the capture (but that a written one may be uploaded)."""
        return self >= State.WRITTEN


def state_in(number: int, batch: int | None) -> State:
    """Return the state that a capture's row and its batch say."""
    state = State(number)
    return State.WAITING if state is State.OPEN and batch is not None else state


@dataclass(frozen=True, slots=True)
class Batch:
    """A closed batch that waits. `root` is the address everything of it goes under, `file:///…` or `s3://bucket`."""

    seq: int
    name: str
    root: str
    closed_ms: int
    captures: int


@dataclass(frozen=True, slots=True)
class LargePayload:
    """A payload with a file of its own. `progress` is what a sink wrote down of it (see `Spool.note_progress`)."""

    position: int
    path: Path
    size_bytes: int
    progress: str | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """A capture of a closed batch."""

    seq: int
    id: str
    accepted_ms: int
    header: bytes
    inline: bytes
    weight: int
    large: tuple[LargePayload, ...]


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof that a batch is where it should be: the batch object's key under the root, size, SHA-256 and ETag."""

    state: State
    key: str
    size_bytes: int
    sha256: str
    etag: str = ""


@dataclass(slots=True)
class Ended:
    """What rows left behind that came to their end: files that nothing names any more, and room."""

    files: list[str] = field(default_factory=list)
    freed_bytes: int = 0


def insert_capture(  # noqa: PLR0913  # the columns of its row
    database: sqlite3.Connection, stored: Stored, *, accepted_ms: int, size_bytes: int, weight: int, thinned: bool
) -> int:
    """Enter an accepted capture, or one that is thinned at once, and return its number. Raises `CaptureIdTaken`."""
    row: tuple[object, ...] = (State.OPEN, None, None, stored.header, stored.inline)
    if thinned:
        row = (State.THINNED, accepted_ms, thinned_reason(weight), None, None)
    try:
        inserted = database.execute(
            "INSERT INTO captures (id, accepted_ms, size_bytes, weight, state, ended_ms, reason, header, inline)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (stored.id, accepted_ms, size_bytes, weight, *row),
        )
    except sqlite3.IntegrityError as error:
        raise taken(stored.id) from error
    if thinned:
        _count(database, State.THINNED, 1)
    return int(inserted.lastrowid or 0)


def taken(capture_id: str) -> CaptureIdTaken:
    """Return the refusal of an id that the ledger knows."""
    return CaptureIdTaken(f"a capture {capture_id} was accepted before", capture_id=capture_id)


def thinned_reason(weight: int) -> str:
    """Return why a capture was thinned."""
    return f"the spool was full: 1 of {weight} stays"


def end_batch(  # noqa: PLR0913  # the columns of its row
    database: sqlite3.Connection,
    seq: int,
    state: State,
    *,
    ended_ms: int,
    reason: str | None = None,
    receipt: Receipt | None = None,
) -> Ended:
    """Give a batch and its captures their final state; one that was written on the disk may still become uploaded."""
    before = [State.WAITING, State.WRITTEN] if state is State.UPLOADED else [State.WAITING, State.WAITING]
    rows = database.execute(
        "SELECT first, last, held_bytes, state FROM batches WHERE seq = ? AND state IN (?, ?)", (seq, *before)
    ).fetchall()
    if not rows:
        return Ended()
    ((first, last, held_bytes, was),) = rows
    proof: tuple[Any, ...] = (None, None, None, None)
    if receipt is not None:
        proof = (receipt.key, receipt.size_bytes, receipt.etag, receipt.sha256)
    database.execute(
        "UPDATE batches SET state = ?, ended_ms = ?, reason = ?, key = ?, size_bytes = ?, etag = ?, sha256 = ?,"
        " held_bytes = 0 WHERE seq = ?",
        (state, ended_ms, reason, *proof, seq),
    )
    files = [
        file for (file,) in database.execute("SELECT file FROM payloads WHERE capture BETWEEN ? AND ?", (first, last))
    ]
    if files:
        database.execute("DELETE FROM payloads WHERE capture BETWEEN ? AND ?", (first, last))
    changed = database.execute(
        "UPDATE captures SET state = ?, ended_ms = ?, reason = ?, header = NULL, inline = NULL"
        " WHERE seq BETWEEN ? AND ? AND state = ?",
        (state, ended_ms, reason, first, last, State.OPEN if was == State.WAITING else was),
    ).rowcount
    _count(database, state, changed)
    if was == State.WRITTEN:
        _count(database, State.WRITTEN, -changed)
    return Ended(files, held_bytes)


def end_captures(  # noqa: PLR0913  # the columns of their rows
    database: sqlite3.Connection,
    seqs: Iterable[int],
    state: State,
    *,
    ended_ms: int,
    reason: str,
    weight: int | None = None,
) -> Ended:
    """Give single captures their final state; a batch that has none left ends with them."""
    ended = Ended()
    batches: set[int] = set()
    number = 0
    for seq in seqs:
        ((size_bytes, batch),) = database.execute(
            f"SELECT size_bytes, {BATCH_OF} FROM captures WHERE seq = ?",  # noqa: S608  # our own words
            (seq,),
        )
        files = [file for (file,) in database.execute("SELECT file FROM payloads WHERE capture = ?", (seq,))]
        if files:
            database.execute("DELETE FROM payloads WHERE capture = ?", (seq,))
            ended.files += files
        database.execute(
            "UPDATE captures SET state = ?, ended_ms = ?, reason = ?, weight = COALESCE(?, weight),"
            " header = NULL, inline = NULL WHERE seq = ?",
            (state, ended_ms, reason, weight, seq),
        )
        if batch is not None:
            batches.add(batch)
            database.execute(
                "UPDATE batches SET captures = captures - 1, held_bytes = held_bytes - ? WHERE seq = ?",
                (size_bytes, batch),
            )
        ended.freed_bytes += size_bytes
        number += 1
    _count(database, state, number)
    database.executemany(
        "UPDATE batches SET state = ?, ended_ms = ?, reason = ? WHERE seq = ? AND captures = 0",
        [(state, ended_ms, reason, batch) for batch in sorted(batches)],
    )
    return ended


def _count(database: sqlite3.Connection, state: State, amount: int) -> None:
    add_meta(database, f"{ENDED}{state.name}", amount)


def add_meta(database: sqlite3.Connection, name: str, amount: int) -> None:
    """Add to one of the ledger's counters."""
    database.execute(
        "INSERT INTO meta VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
        (name, amount),
    )
