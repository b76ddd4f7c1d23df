"""The audit: who was given credentials and who was not, in the database and in the log.

Invariants: never a key, credential or body; text from outside is cut and printable. What repeats within an hour is one
row that counts, so neither a wrong device nor an attacker makes the table grow by asking often; rows are kept for
`KEPT_DAYS`, and of those the latest `KEPT_ROWS`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from lightkeeper.hub.tables.identity import AUDIT

KEPT_DAYS = 90
KEPT_ROWS = 100_000

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """What happened: an event's name (a reason code where it was a refusal), to which certificate, from where."""

    event: str
    remote: str = ""
    fingerprint: str = ""
    thing: str = ""
    detail: str = ""


def write(connection: Connection, entry: Entry, now_ms: int, *, level: int = logging.WARNING) -> None:
    """Put down an entry, and log it."""
    remote, thing, detail = _plain(entry.remote, 63), _plain(entry.thing, 128), _plain(entry.detail, 256)
    row = {
        "hour_ms": now_ms - now_ms % HOUR_MS,
        "event": entry.event,
        "fingerprint": entry.fingerprint,
        "remote": remote,
        "thing": thing,
        "detail": detail,
        "first_ms": now_ms,
        "last_ms": now_ms,
        "count": 1,
    }
    statement: Any = (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(AUDIT)
    key = [column.name for column in AUDIT.primary_key]
    again = {"last_ms": statement.excluded.last_ms, "thing": statement.excluded.thing, "count": AUDIT.c.count + 1}
    connection.execute(statement.on_conflict_do_update(index_elements=key, set_=again), row)
    logger.log(
        level,
        "audit",
        extra={
            "event": entry.event,
            "fingerprint": entry.fingerprint,
            "remote": remote,
            "thing": thing,
            "detail": detail,
        },
    )


def entries(connection: Connection, limit: int = 1000) -> Iterator[Row[Any]]:
    """Yield the latest entries, the newest first."""
    yield from connection.execute(select(AUDIT).order_by(AUDIT.c.last_ms.desc()).limit(limit))


def tidy(connection: Connection, now_ms: int) -> None:
    """Drop what is older than it is kept, or more."""
    connection.execute(delete(AUDIT).where(AUDIT.c.last_ms < now_ms - KEPT_DAYS * DAY_MS))
    oldest = connection.scalar(select(AUDIT.c.last_ms).order_by(AUDIT.c.last_ms.desc()).offset(KEPT_ROWS).limit(1))
    if oldest is not None:
        connection.execute(delete(AUDIT).where(AUDIT.c.last_ms <= oldest))


def _plain(text: str, length: int) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text[:length])
