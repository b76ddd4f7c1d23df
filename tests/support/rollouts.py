"""A hub's rollouts without its listeners: a database, a clock, and operators' and devices' calls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select

from lightkeeper.hub import conduct, deployments, heartbeats, plans, registration, stages
from lightkeeper.hub.context import Context
from lightkeeper.hub.database import Database
from lightkeeper.hub.jobs import Artifact
from lightkeeper.hub.keys import Operator
from lightkeeper.hub.settings import Settings
from lightkeeper.hub.tables.fleet import DEVICES, FLEETS
from lightkeeper.hub.tables.job import JOBS
from lightkeeper.hub.tables.rollout import SLOTS, STAGES

START_MS = 1_767_225_600_000
"""When a test begins: a full hour."""

HANDLERS = {
    "CreateEdgeDeploymentPlan": plans.create,
    "DescribeEdgeDeploymentPlan": plans.describe,
    "ListEdgeDeploymentPlans": plans.list_plans,
    "DeleteEdgeDeploymentPlan": plans.delete_plan,
    "CreateEdgeDeploymentStage": stages.create,
    "StartEdgeDeploymentStage": stages.start,
    "StopEdgeDeploymentStage": stages.stop,
    "DeleteEdgeDeploymentStage": stages.delete,
    "ListStageDevices": stages.list_devices,
    "GetDeviceRegistration": registration.get,
    "GetDeployments": deployments.get,
    "SendHeartbeat": heartbeats.send,
}


class Rollouts:
    """One hub's database with its operations, at a time that the test sets."""

    def __init__(self, database: str | Database, settings: Settings | None = None) -> None:
        self.database = Database(database) if isinstance(database, str) else database
        self.settings = settings or Settings()
        self.now_ms = START_MS

    @classmethod
    def on_sqlite(cls, folder: Path, settings: Settings | None = None) -> Rollouts:
        """Begin with an empty database in a folder."""
        return cls(f"sqlite:///{folder / 'hub.sqlite3'}", settings)

    def call(self, operation: str, **given: Any) -> dict[str, Any]:
        """Let an operator call, now."""
        context = Context(self.database, self.settings, Operator("LKOPTEST"), self.now_ms)
        return HANDLERS[operation](context, given)

    def tick(self, passed_ms: int = 0) -> None:
        """Let time pass and do what is due in every stage."""
        self.now_ms += passed_ms
        with self.database.read() as connection:
            due = list(connection.scalars(select(STAGES.c.id).where(STAGES.c.ticking).order_by(STAGES.c.id)))
        for stage in due:
            with self.database.write() as connection:
                conduct.tick(connection, stage, self.now_ms)

    def add_fleet(self, fleet: str, devices: Iterable[str]) -> None:
        """Make a fleet and register devices."""
        with self.database.write() as connection:
            connection.execute(
                insert(FLEETS).values(
                    name=fleet, output_config={}, role_alias=True, created_ms=self.now_ms, modified_ms=self.now_ms
                )
            )
            rows = [{"fleet": fleet, "name": name, "registered_ms": self.now_ms} for name in devices]
            if rows:
                connection.execute(insert(DEVICES), rows)

    def add_package(self, job: str, model: str = "model", version: str = "1.0", status: str = "COMPLETED") -> None:
        """Enter a packaging job, at first one that has made its package."""
        with self.database.write() as connection:
            connection.execute(
                insert(JOBS).values(
                    kind="packaging",
                    name=job,
                    identity=job,
                    status=status,
                    request={"CompilationJobName": model, "ModelName": model, "ModelVersion": version},
                    result=asdict(Artifact(f"s3://fleet/{job}.tar.gz", 1, "0" * 64, "0" * 40, "0" * 64, {})),
                    reason="",
                    created_ms=self.now_ms,
                    modified_ms=self.now_ms,
                    attempt=1,
                    due_ms=0,
                )
            )

    def add_plan(  # a plan with one stage for named devices, or for all
        self,
        plan: str,
        models: dict[str, str],
        *,
        fleet: str = "fleet",
        devices: Sequence[str] | None = None,
        policy: str = "ROLLBACK_ON_FAILURE",
        **tags: object,
    ) -> None:
        """Make a plan with one stage named `all`; tags by name, `batch_size=1`."""
        chosen: dict[str, Any] = {"DeviceSubsetType": "PERCENTAGE", "Percentage": 100}
        if devices is not None:
            chosen = {"DeviceSubsetType": "SELECTION", "DeviceNames": list(devices)}
        stage = {
            "StageName": "all",
            "DeviceSelectionConfig": chosen,
            "DeploymentConfig": {"FailureHandlingPolicy": policy},
        }
        self.call(
            "CreateEdgeDeploymentPlan",
            EdgeDeploymentPlanName=plan,
            ModelConfigs=[{"ModelHandle": handle, "EdgePackagingJobName": job} for handle, job in models.items()],
            DeviceFleetName=fleet,
            Stages=[stage],
            Tags=[
                {"Key": f"lightkeeper:{name.replace('_', '-')}", "Value": str(value)} for name, value in tags.items()
            ],
        )

    def start(self, plan: str, stage: str = "all") -> None:
        """Start a stage and let the ticker see it."""
        self.call("StartEdgeDeploymentStage", EdgeDeploymentPlanName=plan, StageName=stage)
        self.tick()

    def stage(self, plan: str, position: int = 0) -> dict[str, Any]:
        """Return a stage's status: word, message, and the three counters."""
        described = self.call("DescribeEdgeDeploymentPlan", EdgeDeploymentPlanName=plan)
        status: dict[str, Any] = described["Stages"][position]["DeploymentStatus"]
        return status

    def counters(self, plan: str) -> tuple[int, int, int]:
        """Return a plan's successes, pending and failed devices."""
        described = self.call("DescribeEdgeDeploymentPlan", EdgeDeploymentPlanName=plan)
        return tuple(described[f"EdgeDeployment{word}"] for word in ("Success", "Pending", "Failed"))  # type: ignore[return-value]  # three words

    def ask(self, device: str, fleet: str = "fleet") -> list[dict[str, Any]]:
        """Let a device ask for its deployments."""
        found: list[dict[str, Any]] = self.call("GetDeployments", DeviceName=device, DeviceFleetName=fleet)[
            "Deployments"
        ]
        return found

    def beat(self, device: str, fleet: str = "fleet", **given: Any) -> None:
        """Let a device send a heartbeat."""
        self.call("SendHeartbeat", DeviceName=device, DeviceFleetName=fleet, AgentVersion="1.0", **given)

    def answer(
        self, device: str, deployment: dict[str, Any], *, succeeded: bool, fleet: str = "fleet", stuck: bool = False
    ) -> None:
        """Let a device report a deployment; `stuck` is one that failed and could not go back."""
        models = [
            {
                "ModelHandle": definition["ModelHandle"],
                "DesiredState": definition["State"],
                "Status": "SUCCESS" if succeeded else "FAIL",
                **({} if succeeded else {"StatusReason": "it does not fit"}),
                **({"RollbackFailureReason": "the old one is gone"} if stuck else {}),
            }
            for definition in deployment["Definitions"]
        ]
        result = {
            "DeploymentName": deployment["DeploymentName"],
            "DeploymentStatus": "SUCCESS" if succeeded else "FAIL",
            "DeploymentStartTime": self.now_ms,
            "DeploymentEndTime": self.now_ms,
            "DeploymentModels": models,
        }
        self.beat(device, fleet, DeploymentResult=result)

    def has(self, device: str, fleet: str = "fleet") -> dict[str, str]:
        """Return the packaging job of what the hub knows a device to have, by handle."""
        found = select(SLOTS.c.handle, SLOTS.c.package).where(SLOTS.c.fleet == fleet, SLOTS.c.device == device)
        with self.database.read() as connection:
            return {handle: package["job"] for handle, package in connection.execute(found) if package}
