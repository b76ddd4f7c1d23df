"""The spool: every accepted capture from the moment it is accepted, and what became of it (the ledger).

On the disk, under the agent's state folder:

    spool/spool.db      SQLite in WAL mode: captures, their small payloads, batches, counters
    spool/payloads/     one file a large payload, complete and synced before the row that names it
    spool/quarantine/   what was found and belongs to nothing, or could not be delivered, with its cause beside it

A capture's life: open (in the buffer) -> waiting (in a closed batch) -> one final state. A closed batch never changes
its captures, its name or its address, so that it can be delivered any number of times with the same result.

Invariants:

1. `accept` returns only when the capture's row, and before it the files of its large payloads, are durable.
2. Every accepted id is in exactly one state; `accepted` in the database equals the sum over the states and what has
   been forgotten of each. Both change in the same transaction.
3. A final state's row keeps no payload; its files are removed after the row says so.
4. What waits is never forgotten; what is final is forgotten after the retention time.
"""

from __future__ import annotations

import errno
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, TypeVar

from lightkeeper.capture.files import PRIVATE_FOLDER, SHARED_FILE, Files
from lightkeeper.capture.journal import Durability, Journal
from lightkeeper.capture.record import Stored
from lightkeeper.errors import AgentError, CaptureBufferFull, CaptureIdTaken, SpoolBroken, SpoolDiskFull, SpoolFull

Result = TypeVar("Result")

ROW_OVERHEAD_BYTES = 512
"""What a row costs beside its content, about: counted against the spool's limit."""

BATCH_LIMIT_BYTES = 16 * 1024 * 1024
"""A batch is also closed when its captures' headers and small payloads reach this much: it is held in memory once."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS captures (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    state INTEGER NOT NULL,
    accepted_ms INTEGER NOT NULL,
    ended_ms INTEGER,
    batch INTEGER,
    size_bytes INTEGER NOT NULL,
    weight INTEGER NOT NULL DEFAULT 1,
    reason TEXT,
    header BLOB,
    inline BLOB
);
CREATE INDEX IF NOT EXISTS captures_alive ON captures (state, seq) WHERE state < 2;
CREATE INDEX IF NOT EXISTS captures_of_batch ON captures (batch, seq) WHERE state = 1;
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
    captures INTEGER NOT NULL,
    key TEXT,
    size_bytes INTEGER,
    etag TEXT,
    sha256 TEXT,
    reason TEXT
);
CREATE INDEX IF NOT EXISTS batches_waiting ON batches (seq) WHERE state = 1;
"""


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


@dataclass(frozen=True, slots=True)
class Room:
    """What the spool may hold. `buffer` counts captures, the rest bytes."""

    buffer: int
    batch: int
    spool_max_bytes: int
    free_floor_bytes: int


class Spool:
    """The spool of one agent. Any number of threads may use it."""

    def __init__(  # noqa: PLR0913  # collaborators and limits, none of which can be left out
        self,
        folder: Path,
        *,
        room: Room,
        root: str,
        durability: Durability,
        files: Files,
        now_ms: Callable[[], int],
    ) -> None:
        """Open the spool, making it where it is missing. Raises `SpoolBroken` or `SpoolDiskFull`."""
        self.folder = folder
        self.payloads = folder / "payloads"
        self.quarantine = folder / "quarantine"
        self.room = room
        self._root = root
        self._files = files
        self._now_ms = now_ms
        with _translated(folder):
            for made in (folder, self.payloads, self.quarantine):
                made.mkdir(PRIVATE_FOLDER, parents=True, exist_ok=True)
        self.journal = Journal(folder / "spool.db", SCHEMA, durability)
        self._admission = threading.Lock()
        self._promised_captures = 0
        self._promised_bytes = 0
        self._open_captures = 0
        self._open_bytes = 0
        self._held_bytes = 0
        self._id = self.journal.write(self._first_words)
        self._recount()

    # --- accepting ---------------------------------------------------------------------------------------------------

    def accept(self, stored: Stored, *, weight: int = 1) -> Batch | None:
        """Take a capture in; it is durable when this returns. Return the batch that it filled, if it did.

        Raises `CaptureIdTaken`, `CaptureBufferFull`, `SpoolFull`, `SpoolDiskFull` or `SpoolBroken`.
        """
        size_bytes = stored.size_bytes + ROW_OVERHEAD_BYTES
        with self._promise(size_bytes):
            written = self._write_payloads(stored)
            try:
                return self._write(lambda database: self._insert(database, stored, size_bytes, weight, written))
            except AgentError:
                for _, path, _ in written:
                    self._files.remove(path)
                raise

    def _first_words(self, database: sqlite3.Connection) -> str:
        """Give a new database its id and counters, send waiting batches where captures go now, and return the id."""
        database.execute("INSERT OR IGNORE INTO meta VALUES ('id', ?), ('accepted', 0)", (secrets.token_hex(4),))
        database.execute("UPDATE batches SET root = ? WHERE state = ?", (self._root, State.WAITING))
        ((spool_id,),) = database.execute("SELECT value FROM meta WHERE name = 'id'")
        return str(spool_id)

    @contextmanager
    def _promise(self, size_bytes: int) -> Iterator[None]:
        """Hold room in buffer and spool for a capture until it is in. Raises `CaptureBufferFull` or `SpoolFull`."""
        with self._admission:
            captures = self._open_captures + self._promised_captures
            if captures >= self.room.buffer:
                raise CaptureBufferFull(
                    f"{captures} captures wait for their batch, as many as the buffer holds", buffer=self.room.buffer
                )
            held_bytes = self._held_bytes + self._promised_bytes
            if held_bytes + size_bytes > self.room.spool_max_bytes:
                raise SpoolFull(
                    f"the spool holds {held_bytes} of {self.room.spool_max_bytes} bytes",
                    held_bytes=held_bytes,
                    capture_bytes=size_bytes,
                    limit_bytes=self.room.spool_max_bytes,
                )
            with _translated(self.folder):
                free_bytes = self._files.free_bytes(self.folder)
            if free_bytes - size_bytes < self.room.free_floor_bytes:
                raise SpoolFull(
                    f"the disk has {free_bytes} bytes free, of which {self.room.free_floor_bytes} stay free",
                    free_bytes=free_bytes,
                    capture_bytes=size_bytes,
                    floor_bytes=self.room.free_floor_bytes,
                )
            self._promised_captures += 1
            self._promised_bytes += size_bytes
        try:
            yield
        finally:
            with self._admission:
                self._promised_captures -= 1
                self._promised_bytes -= size_bytes

    def _write_payloads(self, stored: Stored) -> list[tuple[int, Path, int]]:
        written: list[tuple[int, Path, int]] = []
        if not stored.large:
            return written
        token = secrets.token_hex(8)
        try:
            with _translated(self.payloads):
                for position, data in stored.large:
                    path = self.payloads / f"{token}-{position}"
                    written.append((position, path, len(data)))
                    self._files.write(path, [data], mode=SHARED_FILE)  # the disk sink links it; the folder is private
                self._files.sync_folder(self.payloads)
        except AgentError:
            with _translated(self.payloads):
                for _, path, _ in written:
                    self._files.remove(path)
            raise
        return written

    def _insert(
        self,
        database: sqlite3.Connection,
        stored: Stored,
        size_bytes: int,
        weight: int,
        written: list[tuple[int, Path, int]],
    ) -> Batch | None:
        try:
            row = database.execute(
                "INSERT INTO captures (id, state, accepted_ms, size_bytes, weight, header, inline)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (stored.id, State.OPEN, self._now_ms(), size_bytes, weight, stored.header, stored.inline),
            )
        except sqlite3.IntegrityError as error:
            raise CaptureIdTaken(f"a capture {stored.id} was accepted before", capture_id=stored.id) from error
        database.executemany(
            "INSERT INTO payloads (capture, position, file, size_bytes) VALUES (?, ?, ?, ?)",
            [(row.lastrowid, position, path.name, length) for position, path, length in written],
        )
        database.execute("UPDATE meta SET value = value + 1 WHERE name = 'accepted'")
        self._open_captures += 1
        self._open_bytes += len(stored.header) + len(stored.inline)
        self._held_bytes += size_bytes
        full = self._open_captures >= self.room.batch or self._open_bytes >= BATCH_LIMIT_BYTES
        return self._close(database) if full else None

    def _write(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Have the journal do work that changes the counts; where it could not be written, they are taken anew."""
        try:
            return self.journal.write(work)
        except (SpoolBroken, SpoolDiskFull):
            with suppress(AgentError):
                self._recount()
            raise

    def _recount(self) -> None:
        """Take the counts from the database: at the start, and where a transaction failed."""

        def count(database: sqlite3.Connection) -> None:
            ((self._open_captures, self._open_bytes),) = database.execute(
                "SELECT COUNT(*), COALESCE(SUM(LENGTH(header) + LENGTH(inline)), 0) FROM captures WHERE state = 0"
            )
            ((self._held_bytes,),) = database.execute(
                "SELECT COALESCE(SUM(size_bytes), 0) FROM captures WHERE state < 2"
            )

        self.journal.write(count)

    # --- closing -----------------------------------------------------------------------------------------------------

    def close_batch(self, *, older_than_ms: int | None = None) -> Batch | None:
        """Close a batch of what is open and return it, or None where nothing is.

        With `older_than_ms`, only where the oldest open capture was accepted that long ago.
        """

        def close(database: sqlite3.Connection) -> Batch | None:
            if older_than_ms is not None:
                oldest = database.execute("SELECT accepted_ms FROM captures WHERE state = 0 ORDER BY seq LIMIT 1")
                ages = [self._now_ms() - accepted_ms for (accepted_ms,) in oldest]
                if not ages or 0 <= ages[0] < older_than_ms:  # a negative age: the clock was set back
                    return None
            return self._close(database)

        return self._write(close)

    def _close(self, database: sqlite3.Connection) -> Batch | None:
        if not self._open_captures:
            return None
        closed_ms, captures = self._now_ms(), self._open_captures
        ((seq,),) = database.execute("SELECT COALESCE(MAX(seq), 0) + 1 FROM batches")
        name = f"{self._id}-{seq:08d}"
        row = database.execute(
            "INSERT INTO batches (name, state, closed_ms, root, captures) VALUES (?, ?, ?, ?, ?)",
            (name, State.WAITING, closed_ms, self._root, captures),
        )
        database.execute("UPDATE captures SET state = 1, batch = ? WHERE state = 0", (row.lastrowid,))
        self._open_captures = self._open_bytes = 0
        return Batch(int(row.lastrowid or 0), name, self._root, closed_ms, captures)

    # --- delivering --------------------------------------------------------------------------------------------------

    def next_batch(self, *, after: int = 0) -> Batch | None:
        """Return the oldest batch that waits, of those with a higher `seq` than `after`."""
        rows = self.journal.read(
            "SELECT seq, name, root, closed_ms, captures FROM batches WHERE state = 1 AND seq > ? ORDER BY seq LIMIT 1",
            after,
        )
        return Batch(*rows[0]) if rows else None

    def captures_of(self, batch: Batch) -> list[Waiting]:
        """Return the captures of a waiting batch, in the order they were accepted."""
        large: dict[int, list[LargePayload]] = {}
        for seq, position, file, size_bytes, progress in self.journal.read(
            "SELECT p.capture, p.position, p.file, p.size_bytes, p.progress FROM payloads p"
            " JOIN captures c ON c.seq = p.capture WHERE c.batch = ? AND c.state = 1 ORDER BY p.capture, p.position",
            batch.seq,
        ):
            payload = LargePayload(position, self.payloads / file, size_bytes, progress)
            large.setdefault(seq, []).append(payload)
        rows = self.journal.read(
            "SELECT seq, id, accepted_ms, header, inline, weight FROM captures WHERE batch = ? AND state = 1 ORDER BY seq",
            batch.seq,
        )
        return [
            Waiting(seq, capture_id, accepted_ms, header, inline, weight, tuple(large.get(seq, ())))
            for seq, capture_id, accepted_ms, header, inline, weight in rows
        ]

    def note_progress(self, seq: int, position: int, progress: str | None) -> None:
        """Keep what a sink must remember of a large payload, such as the parts of an upload, over a restart."""
        self.journal.write(
            lambda database: database.execute(
                "UPDATE payloads SET progress = ? WHERE capture = ? AND position = ?", (progress, seq, position)
            )
        )

    def settle(self, batch: Batch, receipt: Receipt) -> None:
        """Enter a batch's delivery, and drop the payloads of its captures."""
        self._end(batch, receipt.state, None, receipt)

    def give_up(self, batch: Batch, state: State, reason: str) -> None:
        """Enter a batch's end without delivery: expired or quarantined. The caller has saved what is to be kept."""
        self._end(batch, state, reason, None)

    def _end(self, batch: Batch, state: State, reason: str | None, receipt: Receipt | None) -> None:
        ended_ms = self._now_ms()
        proof: tuple[Any, ...] = (None, None, None, None)
        if receipt is not None:
            proof = (receipt.key, receipt.size_bytes, receipt.etag, receipt.sha256)

        def end(database: sqlite3.Connection) -> list[str]:
            database.execute(
                "UPDATE batches SET state = ?, ended_ms = ?, reason = ?, key = ?, size_bytes = ?, etag = ?, sha256 = ?"
                " WHERE seq = ?",
                (state, ended_ms, reason, *proof, batch.seq),
            )
            return self._end_captures(database, "batch = ? AND state = 1", (batch.seq,), state, reason)

        self._remove_payloads(self._write(end))

    def _end_captures(
        self, database: sqlite3.Connection, which: str, values: tuple[Any, ...], state: State, reason: str | None
    ) -> list[str]:
        """Give captures their final state inside a transaction, and return the files of their payloads."""
        files = [
            file
            for (file,) in database.execute(
                f"SELECT file FROM payloads WHERE capture IN (SELECT seq FROM captures WHERE {which})",  # noqa: S608  # our own words
                values,
            )
        ]
        database.execute(f"DELETE FROM payloads WHERE capture IN (SELECT seq FROM captures WHERE {which})", values)  # noqa: S608  # same
        ((freed_bytes,),) = database.execute(
            f"SELECT COALESCE(SUM(size_bytes), 0) FROM captures WHERE {which}",  # noqa: S608  # same
            values,
        )
        database.execute(
            f"UPDATE captures SET state = ?, ended_ms = ?, reason = ?, header = NULL, inline = NULL WHERE {which}",  # noqa: S608  # same
            (state, self._now_ms(), reason, *values),
        )
        self._held_bytes -= freed_bytes
        return files

    def _remove_payloads(self, files: list[str]) -> None:
        with _translated(self.payloads):
            for file in files:
                self._files.remove(self.payloads / file)

    # --- asking ------------------------------------------------------------------------------------------------------

    def state_of(self, capture_id: str) -> State | None:
        """Return where a capture stands, or None for an id that the ledger does not know."""
        rows = self.journal.read("SELECT state FROM captures WHERE id = ?", capture_id)
        return State(rows[0][0]) if rows else None

    def open_since_ms(self) -> int | None:
        """Return when the oldest open capture was accepted, or None where nothing is open."""
        rows = self.journal.read("SELECT accepted_ms FROM captures WHERE state = 0 ORDER BY seq LIMIT 1")
        return int(rows[0][0]) if rows else None

    @property
    def id(self) -> str:
        """The spool's own name, with which the names of its batches begin."""
        return self._id

    @property
    def held_bytes(self) -> int:
        """What is open or waits, in bytes."""
        return self._held_bytes

    def close(self) -> None:
        """Let go of the files."""
        self.journal.close()


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Turn the system's refusals into the spool's."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise SpoolDiskFull(f"the disk of {path} is full", file=path) from error
        raise SpoolBroken(
            f"{path} cannot be used: {error.strerror}", file=path, cause=errno.errorcode.get(error.errno or 0, "")
        ) from error
