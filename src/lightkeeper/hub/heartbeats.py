"""Heartbeats: SendHeartbeat, the call that a fleet makes all day.

One transaction: the device's rows are read, and written back whole, however many models and metrics there are; once an
hour a third row is added. It is not waited for on the disk, unless it brings a deployment's result: after a power cut
of the hub the last heartbeats may be missing, and the next one says the same.

Invariants:
- A heartbeat that was signed before the latest one is late: its result is taken in, and nothing else of it.
- A model's latest inference and sample never go back, and never lie in the hub's future.
- No sample counts twice (`metrics.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, select

from lightkeeper.hub import latest, metrics, results
from lightkeeper.hub.context import Context
from lightkeeper.hub.database import insert_or_skip, put
from lightkeeper.hub.devices import unknown as unknown_device
from lightkeeper.hub.tables.fleet import DEVICES
from lightkeeper.hub.tables.heartbeat import HEARTBEATS, HOURS

log = logging.getLogger(__name__)

_FIND = (
    select(DEVICES.c.models, HEARTBEATS.c.sent_ms, HEARTBEATS.c.hour_ms, HEARTBEATS.c.metrics)
    .select_from(DEVICES)
    .outerjoin(HEARTBEATS, and_(HEARTBEATS.c.fleet == DEVICES.c.fleet, HEARTBEATS.c.device == DEVICES.c.name))
    .where(DEVICES.c.fleet == bindparam("fleet"), DEVICES.c.name == bindparam("device"))
    .with_for_update(of=DEVICES, key_share=True)
)
"""Made once: making it costs more than it does."""


def send(context: Context, given: Mapping[str, Any]) -> dict[str, Any]:
    """SendHeartbeat. Raises `DeviceUnknown`."""
    fleet, device = given["DeviceFleetName"], given["DeviceName"]
    result = given.get("DeploymentResult")
    with context.write(durable=bool(result)) as connection:
        row = connection.execute(_FIND, {"fleet": fleet, "device": device}).first()
        if row is None:
            raise unknown_device(fleet, device)
        if row.sent_ms is None or row.sent_ms <= context.signed_ms:
            _keep(connection, context, row, given)
        else:
            log.debug("heartbeat_late", extra={"fleet": fleet, "device": device})
        if result:
            results.record(connection, fleet, device, result, context.now_ms)
    return {}


def _keep(connection: Connection, context: Context, row: Row[Any, Any, Any, Any], given: Mapping[str, Any]) -> None:
    """Write the device's rows."""
    fleet, device, now_ms = given["DeviceFleetName"], given["DeviceName"], context.now_ms
    document: metrics.Document = row.metrics or {}
    hour_ms = max(now_ms - now_ms % metrics.HOUR_MS, row.hour_ms or 0)
    if row.hour_ms is not None and hour_ms > row.hour_ms:
        over, document = metrics.close_hour(document)
        if over:
            closed = {"hour_ms": row.hour_ms, "fleet": fleet, "device": device, "sums": over}
            insert_or_skip(connection, HOURS, [closed])
    document, lost = metrics.add(document, given)
    if lost:
        log.warning("metrics_not_kept", extra={"fleet": fleet, "device": device, "metrics": lost})
    beat = {"fleet": fleet, "device": device, "sent_ms": context.signed_ms, "hour_ms": hour_ms, "metrics": document}
    put(connection, HEARTBEATS, beat)
    models = _models(row.models or (), given.get("Models", ()), now_ms)
    latest.keep(connection, {**given, "Models": models}, now_ms)


def _models(
    before: Sequence[Mapping[str, Any]], given: Sequence[Mapping[str, Any]], now_ms: int
) -> list[dict[str, Any]]:
    """Return what the device has loaded now, with the latest times that are known of it."""
    known = {metrics.source_of(model): model for model in before}
    models = []
    for model in given:
        kept = dict(model)
        earlier = known.get(metrics.source_of(model), {})
        for name in ("LatestSampleTime", "LatestInference"):
            times = [min(one[name], now_ms) for one in (earlier, model) if one.get(name)]
            if times:
                kept[name] = max(times)
        models.append(kept)
    return models
