"""Stages of a deployment plan: Create-, Start-, Stop- and DeleteEdgeDeploymentStage, ListStageDevices.

A stage begins when an operator starts it, never by itself; any stage of a plan may be started, in any order.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, insert, select, update

from lightkeeper.errors import (
    ItemDuplicate,
    PlanUnknown,
    SelectionInvalid,
    StageActive,
    StageExists,
    StageLimit,
    StageNotRunning,
    StageNotStartable,
    StageUnknown,
)
from lightkeeper.hub import conduct
from lightkeeper.hub.arns import arn, device_arn
from lightkeeper.hub.context import Context
from lightkeeper.hub.ownership import chunks
from lightkeeper.hub.paging import page
from lightkeeper.hub.plansettings import ROLLBACK
from lightkeeper.hub.rollout import DEVICE_STATUS, Progress, StageStatus
from lightkeeper.hub.selection import Selection, Subset
from lightkeeper.hub.settings import Settings
from lightkeeper.hub.tables.fleet import DEVICES
from lightkeeper.hub.tables.rollout import DEPLOYMENTS, PLANS, STAGES

Input = Mapping[str, Any]
Output = dict[str, Any]

STAGES_MAXIMUM = 10
"""The service's own limit of stages a plan."""

D = DEPLOYMENTS.c

_WHY = {
    Progress.OFFERED: "its turn has come: waits for the device to ask",
    Progress.ABSENT: "its turn came and the device did not ask in time: gets it when it returns",
    Progress.SILENT: "took it and has not answered in time",
    Progress.REVERTING: "goes back to what it had",
}
"""What is said of a device that said nothing itself."""


def plan_arn(settings: Settings, plan: str) -> str:
    """Return a plan's ARN."""
    return arn(settings, "edge-deployment", plan)


def create(context: Context, given: Input) -> Output:
    """CreateEdgeDeploymentStage. Raises `PlanUnknown`, `StageExists`, `StageLimit`, `SelectionInvalid`."""
    with context.write() as connection:
        plan = lock_plan(connection, given["EdgeDeploymentPlanName"])
        append(connection, plan.name, plan.fleet, given["Stages"])
        touch(connection, plan.name, context.now_ms)
    return {}


def append(connection: Connection, plan: str, fleet: str, given: Sequence[Input]) -> None:
    """Add stages to a plan whose row is locked. Raises `StageExists`, `StageLimit`, `SelectionInvalid`."""
    known = connection.execute(select(STAGES.c.name, STAGES.c.position).where(STAGES.c.plan == plan)).all()
    if len(known) + len(given) > STAGES_MAXIMUM:
        raise StageLimit(f"a plan has at most {STAGES_MAXIMUM} stages", plan=plan, limit=STAGES_MAXIMUM)
    names = [stage["StageName"] for stage in given]
    if len(set(names)) < len(names):
        raise ItemDuplicate("two of the stages have the same name", stages=", ".join(names))
    if taken := sorted(set(names) & {stage.name for stage in known}):
        raise StageExists(f"the plan {plan} has a stage {taken[0]} already", plan=plan, stage=taken[0])
    position = max((stage.position for stage in known), default=-1) + 1
    rows = []
    for offset, stage in enumerate(given):
        _check_selection(connection, fleet, stage)
        rows.append(
            {
                "plan": plan,
                "name": stage["StageName"],
                "position": position + offset,
                "selection": stage["DeviceSelectionConfig"],
                "policy": stage.get("DeploymentConfig", {}).get("FailureHandlingPolicy", ROLLBACK),
                "status": StageStatus.READY,
                "message": "",
                "selected": False,
                "ticking": False,
            }
        )
    if rows:
        connection.execute(insert(STAGES), rows)


def start(context: Context, given: Input) -> Output:
    """StartEdgeDeploymentStage: for the first time, or a stopped or failed stage again.

    Raises `PlanUnknown`, `StageUnknown`, `StageNotStartable`.
    """
    with context.write() as connection:
        row = _lock(connection, given)
        if not StageStatus(row.status).may_start:
            raise StageNotStartable(f"the stage {row.name} is {row.status}", stage=row.name, status=row.status)
        connection.execute(
            update(STAGES)
            .where(STAGES.c.id == row.id)
            .values(status=StageStatus.STARTING, message="", started_ms=context.now_ms, ticking=True)
        )
        touch(connection, row.plan, context.now_ms)
    return {}


def stop(context: Context, given: Input) -> Output:
    """StopEdgeDeploymentStage: no other device gets it; those at it may finish.

    Raises `PlanUnknown`, `StageUnknown`, `StageNotRunning`.
    """
    with context.write() as connection:
        row = _lock(connection, given)
        if row.status not in {StageStatus.STARTING, StageStatus.IN_PROGRESS}:
            raise StageNotRunning(f"the stage {row.name} is {row.status}", stage=row.name, status=row.status)
        connection.execute(update(STAGES).where(STAGES.c.id == row.id).values(status=StageStatus.STOPPING))
        touch(connection, row.plan, context.now_ms)
        conduct.tick(connection, row.id, context.now_ms)
    return {}


def delete(context: Context, given: Input) -> Output:
    """DeleteEdgeDeploymentStage. Raises `PlanUnknown`, `StageUnknown`, `StageActive`."""
    with context.write() as connection:
        row = _lock(connection, given)
        if StageStatus(row.status).is_active:
            raise StageActive(f"the stage {row.name} is {row.status}", stage=row.name, status=row.status)
        forget(connection, row.id, context.now_ms)
        touch(connection, row.plan, context.now_ms)
    return {}


def forget(connection: Connection, stage: int, now_ms: int) -> None:
    """Delete a locked stage; what devices are still to answer outlives it, and so does every way back."""
    conduct.send_all_back(connection, stage, now_ms)
    connection.execute(
        DEPLOYMENTS.delete().where(
            D.stage == stage, (D.taken_ms.is_(None) & D.reverts.is_(False)) | D.ended_ms.is_not(None)
        )
    )
    connection.execute(
        update(DEPLOYMENTS).where(D.stage == stage, D.reverts.is_(False)).values(progress=Progress.SUPERSEDED)
    )
    connection.execute(STAGES.delete().where(STAGES.c.id == stage))


def list_devices(context: Context, given: Input) -> Output:
    """ListStageDevices: the stage's devices by name; before its start, those it would choose now.

    Devices that it names too and that another stage of the plan has are listed with that stage as DeployedStageName,
    unless ExcludeDevicesDeployedInOtherStage is set. Raises `PlanUnknown`, `StageUnknown`, `PageTokenInvalid`.
    """
    with context.read() as connection:
        plan = find_plan(connection, given["EdgeDeploymentPlanName"])
        stage = _find(connection, plan.name, given["StageName"])
        devices = conduct.devices_of(connection, plan.fleet)
        names = set(conduct.allotted(connection, plan.name, devices)[stage.id])
        selection = Selection.parse(stage.selection)
        if not given.get("ExcludeDevicesDeployedInOtherStage", False) and selection.subset is not Subset.PERCENTAGE:
            names.update(selection.choose(devices, plan.name))
        found = page(connection, _told(plan, names), given, by=(DEVICES.c.name,))
    named = {
        "EdgeDeploymentPlanArn": plan_arn(context.settings, plan.name),
        "EdgeDeploymentPlanName": plan.name,
        "StageName": stage.name,
        "DeviceFleetName": plan.fleet,
    }
    return {
        "DeviceDeploymentSummaries": [_summary(context.settings, named, row) for row in found.rows],
        "NextToken": found.next_token,
    }


def _told(plan: Row[Any], names: Collection[str]) -> Select[Any]:
    """Ask for devices with what a stage of the plan told them, if one did."""
    told = (
        select(D.device, D.progress, D.message, D.taken_ms, STAGES.c.name.label("stage"))
        .join(STAGES, D.stage == STAGES.c.id)
        .where(STAGES.c.plan == plan.name, D.reverts.is_(False))
        .subquery()
    )
    # The names stand in the statement itself: a fleet may have more devices than a statement may have parameters.
    chosen = DEVICES.c.name.in_(bindparam("names", sorted(names), expanding=True, literal_execute=True))
    return (
        select(DEVICES.c.name, DEVICES.c.description, told)
        .outerjoin(told, told.c.device == DEVICES.c.name)
        .where(DEVICES.c.fleet == plan.fleet, chosen)
    )


def _summary(settings: Settings, named: Output, row: Row[Any]) -> Output:
    return {
        **named,
        "DeviceName": row.name,
        "DeviceArn": device_arn(settings, named["DeviceFleetName"], row.name),
        "DeployedStageName": row.stage,
        "DeviceDeploymentStatus": DEVICE_STATUS[Progress(row.progress or Progress.WAITING)],
        "DeviceDeploymentStatusMessage": row.message or _WHY.get(row.progress),
        "Description": row.description or None,
        "DeploymentStartTime": row.taken_ms,
    }


def find_plan(connection: Connection, name: str) -> Row[Any]:
    """Return a plan's row. Raises `PlanUnknown`."""
    row = connection.execute(select(PLANS).where(PLANS.c.name == name)).first()
    if row is None:
        raise PlanUnknown(f"there is no edge deployment plan {name}", plan=name)
    return row


def lock_plan(connection: Connection, name: str) -> Row[Any]:
    """Lock a plan and return its row. Raises `PlanUnknown`."""
    row = connection.execute(select(PLANS).where(PLANS.c.name == name).with_for_update(key_share=True)).first()
    if row is None:
        raise PlanUnknown(f"there is no edge deployment plan {name}", plan=name)
    return row


def touch(connection: Connection, plan: str, now_ms: int) -> None:
    """Note when a plan was changed."""
    connection.execute(update(PLANS).where(PLANS.c.name == plan).values(modified_ms=now_ms))


def _find(connection: Connection, plan: str, name: str) -> Row[Any]:
    row = connection.execute(select(STAGES).where(STAGES.c.plan == plan, STAGES.c.name == name)).first()
    if row is None:
        raise StageUnknown(f"the plan {plan} has no stage {name}", plan=plan, stage=name)
    return row


def _lock(connection: Connection, given: Input) -> Row[Any]:
    """Lock the stage that a call names and return its row."""
    plan = find_plan(connection, given["EdgeDeploymentPlanName"])
    row = conduct.lock(connection, _find(connection, plan.name, given["StageName"]).id)
    if row is None:
        raise StageUnknown(f"the plan {plan.name} has no stage {given['StageName']}", plan=plan.name)
    return row


def _check_selection(connection: Connection, fleet: str, stage: Input) -> None:
    """Raise `SelectionInvalid` unless a stage says which devices it is for, and the fleet has those it names."""
    try:
        selection = Selection.parse(stage["DeviceSelectionConfig"])
    except ValueError as error:
        raise SelectionInvalid(f"stage {stage['StageName']}: {error}", stage=stage["StageName"]) from error
    missing = [
        name
        for some in chunks(selection.names)
        for name in set(some)
        - set(connection.scalars(select(DEVICES.c.name).where(DEVICES.c.fleet == fleet, DEVICES.c.name.in_(some))))
    ]
    if missing:
        shown = ", ".join(sorted(missing)[:10])
        raise SelectionInvalid(
            f"stage {stage['StageName']}: the fleet {fleet} has no device {shown}",
            stage=stage["StageName"],
            fleet=fleet,
        )
