"""Room in the spool: how much there is, who may have it, and what goes when there is none.

A full spool either rejects what comes, or thins: of what waits, an even sample stays. At level L one capture stays for
every 2^L. The same rule thins what waits and what comes meanwhile: captures pass by in the order they were accepted,
each adds its weight to a carry, and the one with which the carry reaches 2^L stays, with the carry as its weight.

Invariants:

1. The weights of all accepted captures that were not thinned, and the carries, add up to the number accepted.
2. Between two captures that stay at level L, at most 2 * 2^L were accepted.
3. A batch that was handed out for delivery is never thinned.
4. One call thins at most `THIN_STEP` captures and one batch.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from lightkeeper.capture.ledger import Ended, State, add_meta, end_captures, thinned_reason
from lightkeeper.errors import CaptureBufferFull, SpoolFull

MAX_LEVEL = 20
"""One of a million stays; a spool that is too small even so rejects."""

THIN_STEP = 1000
"""About as many captures as one call thins: a few tens of milliseconds."""

LOW_WATER = 0.5
"""The level falls, a step a batch, once what is held is below this share of what the spool may hold."""


@dataclass(frozen=True, slots=True)
class Room:
    """What the spool may hold. `buffer` and `batch` count captures, the rest bytes. A full spool rejects or thins."""

    buffer: int
    batch: int
    spool_max_bytes: int
    free_floor_bytes: int
    thin: bool = False


@dataclass(slots=True)
class Counts:
    """What the spool holds, as the database says; changed only in its transactions, `stale` after one was undone."""

    stale: bool = True
    accepted: int = 0
    closed_to: int = 0
    open_captures: int = 0
    open_content_bytes: int = 0
    open_bytes: int = 0
    waiting_bytes: int = 0
    reusable_bytes: int = 0
    level: int = 0
    carry: int = 0
    """Of the captures that come."""
    passing: int = 0
    """Of those that wait, while a level goes over them piece by piece."""
    thinned_to: int = 0

    @property
    def held_bytes(self) -> int:
        """What is open or waits."""
        return self.open_bytes + self.waiting_bytes

    def forget(self) -> None:
        """Believe nothing until all is taken anew: a transaction was undone."""
        self.stale = True

    def take(self, database: sqlite3.Connection) -> None:
        """Take all counts from the database."""
        ((self.accepted, self.closed_to, self.waiting_bytes),) = database.execute(
            "SELECT COALESCE((SELECT seq FROM sqlite_sequence WHERE name = 'captures'), 0),"
            " COALESCE((SELECT MAX(last) FROM batches), 0),"
            " COALESCE((SELECT SUM(held_bytes) FROM batches WHERE state = 1), 0)"
        )
        ((self.open_captures, self.open_content_bytes, self.open_bytes),) = database.execute(
            "SELECT COUNT(*), COALESCE(SUM(LENGTH(header) + LENGTH(inline)), 0), COALESCE(SUM(size_bytes), 0)"
            " FROM captures WHERE seq > ? AND state = 0",
            (self.closed_to,),
        )
        said = dict(database.execute("SELECT name, value FROM meta WHERE name LIKE 'thin_%'"))
        self.level, self.carry = said.get("thin_level", 0), said.get("thin_carry", 0)
        self.passing, self.thinned_to = said.get("thin_passing", 0), said.get("thin_done", 0)
        self.take_reusable(database)
        self.stale = False

    def take_reusable(self, database: sqlite3.Connection) -> None:
        """See how much of the database's own file is free."""
        ((pages,),) = database.execute("PRAGMA freelist_count")
        ((page_bytes,),) = database.execute("PRAGMA page_size")
        self.reusable_bytes = pages * page_bytes


@dataclass(slots=True)
class Ticket:
    """Room promised to one capture. With `weight` 0 the capture goes at once, and leaves only a row."""

    size_bytes: int
    weight: int
    used: bool = field(default=False)


class Gate:
    """Lets captures in while there is room."""

    def __init__(self, room: Room, counts: Counts, free_bytes: Callable[[], int]) -> None:
        self._room = room
        self._counts = counts
        self._free_bytes = free_bytes
        self._lock = threading.Lock()
        self._captures = 0
        self._bytes = 0
        self._carry = 0

    @contextmanager
    def promise(self, size_bytes: int) -> Iterator[Ticket]:
        """Hold room for a capture until it is in (`use`) or the block ends.

        Raises `CaptureBufferFull` or `SpoolFull`.
        """
        free_bytes = self._free_bytes()
        with self._lock:
            self._check(size_bytes, free_bytes)
            ticket = Ticket(size_bytes, self._weigh())
            self._captures += 1
            self._bytes += size_bytes
        try:
            yield ticket
        finally:
            with self._lock:
                if not ticket.used:
                    self._give_back(ticket)

    def thinning_helps(self, size_bytes: int) -> bool:
        """Whether giving up half of what waits would make room for a capture: else nothing is given up for it."""
        if not self._room.thin or size_bytes > self._room.spool_max_bytes:
            return False
        missing_bytes = self._room.free_floor_bytes + size_bytes - self._free_bytes() - self._counts.reusable_bytes
        return missing_bytes <= self._counts.waiting_bytes // 2

    def use(self, ticket: Ticket) -> int:
        """Turn a promise into a fact, within the transaction; return the change of the ledger's carry."""
        with self._lock:
            ticket.used = True
            self._give_back(ticket)
            change = _change(ticket.weight)
            self._counts.carry += change
            return change

    def _check(self, size_bytes: int, free_bytes: int) -> None:
        room, counts = self._room, self._counts
        captures = counts.open_captures + self._captures
        if captures >= room.buffer:
            raise CaptureBufferFull(
                f"{captures} captures wait for their batch, as many as the buffer holds", buffer=room.buffer
            )
        held_bytes = counts.held_bytes + self._bytes
        if held_bytes + size_bytes > room.spool_max_bytes:
            raise SpoolFull(
                f"the spool holds {held_bytes} of {room.spool_max_bytes} bytes",
                held_bytes=held_bytes,
                capture_bytes=size_bytes,
                limit_bytes=room.spool_max_bytes,
            )
        if free_bytes + counts.reusable_bytes - self._bytes - size_bytes < room.free_floor_bytes:
            raise SpoolFull(
                f"the disk has {free_bytes} bytes free, of which {room.free_floor_bytes} stay free",
                free_bytes=free_bytes,
                capture_bytes=size_bytes,
                floor_bytes=room.free_floor_bytes,
            )

    def _weigh(self) -> int:
        """Decide what becomes of the next capture: how many it stands for, or 0 where it goes."""
        carry = self._counts.carry + self._carry + 1
        weight = carry if carry >= 1 << self._counts.level else 0
        self._carry += _change(weight)
        return weight

    def _give_back(self, ticket: Ticket) -> None:
        self._captures -= 1
        self._bytes -= ticket.size_bytes
        self._carry -= _change(ticket.weight)


def _change(weight: int) -> int:
    """Return what a capture of this weight does to the carry."""
    return 1 - weight


def thin(database: sqlite3.Connection, counts: Counts, *, ended_ms: int) -> Ended | None:
    """Thin a part of what waits, oldest first, and go on a level where all has been; None where nothing can be."""
    batches = _batches_after(database, counts.thinned_to)
    if not batches and counts.thinned_to:
        _end_pass(counts)
        batches = _batches_after(database, 0)
    if not batches or (not counts.thinned_to and counts.level >= MAX_LEVEL):
        return None
    if not counts.thinned_to:
        counts.level += 1
    weight = 1 << counts.level
    gone: list[int] = []
    kept: list[tuple[int, int]] = []
    for seq, own_weight in database.execute(
        "SELECT c.seq, c.weight FROM batches b JOIN captures c ON c.seq BETWEEN b.first AND b.last"
        " WHERE b.state = 1 AND b.begun = 0 AND b.seq BETWEEN ? AND ? AND c.state = 0 ORDER BY b.seq, c.seq",
        (batches[0], batches[-1]),
    ).fetchall():
        counts.passing += own_weight
        if counts.passing < weight:
            gone.append(seq)
        else:
            kept.append((counts.passing, seq))
            counts.passing = 0
    database.executemany("UPDATE captures SET weight = ? WHERE seq = ?", kept)
    ended = end_captures(
        database,
        gone,
        State.THINNED,
        ended_ms=ended_ms,
        reason=thinned_reason(weight),
        weight=weight,
    )
    counts.thinned_to = batches[-1]
    counts.waiting_bytes -= ended.freed_bytes
    counts.take_reusable(database)
    save(database, counts)
    return ended


def fall(database: sqlite3.Connection, counts: Counts, room: Room) -> bool:
    """Let the level fall a step where the spool has drained; return whether it fell."""
    if not counts.level or counts.held_bytes > LOW_WATER * room.spool_max_bytes:
        return False
    counts.level -= 1
    _end_pass(counts)
    save(database, counts)
    return True


def _end_pass(counts: Counts) -> None:
    """Begin at the oldest again; what the last pass carried goes to the next capture that comes."""
    counts.carry += counts.passing
    counts.passing = counts.thinned_to = 0


def save(database: sqlite3.Connection, counts: Counts) -> None:
    """Write down how the spool thins."""
    for name, value in (
        ("thin_level", counts.level),
        ("thin_carry", counts.carry),
        ("thin_passing", counts.passing),
        ("thin_done", counts.thinned_to),
    ):
        database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))


def save_carry(database: sqlite3.Connection, change: int) -> None:
    """Write down a change of the carry."""
    if change:
        add_meta(database, "thin_carry", change)


def _batches_after(database: sqlite3.Connection, seq: int) -> list[int]:
    """Return the next batches that may be thinned: of `THIN_STEP` captures together, but one at least."""
    found: list[int] = []
    captures = 0
    for batch, count in database.execute(
        "SELECT seq, captures FROM batches WHERE state = 1 AND begun = 0 AND seq > ? ORDER BY seq LIMIT ?",
        (seq, THIN_STEP),
    ):
        found.append(batch)
        captures += count
        if captures >= THIN_STEP:
            break
    return found
