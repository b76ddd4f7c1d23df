"""Retention: what is old goes, a bounded piece at a time, so that no heartbeat waits for it."""

from __future__ import annotations

import logging

from sqlalchemy import ColumnElement, Connection, Table, delete, select, tuple_

from lightkeeper.hub import audit
from lightkeeper.hub.database import Database
from lightkeeper.hub.rollout import Progress
from lightkeeper.hub.settings import Settings
from lightkeeper.hub.tables.heartbeat import HOURS
from lightkeeper.hub.tables.identity import SESSIONS
from lightkeeper.hub.tables.key import SPENT_SIGNATURES
from lightkeeper.hub.tables.rollout import DEPLOYMENTS

DAY_MS = 86_400_000
ROWS_A_PIECE = 500
"""Rows deleted in one transaction."""
PIECES_A_SWEEP = 200

_FORGOTTEN = DEPLOYMENTS.c.stage.is_(None) & DEPLOYMENTS.c.progress.in_(
    [Progress.SUCCEEDED, Progress.FAILED, Progress.SUPERSEDED]
)

log = logging.getLogger(__name__)


def sweep(database: Database, settings: Settings, now_ms: int) -> int:
    """Delete what is too old to keep, and return how many rows that were.

    Hours, and deployments that no plan has any more, are kept as long as the setting says; a request's signature as
    long as the request could pass again; a device's session until it ends; the audit as `audit.tidy` says. What a sweep
    does not come to is left for the next one, a minute later.
    """
    before_ms = now_ms - settings.heartbeat_days * DAY_MS
    old = (
        (HOURS, HOURS.c.hour_ms < before_ms),
        (DEPLOYMENTS, _FORGOTTEN & (DEPLOYMENTS.c.since_ms < before_ms)),
        (SPENT_SIGNATURES, SPENT_SIGNATURES.c.expires_ms < now_ms),
        (SESSIONS, SESSIONS.c.expires_ms <= now_ms),
    )
    deleted = 0
    for table, condition in old:
        for _ in range(PIECES_A_SWEEP):
            with database.write(durable=False) as connection:
                piece = _delete_some(connection, table, condition)
            deleted += piece
            if piece < ROWS_A_PIECE:
                break
    with database.write(durable=False) as connection:
        audit.tidy(connection, now_ms)
    log.debug("retention_swept", extra={"rows": deleted, "days": settings.heartbeat_days})
    return deleted


def _delete_some(connection: Connection, table: Table, old: ColumnElement[bool]) -> int:
    key = list(table.primary_key)
    some = select(*key).where(old).limit(ROWS_A_PIECE)
    rows = connection.execute(some).all()
    if not rows:
        return 0
    return connection.execute(delete(table).where(tuple_(*key).in_([tuple(row) for row in rows]))).rowcount
