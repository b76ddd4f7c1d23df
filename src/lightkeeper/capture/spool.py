"""The spool: every accepted capture from the moment it is accepted, and what became of it (the ledger).

On the disk, under the agent's state folder:

    spool/spool.db      SQLite in WAL mode: captures, their small payloads, batches, counters (see `ledger`)
    spool/payloads/     one file a large payload, complete and synced before the row that names it
    spool/quarantine/   what was found and belongs to nothing, or could not be delivered, with its cause beside it

A capture's life: open (in the buffer) -> waiting (in a closed batch) -> one final state. A closed batch never changes
its name, and its captures only while it was not yet handed out for delivery (see `pressure`): so it can be delivered
any number of times with the same result.

Invariants:

1. `accept` returns only when the capture's row, and before it the files of its large payloads, are durable.
2. Every accepted id is in exactly one state; the number of accepted captures equals the sum over the states and what
   has been forgotten of each. Both change in the same transaction.
3. A final state's row keeps no payload; its files are removed after the row says so.
4. What waits is never forgotten; what is final is forgotten after the retention time.
"""

from __future__ import annotations

import logging
import secrets
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from lightkeeper.capture import batches, pressure, upkeep
from lightkeeper.capture.files import PRIVATE_FOLDER, Files, translated
from lightkeeper.capture.journal import Durability, is_damage
from lightkeeper.capture.ledger import (
    BATCH_OF,
    Batch,
    Ended,
    LargePayload,
    Receipt,
    State,
    Waiting,
    end_batch,
    insert_capture,
    state_in,
    taken,
)
from lightkeeper.capture.payloads import PayloadFile, Payloads
from lightkeeper.capture.pressure import Counts, Gate, Room, Ticket
from lightkeeper.capture.quarantine import Quarantine
from lightkeeper.capture.record import Stored
from lightkeeper.capture.recovery import DAMAGED_MARK, PAYLOADS, QUARANTINE, start
from lightkeeper.capture.upkeep import DAY_MS, Keep
from lightkeeper.errors import AgentError, SpoolBroken, SpoolFull

__all__ = ["Batch", "Keep", "LargePayload", "Receipt", "Room", "Spool", "State", "Waiting"]

Result = TypeVar("Result")

ROW_OVERHEAD_BYTES = 512
"""What a row costs beside its content, about: counted against the spool's limit."""

BATCH_LIMIT_BYTES = 16 * 1024 * 1024
"""A batch is also closed when its captures' headers and small payloads reach this much: it is held in memory once."""

THIN_TRIES = 8
"""How many pieces of what waits one `accept` thins before it refuses."""

log = logging.getLogger(__name__)


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
        keep: Keep | None = None,
    ) -> None:
        """Open the spool, making it where it is missing, and put in order what a crash left.

        Raises `SpoolBroken`, `SpoolDiskFull` or `SpoolTooNew`.
        """
        self.folder = folder
        self.payloads = folder / PAYLOADS
        self.quarantine = folder / QUARANTINE
        self.room = room
        self._root = root
        self._files = files
        self._now_ms = now_ms
        self._keep = keep or Keep()
        self._handing_out = threading.Lock()
        self._handed_out: int | None = None
        self._counts = Counts()
        self._gate = Gate(room, self._counts, self._free_bytes)
        self._payloads = Payloads(self.payloads, files)
        self._quarantine = Quarantine(self.quarantine, files=files, now_ms=now_ms)
        with translated(folder):
            for made in (folder, self.payloads, self.quarantine):
                files.make_folder(made, mode=PRIVATE_FOLDER)
            self.journal = start(folder, durability, self._quarantine, on_rollback=self._counts.forget, now_ms=now_ms)
            try:
                fresh = durability.in_memory  # numbers that a crash took back must not name another batch again
                self._id = self._write(lambda database: self._begin(database, fresh=fresh))
            except BaseException:
                self.journal.close(save=False)
                raise

    # --- accepting ---------------------------------------------------------------------------------------------------

    def accept(self, stored: Stored) -> Batch | None:
        """Take a capture in; it is durable when this returns. Return the batch that it filled, if it did.

        Raises `CaptureIdTaken`, `CaptureBufferFull`, `SpoolFull`, `SpoolDiskFull` or `SpoolBroken`.
        """
        size_bytes = stored.size_bytes + ROW_OVERHEAD_BYTES
        for _ in range(THIN_TRIES):
            try:
                return self._accept(stored, size_bytes)
            except SpoolFull:
                if not self._gate.thinning_helps(size_bytes) or not self._thin():
                    raise
        return self._accept(stored, size_bytes)

    def _accept(self, stored: Stored, size_bytes: int) -> Batch | None:
        with self._gate.promise(size_bytes) as ticket:
            if not ticket.weight:
                return self._write(lambda database: self._insert(database, stored, ticket, []))
            if stored.large and self.state_of(stored.id) is not None:
                raise taken(stored.id)  # before its payloads are written for nothing
            written = self._payloads.write(stored)
            try:
                return self._write(lambda database: self._insert(database, stored, ticket, written))
            except AgentError:
                if written and not self._may_be_named(written):
                    self._payloads.remove(file.name for file in written)
                raise

    def _may_be_named(self, written: Sequence[PayloadFile]) -> bool:
        """Whether a refused capture's row is there after all, or may turn out to be (see `Journal`)."""
        if self.journal.in_doubt:
            return True
        try:
            return bool(self.journal.read("SELECT 1 FROM payloads WHERE file = ?", written[0].name))
        except SpoolBroken:  # no log: the refusal itself says it; the next start looks at the files
            return True

    def _begin(self, database: sqlite3.Connection, *, fresh: bool) -> str:
        """Give a new database its id, send waiting batches where captures go now, and return the id."""
        if fresh:
            database.execute("DELETE FROM meta WHERE name = 'id'")
        database.execute("INSERT OR IGNORE INTO meta VALUES ('id', ?)", (secrets.token_hex(4),))
        database.execute("UPDATE batches SET root = ? WHERE state = 1 AND root <> ?", (self._root, self._root))
        ((spool_id,),) = database.execute("SELECT value FROM meta WHERE name = 'id'")
        return str(spool_id)

    def _insert(
        self, database: sqlite3.Connection, stored: Stored, ticket: Ticket, written: Sequence[PayloadFile]
    ) -> Batch | None:
        counts = self._counts
        counts.accepted = insert_capture(
            database,
            stored,
            accepted_ms=self._now_ms(),
            size_bytes=ticket.size_bytes,
            weight=ticket.weight or 1 << counts.level,
            thinned=not ticket.weight,
        )
        pressure.save_carry(database, self._gate.use(ticket))
        if not ticket.weight:
            return None
        if written:
            database.executemany(
                "INSERT INTO payloads (capture, position, file, size_bytes) VALUES (?, ?, ?, ?)",
                [(counts.accepted, file.position, file.name, file.size_bytes) for file in written],
            )
        counts.open_captures += 1
        counts.open_content_bytes += len(stored.header) + len(stored.inline)
        counts.open_bytes += ticket.size_bytes
        counts.reusable_bytes = max(0, counts.reusable_bytes - ticket.size_bytes)
        full = counts.open_captures >= self.room.batch or counts.open_content_bytes >= BATCH_LIMIT_BYTES
        return self._close(database) if full else None

    def _thin(self) -> bool:
        """Thin a part of what waits; return whether there was something to thin."""
        level = self._counts.level
        ended = self._write(lambda database: pressure.thin(database, self._counts, ended_ms=self._now_ms()))
        if ended is None:
            return False
        self._payloads.remove(ended.files)
        if self._counts.level != level:
            log.warning("captures_thinned", extra={"level": self._counts.level, "stays": f"1 of {1 << level + 1}"})
        return True

    # --- closing -----------------------------------------------------------------------------------------------------

    def close_batch(self, *, older_than_ms: int | None = None) -> Batch | None:
        """Close a batch of what is open and return it, or None where nothing is.

        With `older_than_ms`, only where the oldest open capture was accepted that long ago.
        """
        if not self._counts.open_captures and not self._counts.stale:
            return None

        def close(database: sqlite3.Connection) -> Batch | None:
            if older_than_ms is not None:
                since_ms = batches.open_since_ms(database)
                if since_ms is None or 0 <= self._now_ms() - since_ms < older_than_ms:  # negative: the clock went back
                    return None
            return self._close(database)

        return self._write(close)

    def _close(self, database: sqlite3.Connection) -> Batch | None:
        return batches.close(database, self._counts, spool_id=self._id, root=self._root, closed_ms=self._now_ms())

    # --- delivering --------------------------------------------------------------------------------------------------

    def next_batch(self, *, after: int = 0) -> Batch | None:
        """Return the oldest batch that waits, of those with a higher `seq` than `after`."""
        return batches.first(self.journal, State.WAITING, after)

    def next_written(self, *, after: int = 0) -> Batch | None:
        """Return the oldest batch that was written to the disk and not uploaded, of those after a `seq`."""
        return batches.first(self.journal, State.WRITTEN, after)

    def waiting_range(self) -> tuple[int, int]:
        """Return the `seq` of the oldest and of the newest batch that waits; both 0 where none does."""
        return batches.waiting_range(self.journal)

    def release(self, batch: Batch) -> None:
        """Say that a batch is not being delivered right now, so that it may expire."""
        if self._handed_out == batch.seq:
            self._handed_out = None

    def captures_of(self, batch: Batch) -> list[Waiting]:
        """Return the captures of a waiting batch, in the order they were accepted, for its delivery.

        From now on the batch is never thinned, and before it is settled, given up or released it does not expire.
        """
        with self._handing_out:
            self._handed_out = batch.seq
        if self.room.thin:
            self._write(lambda database: database.execute("UPDATE batches SET begun = 1 WHERE seq = ?", (batch.seq,)))
        return batches.captures(self.journal, batch, self.payloads)

    def note_progress(self, seq: int, position: int, progress: str | None) -> None:
        """Keep what a sink must remember of a large payload, such as the parts of an upload, over a restart."""
        self._write(
            lambda database: database.execute(
                "UPDATE payloads SET progress = ? WHERE capture = ? AND position = ?", (progress, seq, position)
            )
        )

    def settle(self, batch: Batch, receipt: Receipt) -> None:
        """Enter a batch's delivery, and drop the payloads of its captures."""
        self._end(batch.seq, receipt.state, receipt=receipt)

    def give_up(self, batch: Batch, state: State, reason: str) -> None:
        """Enter a batch's end without delivery: expired or quarantined. The caller has saved what is to be kept."""
        self._end(batch.seq, state, reason=reason)

    def _end(self, seq: int, state: State, *, reason: str | None = None, receipt: Receipt | None = None) -> None:
        def end(database: sqlite3.Connection) -> Ended:
            ended = end_batch(database, seq, state, ended_ms=self._now_ms(), reason=reason, receipt=receipt)
            self._counts.waiting_bytes -= ended.freed_bytes
            self._counts.take_reusable(database)
            pressure.fall(database, self._counts, self.room)
            return ended

        ended = self._write(end)
        if self._handed_out == seq:
            self._handed_out = None
        self._payloads.remove(ended.files)

    # --- time --------------------------------------------------------------------------------------------------------

    def maintain(self) -> None:
        """Do a bounded piece of what time asks for; call it about once a second, from one thread.

        Expires what waited too long, forgets what is long done with, and gives room back to the file system.
        """
        now_ms = self._now_ms()
        if self._keep.expire_days:
            before_ms = now_ms - self._keep.expire_days * DAY_MS
            reason = f"waited for more than {self._keep.expire_days} days"
            with self._handing_out:
                for seq in upkeep.batches_to_expire(self.journal, before_ms, but=self._handed_out):
                    self._end(seq, State.EXPIRED, reason=reason)
                    log.error("batch_expired", extra={"batch": seq, "days": self._keep.expire_days})
        before_ms = now_ms - self._keep.ledger_days * DAY_MS
        if self.journal.read("SELECT 1 FROM captures WHERE ended_ms < ? LIMIT 1", before_ms):
            self._write(lambda database: upkeep.forget(database, before_ms))
        if self._counts.reusable_bytes > upkeep.KEEP_FREE_BYTES:
            self._write(self._vacuum)
        self.journal.checkpoint()
        with translated(self.quarantine):
            self._quarantine.trim()

    def _vacuum(self, database: sqlite3.Connection) -> None:
        upkeep.vacuum(database)
        self._counts.take_reusable(database)

    def sync(self) -> None:
        """Make durable what was accepted; a timer calls this where `Durability` has an interval."""
        self.journal.sync()

    # --- asking ------------------------------------------------------------------------------------------------------

    def state_of(self, capture_id: str) -> State | None:
        """Return where a capture stands, or None for an id that the ledger does not know."""
        rows = self.journal.read(
            f"SELECT state, {BATCH_OF} FROM captures WHERE id = ?",  # noqa: S608  # our own words
            capture_id,
        )
        return state_in(*rows[0]) if rows else None

    def open_since_ms(self) -> int | None:
        """Return when the oldest open capture was accepted, or None where nothing is open."""
        if not self._counts.open_captures and not self._counts.stale:
            return None
        return batches.open_since_ms(self.journal)

    @property
    def id(self) -> str:
        """The spool's own name, with which the names of its batches begin."""
        return self._id

    @property
    def held_bytes(self) -> int:
        """What is open or waits, in bytes."""
        return self._counts.held_bytes

    def close(self) -> None:
        """Let go of the files."""
        self.journal.close()

    # --- the disk ----------------------------------------------------------------------------------------------------

    def _write(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Have the journal do work that knows the counts to be right."""

        def counted(database: sqlite3.Connection) -> Result:
            if self._counts.stale:
                self._counts.take(database)
            return work(database)

        try:
            return self.journal.write(counted)
        except SpoolBroken as error:
            if is_damage(error):
                with suppress(OSError):
                    self._files.write(self.folder / DAMAGED_MARK, [])
                log.error("spool_damaged", extra={"file": str(self.folder), "cause": error.message})  # noqa: TRY400  # the cause is in the message
            raise

    def _free_bytes(self) -> int:
        with translated(self.folder):
            return self._files.free_bytes(self.folder)
