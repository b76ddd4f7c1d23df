"""Deployments, as a device sees them: GetDeployments, and which packages its credentials may read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, and_, exists, or_, select, update

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

    To ask is to take: what was on offer for the device is under way from then on, and a device that waits takes a place
    that nobody has come for. Nothing is written where nothing changes: a fleet asks all day.
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
    """Return what a device is told, or can have for the asking: in its stage someone has an offer and has not asked."""
    offers = DEPLOYMENTS.alias()
    someone = exists().where(
        offers.c.stage == D.stage, offers.c.reverts.is_(False), offers.c.progress == Progress.OFFERED
    )
    waits = and_(D.progress == Progress.WAITING, someone)
    told = or_(D.progress.in_([str(progress) for progress in SHOWN]), waits)
    return list(
        connection.execute(
            select(DEPLOYMENTS).where(D.fleet == fleet, D.device == device, D.ended_ms.is_(None), told).order_by(D.id)
        )
    )


def _take(connection: Connection, row: Row[Any], now_ms: int) -> None:
    """Let a device take what is on offer for it, if it still is, or a place that nobody has come for."""
    before = after = Progress(row.progress)
    if row.reverts:
        after = Progress.TAKEN
    else:
        stage = None if row.stage is None else conduct.lock(connection, row.stage)
        if stage is None or connection.scalar(select(D.progress).where(D.id == row.id)) != before:
            return
        is_open = stage.status == StageStatus.IN_PROGRESS
        if is_open and before is not Progress.OFFERED and conduct.give_place(connection, stage, row, now_ms):
            before = Progress.OFFERED
        after = asked(before, is_open=is_open, has_place=before is Progress.OFFERED)
    if after is before:
        return
    values: dict[str, Any] = {"progress": after, "since_ms": now_ms}
    values |= {"taken_ms": now_ms} if after is Progress.TAKEN else {"turn": -1}
    connection.execute(update(DEPLOYMENTS).where(D.id == row.id, D.progress == before).values(values))


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
