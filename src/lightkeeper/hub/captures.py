"""Captures: what a fleet's devices last said of theirs, for `hub report`.

The counts are sums of each device's own ledger; the hub adds nothing to them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, and_, select

from lightkeeper.hub import metrics
from lightkeeper.hub.tables.fleet import DEVICES
from lightkeeper.hub.tables.heartbeat import HEARTBEATS

LATEST = "LatestSampleTime"

_PREFIX, _SAMPLES_LOST = "Captures", "SamplesLost"


def of_fleet(connection: Connection, fleet: str) -> dict[str, dict[str, Any]]:
    """Return, by device, when it last kept a capture (ISO 8601 in UTC) and its counts, as far as it said them."""
    said = and_(HEARTBEATS.c.fleet == DEVICES.c.fleet, HEARTBEATS.c.device == DEVICES.c.name)
    rows = connection.execute(
        select(DEVICES.c.name, DEVICES.c.models, HEARTBEATS.c.metrics)
        .select_from(DEVICES)
        .outerjoin(HEARTBEATS, said)
        .where(DEVICES.c.fleet == fleet)
    )
    return {row.name: {**_latest(row.models), **_counts(row.metrics)} for row in rows}


def _latest(models: list[dict[str, Any]] | None) -> dict[str, str]:
    last_ms = max((model.get(LATEST, 0) for model in models or ()), default=0)
    if not last_ms:
        return {}
    return {LATEST: datetime.fromtimestamp(last_ms / 1000, UTC).isoformat(timespec="milliseconds")}


def _counts(document: metrics.Document | None) -> dict[str, int]:
    return {
        name: int(value)
        for name, value in metrics.latest(document or {}).items()
        if name.startswith(_PREFIX) or name == _SAMPLES_LOST
    }
