"""Edge deployment plans: Create-, Describe-, List- and DeleteEdgeDeploymentPlan."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select
from sqlalchemy.exc import IntegrityError

from lightkeeper.errors import PackageNotReady, PlanActive, PlanExists, PlanInvalid, PlanLimit
from lightkeeper.hub import conduct, fleets, stages, tags
from lightkeeper.hub.context import Context
from lightkeeper.hub.jobs import Kind, Status
from lightkeeper.hub.paging import between, matches, page
from lightkeeper.hub.plansettings import read_tags
from lightkeeper.hub.rollout import Counters, Progress, StageStatus
from lightkeeper.hub.settings import Settings
from lightkeeper.hub.stages import plan_arn
from lightkeeper.hub.tables.job import JOBS
from lightkeeper.hub.tables.rollout import DEPLOYMENTS, PLANS, STAGES

Input = Mapping[str, Any]
Output = dict[str, Any]

_SORTED_BY = {
    "NAME": (PLANS.c.name,),
    "DEVICE_FLEET_NAME": (PLANS.c.fleet, PLANS.c.name),
    "CREATION_TIME": (PLANS.c.created_ms, PLANS.c.name),
    "LAST_MODIFIED_TIME": (PLANS.c.modified_ms, PLANS.c.name),
}

D = DEPLOYMENTS.c


def create(context: Context, given: Input) -> Output:
    """CreateEdgeDeploymentPlan.

    Raises `FleetUnknown`, `PlanExists`, `PlanLimit`, `PlanInvalid`, `PackageNotReady`, `PlanTagInvalid`, and what
    CreateEdgeDeploymentStage raises.
    """
    name, fleet, given_tags = given["EdgeDeploymentPlanName"], given["DeviceFleetName"], given.get("Tags", ())
    rollout = read_tags(given_tags, context.settings)
    handles = [model["ModelHandle"] for model in given["ModelConfigs"]]
    if not handles or len(set(handles)) < len(handles):
        raise PlanInvalid("a plan has at least one model, and each handle once", plan=name)
    with context.write() as connection:
        fleets.lock(connection, fleet)
        limit = context.settings.plans_limit
        if (connection.scalar(select(func.count()).select_from(PLANS)) or 0) >= limit:
            raise PlanLimit(f"there are {limit} deployment plans already", limit=limit)
        row = {
            "name": name,
            "fleet": fleet,
            "model_configs": given["ModelConfigs"],
            "packages": _packages(connection, given["ModelConfigs"]),
            "settings": rollout,
            "created_ms": context.now_ms,
            "modified_ms": context.now_ms,
        }
        try:
            connection.execute(insert(PLANS).values(row))
        except IntegrityError as error:
            raise PlanExists(f"there is a deployment plan {name} already", plan=name) from error
        stages.append(connection, name, fleet, given.get("Stages", ()))
        tags.keep(connection, plan_arn(context.settings, name), given_tags)
    return {"EdgeDeploymentPlanArn": plan_arn(context.settings, name)}


def _packages(connection: Connection, configs: Sequence[Input]) -> dict[str, Any]:
    """Return the package of each handle. Raises `PackageNotReady`."""
    packages = {}
    for config in configs:
        name = config["EdgePackagingJobName"]
        job = connection.execute(select(JOBS).where(JOBS.c.kind == Kind.PACKAGING, JOBS.c.name == name)).first()
        if job is None or job.status != Status.COMPLETED:
            state = "is not there" if job is None else f"is {job.status}"
            raise PackageNotReady(f"the edge packaging job {name} {state}", job=name)
        packages[config["ModelHandle"]] = {
            "job": name,
            "url": job.result["uri"],
            "sha1": job.result["sha1"],
            "model": job.request["ModelName"],
            "version": job.request["ModelVersion"],
        }
    return packages


def describe(context: Context, given: Input) -> Output:
    """DescribeEdgeDeploymentPlan. Raises `PlanUnknown`, `PageTokenInvalid`."""
    with context.read() as connection:
        plan = stages.find_plan(connection, given["EdgeDeploymentPlanName"])
        counters = _counters(connection, {plan.name: plan.fleet})[plan.name]
        query = select(STAGES).where(STAGES.c.plan == plan.name)
        found = page(connection, query, given, by=(STAGES.c.position,), most=stages.STAGES_MAXIMUM)
    return {
        **_summary(context.settings, plan, sum(counters.values(), Counters())),
        "ModelConfigs": plan.model_configs,
        "Stages": [_stage(row, counters[row.id]) for row in found.rows],
        "NextToken": found.next_token,
    }


def list_plans(context: Context, given: Input) -> Output:
    """ListEdgeDeploymentPlans, by creation time unless SortBy says else. Raises `PageTokenInvalid`."""
    conditions = [
        *matches(PLANS.c.name, given.get("NameContains")),
        *matches(PLANS.c.fleet, given.get("DeviceFleetNameContains")),
        *between(PLANS.c.created_ms, given, "CreationTime"),
        *between(PLANS.c.modified_ms, given, "LastModifiedTime"),
    ]
    with context.read() as connection:
        found = page(
            connection,
            select(PLANS).where(*conditions),
            given,
            by=_SORTED_BY[given.get("SortBy", "CREATION_TIME")],
            descending=given.get("SortOrder") == "Descending",
        )
        counters = _counters(connection, {row.name: row.fleet for row in found.rows})
    return {
        "EdgeDeploymentPlanSummaries": [
            _summary(context.settings, row, sum(counters[row.name].values(), Counters())) for row in found.rows
        ],
        "NextToken": found.next_token,
    }


def delete_plan(context: Context, given: Input) -> Output:
    """DeleteEdgeDeploymentPlan. Raises `PlanUnknown`, `PlanActive`."""
    name = given["EdgeDeploymentPlanName"]
    with context.write() as connection:
        stages.find_plan(connection, name)
        for stage in connection.scalars(select(STAGES.c.id).where(STAGES.c.plan == name).order_by(STAGES.c.id)).all():
            row = conduct.lock(connection, stage)
            if row is not None and StageStatus(row.status).is_active:
                raise PlanActive(f"the stage {row.name} of plan {name} is {row.status}", plan=name, stage=row.name)
            stages.forget(connection, stage, context.now_ms)
        connection.execute(delete(PLANS).where(PLANS.c.name == name))
        tags.forget(connection, [plan_arn(context.settings, name)])
    return {}


def _counters(connection: Connection, plans: Mapping[str, str]) -> dict[str, dict[int, Counters]]:
    """Return the counters of every stage, by its id, of some plans, given with their fleets.

    The devices of a stage that was never started are those it would choose now: they are yet to pick it up.
    """
    rows = connection.execute(
        select(STAGES.c.id, STAGES.c.plan, STAGES.c.selected).where(STAGES.c.plan.in_(plans))
    ).all()
    counts: dict[int, Counter[Progress]] = defaultdict(Counter)
    found = (
        select(D.stage, D.progress, func.count())
        .where(D.stage.in_(select(STAGES.c.id).where(STAGES.c.plan.in_(plans))), D.reverts.is_(False))
        .group_by(D.stage, D.progress)
    )
    for stage, progress, number in connection.execute(found):
        counts[stage][Progress(progress)] = number
    devices: dict[str, list[str]] = {}
    for plan in sorted({row.plan for row in rows if not row.selected}):
        fleet = plans[plan]
        if fleet not in devices:
            devices[fleet] = conduct.devices_of(connection, fleet)
        allotted = conduct.allotted(connection, plan, devices[fleet])
        for row in rows:
            if row.plan == plan and not row.selected:
                counts[row.id][Progress.WAITING] = len(allotted[row.id])
    return {plan: {row.id: Counters.of(counts[row.id]) for row in rows if row.plan == plan} for plan in plans}


def _numbers(counters: Counters, ending: str = "") -> Output:
    return {
        f"EdgeDeploymentSuccess{ending}": counters.success,
        f"EdgeDeploymentPending{ending}": counters.pending,
        f"EdgeDeploymentFailed{ending}": counters.failed,
    }


def _summary(settings: Settings, plan: Row[Any], counters: Counters) -> Output:
    return {
        "EdgeDeploymentPlanArn": plan_arn(settings, plan.name),
        "EdgeDeploymentPlanName": plan.name,
        "DeviceFleetName": plan.fleet,
        **_numbers(counters),
        "CreationTime": plan.created_ms,
        "LastModifiedTime": plan.modified_ms,
    }


def _stage(row: Row[Any], counters: Counters) -> Output:
    return {
        "StageName": row.name,
        "DeviceSelectionConfig": row.selection,
        "DeploymentConfig": {"FailureHandlingPolicy": row.policy},
        "DeploymentStatus": {
            "StageStatus": row.status,
            **_numbers(counters, "InStage"),
            "EdgeDeploymentStatusMessage": row.message or None,
            "EdgeDeploymentStageStartTime": row.started_ms,
        },
    }
