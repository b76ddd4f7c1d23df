"""The ledger's sums: how many captures were accepted, and how many of them came to which state, since its beginning.

Invariants: accepted = the sum over the states; a sum changes in the transaction that changes the rows, and stays when
rows are forgotten; reading them costs the same however many captures the ledger knows.

A ledger of a release that kept no sums has them counted once, when it is opened (`put_right`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lightkeeper.capture.journal import Journal
from lightkeeper.capture.ledger import ENDED, State, add_meta

_QUERY = f"""
    SELECT 'accepted', seq FROM sqlite_sequence WHERE name = 'captures'
    UNION ALL SELECT 'WAITING', COALESCE(SUM(captures), 0) FROM batches WHERE state = 1
    UNION ALL SELECT substr(name, {len(ENDED) + 1}), value FROM meta WHERE name LIKE '{ENDED}%'
"""  # noqa: S608  # our own words; one statement, so that all is of one moment


@dataclass(frozen=True, slots=True)
class Sums:
    """How many captures were accepted, and where they stand."""

    accepted: int
    states: Mapping[State, int]


def read(journal: Journal) -> Sums:
    """Return the sums of now. Raises `SpoolBroken`."""
    return _sums(journal.read(_QUERY))


def put_right(database: sqlite3.Connection) -> None:
    """Count anew where the sums do not come out: another release wrote to this ledger."""
    ((open_captures,),) = database.execute(
        "SELECT COUNT(*) FROM captures WHERE seq > (SELECT COALESCE(MAX(last), 0) FROM batches) AND state = 0"
    )
    if _sums(database.execute(_QUERY).fetchall()).states[State.OPEN] == open_captures:
        return
    database.execute(f"DELETE FROM meta WHERE name LIKE '{ENDED}%'")  # noqa: S608  # our own word
    rows = database.execute("SELECT state, COUNT(*) FROM captures WHERE state >= ? GROUP BY state", (State.WRITTEN,))
    for number, count in rows.fetchall():
        add_meta(database, f"{ENDED}{State(number).name}", count)
    for state in State:
        forgotten = database.execute("SELECT value FROM meta WHERE name = ?", (f"forgotten_{state.name}",)).fetchone()
        if forgotten:
            add_meta(database, f"{ENDED}{state.name}", forgotten[0])


def _sums(rows: Iterable[tuple[Any, ...]]) -> Sums:
    found = dict(rows)
    accepted = found.get("accepted", 0)
    states: dict[State, int] = {state: found.get(state.name, 0) for state in State if state is not State.OPEN}
    states[State.OPEN] = accepted - sum(states.values())
    return Sums(accepted, states)
