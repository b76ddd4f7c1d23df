"""Deployments, as a device sees them: GetDeployments, and which packages its credentials may read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, and_, or_, select, update

from lightkeeper.hub import conduct
from lightkeeper.hub.context import Context
from lightkeeper.hub.devices import find as find_device
from lightkeeper.hub.rollout import Progress, StageStatus, asked
from lightkeeper.hub.tables.rollout import DEPLOYMENTS, SLOTS, STAGES

D = DEPLOYMENTS.c

SHOWN = (Progress.OFFERED, Progress.ABSENT, Progress.TAKEN, Progress.SILENT)
GIVEN = (Progress.TAKEN, Progress.SILENT)


def get(context: Context, given: Mapping[str, Any]) -> dict[str, Any]:
    """GetDeployments: what the device is to do now, oldest first, until it has answered. Raises `DeviceUnknown`.

    To ask is to take: what was on offer for the device is under way from then on.
    """
    fleet, device = given["DeviceFleetName"], given["DeviceName"]
    with context.read() as connection:
        find_device(connection, fleet, device)
        rows = _open(connection, fleet, device)
    if any(row.progress not in GIVEN for row in rows):
        with context.write() as connection:
            for row in rows:
                if row.progress not in GIVEN:
                    _take(connection, row, context.now_ms)
            rows = _open(connection, fleet, device)
    return {"Deployments": [_document(row) for row in rows if row.progress in GIVEN]}


def reachable(connection: Connection, fleet: str, device: str) -> list[str]:
    """Return the S3 addresses of packages a device may need: what it is told to take, is next to be told, and has."""
    told = connection.scalars(
        select(D.definitions)
        .outerjoin(STAGES, D.stage == STAGES.c.id)
        .where(
            D.fleet == fleet,
            D.device == device,
            or_(
                D.progress.in_([str(one) for one in SHOWN]),
                and_(D.progress == Progress.WAITING, STAGES.c.status == StageStatus.IN_PROGRESS),
            ),
        )
        .order_by(D.id.desc())
    )
    has = connection.scalars(select(SLOTS.c.package).where(SLOTS.c.fleet == fleet, SLOTS.c.device == device))
    packages = [*(package for definitions in told for package in definitions.values()), *has]
    return list(dict.fromkeys(package["url"] for package in packages if package))


def _open(connection: Connection, fleet: str, device: str) -> list[Row[Any]]:
    words = [str(progress) for progress in SHOWN]
    return list(
        connection.execute(
            select(DEPLOYMENTS)
            .where(D.fleet == fleet, D.device == device, D.progress.in_(words), D.ended_ms.is_(None))
            .order_by(D.id)
        )
    )


def _take(connection: Connection, row: Row[Any], now_ms: int) -> None:
    """Let a device take what is on offer for it, if it still is."""
    after = Progress.TAKEN
    if not row.reverts:
        stage = None if row.stage is None else conduct.lock(connection, row.stage)
        if stage is None:
            return
        now = connection.scalar(select(D.progress).where(D.id == row.id))
        if now != row.progress:
            return
        is_open = stage.status == StageStatus.IN_PROGRESS
        has_room = now == Progress.OFFERED or conduct.view(connection, stage, now_ms).room > 0
        after = asked(Progress(now), is_open=is_open, has_room=has_room)
    values: dict[str, Any] = {"progress": after, "since_ms": now_ms}
    if after is Progress.TAKEN:
        values["taken_ms"] = now_ms
    elif after is Progress.WAITING:
        values["turn"] = -1
    else:
        return
    connection.execute(update(DEPLOYMENTS).where(D.id == row.id, D.progress == row.progress).values(values))


def _document(row: Row[Any]) -> dict[str, Any]:
    return {
        "DeploymentName": row.name,
        "Type": "Model",
        "FailureHandlingPolicy": row.policy,
        "Definitions": [_definition(handle, package) for handle, package in sorted(row.definitions.items())],
    }


def _definition(handle: str, package: Mapping[str, Any] | None) -> dict[str, Any]:
    if package is None:
        return {"ModelHandle": handle, "State": "UNDEPLOY"}
    return {
        "ModelHandle": handle,
        "S3Url": package["url"],
        "Checksum": {"Type": "SHA1", "Sum": package["sha1"]},
        "State": "DEPLOY",
    }
