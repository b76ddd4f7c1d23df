"""Batches in the ledger: closing one, finding one, and what is in it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from lightkeeper.capture.journal import Journal
from lightkeeper.capture.ledger import Batch, LargePayload, State, Waiting
from lightkeeper.capture.pressure import Counts

OPEN_SINCE = """
    SELECT accepted_ms FROM captures
    WHERE seq > (SELECT COALESCE(MAX(last), 0) FROM batches) AND state = 0 ORDER BY seq LIMIT 1
"""


def close(database: sqlite3.Connection, counts: Counts, *, spool_id: str, root: str, closed_ms: int) -> Batch | None:
    """Close a batch of what is open and return it, or None where nothing is."""
    captures = counts.open_captures
    if not captures:
        return None
    ((seq,),) = database.execute("SELECT COALESCE((SELECT seq FROM sqlite_sequence WHERE name = 'batches'), 0) + 1")
    name = f"{spool_id}-{seq:08d}"
    database.execute(
        "INSERT INTO batches (seq, name, state, closed_ms, root, first, last, captures, held_bytes)"
        " VALUES (?, ?, 1, ?, ?, ?, ?, ?, ?)",
        (seq, name, closed_ms, root, counts.closed_to + 1, counts.accepted, captures, counts.open_bytes),
    )
    counts.closed_to = counts.accepted
    counts.waiting_bytes += counts.open_bytes
    counts.open_captures = counts.open_content_bytes = counts.open_bytes = 0
    return Batch(seq, name, root, closed_ms, captures)


def open_since_ms(source: sqlite3.Connection | Journal) -> int | None:
    """Return when the oldest open capture was accepted, or None where nothing is open."""
    rows = source.read(OPEN_SINCE) if isinstance(source, Journal) else source.execute(OPEN_SINCE).fetchall()
    return int(rows[0][0]) if rows else None


def first(journal: Journal, state: State, after: int) -> Batch | None:
    """Return the oldest batch of a state with a `seq` higher than `after`."""
    queries = {
        State.WAITING: "SELECT seq, name, root, closed_ms, captures FROM batches WHERE state = 1 AND seq > ?"
        " ORDER BY seq LIMIT 1",
        State.WRITTEN: "SELECT seq, name, root, closed_ms, captures FROM batches WHERE state = 2 AND seq > ?"
        " ORDER BY seq LIMIT 1",
    }  # the state as a word of the query, so that its partial index is used
    rows = journal.read(queries[state], after)
    return Batch(*rows[0]) if rows else None


def waiting_range(journal: Journal) -> tuple[int, int]:
    """Return the `seq` of the oldest and of the newest batch that waits; both 0 where none does."""
    ((oldest, newest),) = journal.read(
        "SELECT COALESCE(MIN(seq), 0), COALESCE(MAX(seq), 0) FROM batches WHERE state = 1"
    )
    return int(oldest), int(newest)


def captures(journal: Journal, batch: Batch, payloads: Path) -> list[Waiting]:
    """Return the captures of a waiting batch, in the order they were accepted."""
    large: dict[int, list[LargePayload]] = {}
    for seq, position, file, size_bytes, progress in journal.read(
        "SELECT p.capture, p.position, p.file, p.size_bytes, p.progress FROM batches b"
        " JOIN payloads p ON p.capture BETWEEN b.first AND b.last WHERE b.seq = ? ORDER BY p.capture, p.position",
        batch.seq,
    ):
        large.setdefault(seq, []).append(LargePayload(position, payloads / file, size_bytes, progress))
    rows = journal.read(
        "SELECT c.seq, c.id, c.accepted_ms, c.header, c.inline, c.weight FROM batches b"
        " JOIN captures c ON c.seq BETWEEN b.first AND b.last WHERE b.seq = ? AND c.state = 0 ORDER BY c.seq",
        batch.seq,
    )
    return [
        Waiting(seq, capture_id, accepted_ms, header, inline, weight, tuple(large.get(seq, ())))
        for seq, capture_id, accepted_ms, header, inline, weight in rows
    ]
