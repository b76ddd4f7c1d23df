"""What the ledger does as time goes by: captures that waited too long expire, rows that are done with are forgotten.

Each function does a bounded piece of work inside one transaction, so that writers wait for milliseconds at most.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from lightkeeper.capture.journal import Journal
from lightkeeper.capture.ledger import State, add_meta

DAY_MS = 24 * 3600 * 1000

EXPIRE_STEP = 4
"""The most batches that expire in one call."""

FORGET_STEP = 1000
"""The most rows forgotten in one call."""

VACUUM_STEP_PAGES = 256
"""The most free pages that one call gives back to the file system."""

KEEP_FREE_BYTES = 8 * 1024 * 1024
"""Free pages that stay in the file: giving them back only to take them again would wear the disk."""


@dataclass(frozen=True, slots=True)
class Keep:
    """How long things are kept: what waits (0 for ever), and the ledger's memory of what is done with."""

    expire_days: int = 0
    ledger_days: int = 30


def batches_to_expire(journal: Journal, before_ms: int, *, but: int | None) -> list[int]:
    """Return the oldest batches that waited since before then, leaving out the one being delivered."""
    return [
        seq
        for (seq,) in journal.read(
            "SELECT seq FROM batches WHERE state = 1 AND closed_ms < ? AND seq IS NOT ? ORDER BY seq LIMIT ?",
            before_ms,
            but,
            EXPIRE_STEP,
        )
    ]


def forget(database: sqlite3.Connection, before_ms: int) -> int:
    """Forget rows that ended before then, count them by state, and return how many they were."""
    rows = database.execute(
        "SELECT seq, state, weight FROM captures WHERE ended_ms < ? ORDER BY ended_ms LIMIT ?",
        (before_ms, FORGET_STEP),
    ).fetchall()
    database.executemany("DELETE FROM captures WHERE seq = ?", [(seq,) for seq, _, _ in rows])
    for state in {state for _, state, _ in rows}:
        add_meta(database, f"forgotten_{State(state).name}", sum(1 for row in rows if row[1] == state))
    add_meta(database, "forgotten_weight", sum(weight for _, state, weight in rows if state != State.THINNED))
    database.execute(
        "DELETE FROM batches WHERE seq IN (SELECT seq FROM batches WHERE ended_ms < ? AND NOT EXISTS"
        " (SELECT 1 FROM captures WHERE captures.seq BETWEEN first AND last) ORDER BY ended_ms LIMIT ?)",
        (before_ms, FORGET_STEP),
    )
    return len(rows)


def vacuum(database: sqlite3.Connection) -> None:
    """Give free pages back to the file system, a few at a time."""
    ((free_pages,),) = database.execute("PRAGMA freelist_count")
    ((page_bytes,),) = database.execute("PRAGMA page_size")
    pages = min(VACUUM_STEP_PAGES, free_pages - KEEP_FREE_BYTES // page_bytes)
    for _ in range(pages):
        database.execute("PRAGMA incremental_vacuum(1)")  # with a higher number, Python would end it after one page
