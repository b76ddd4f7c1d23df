"""Several plans on one fleet against devices that do as they like: what each has at the end is what the hub says."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import Row, delete, insert, select

from lightkeeper.errors import HubRefusal
from lightkeeper.hub.rollout import IN_FLIGHT, OPEN, TO_REVERT, Progress, StageStatus
from lightkeeper.hub.tables.fleet import DEVICES
from lightkeeper.hub.tables.rollout import DEPLOYMENTS, SLOTS, STAGES
from tests.support.rollouts import Rollouts
from tests.support.spools import IN_MEMORY

TIMEOUT_SECONDS = 100
NAMES = [f"device-{number}" for number in range(4)]
PLANS = {"one": ("eye",), "two": ("eye", "ear"), "three": ("ear",)}
BATCH = 2


@dataclass
class Device:
    """A device: what it has, what it did about each deployment, and what it has not reported yet."""

    has: dict[str, str | None] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    outbox: list[tuple[dict[str, Any], bool, bool]] = field(default_factory=list)
    between: set[str] = field(default_factory=set)
    """Handles of which the hub was told that they could not go back."""


class FleetMachine(RuleBasedStateMachine):
    """Operators, devices and the clock in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(dir=IN_MEMORY))
        self.hub = Rollouts.on_sqlite(self.home)
        self.devices = {name: Device() for name in NAMES}

    @initialize(
        thresholds=st.lists(st.sampled_from([1, 2, 4]), min_size=3, max_size=3),
        rolls_back=st.lists(st.booleans(), min_size=3, max_size=3),
    )
    def begin(self, thresholds: list[int], rolls_back: list[bool]) -> None:
        """Make a fleet and three plans that share handles."""
        self.hub.add_fleet("fleet", NAMES)
        for plan, threshold, back in zip(PLANS, thresholds, rolls_back, strict=True):
            for handle in PLANS[plan]:
                self.hub.add_package(f"{handle}-{plan}")
            self.hub.add_plan(
                plan,
                {handle: f"{handle}-{plan}" for handle in PLANS[plan]},
                policy="ROLLBACK_ON_FAILURE" if back else "DO_NOTHING",
                batch_size=BATCH,
                failure_threshold=threshold,
                silence_threshold=2,
                device_timeout_seconds=TIMEOUT_SECONDS,
            )

    def teardown(self) -> None:
        """Let every device come and report until all is quiet, and look at what each has."""
        try:
            if self.devices and self.rows():
                self.come_to_rest()
        finally:
            self.hub.database.close()
            shutil.rmtree(self.home)

    def rows(self) -> list[Row[Any]]:
        """Return all deployments."""
        with self.hub.database.read() as connection:
            return list(connection.execute(select(DEPLOYMENTS).order_by(DEPLOYMENTS.c.id)))

    def stages(self) -> dict[int, Row[Any]]:
        """Return all stages by id."""
        with self.hub.database.read() as connection:
            return {row.id: row for row in connection.execute(select(STAGES))}

    @rule(plan=st.sampled_from(sorted(PLANS)), verb=st.sampled_from(["Start", "Start", "Stop"]))
    def operator_calls(self, plan: str, verb: str) -> None:
        """An operator starts or stops a stage, where that may be."""
        try:
            self.hub.call(f"{verb}EdgeDeploymentStage", EdgeDeploymentPlanName=plan, StageName="all")
        except HubRefusal as refusal:
            assert refusal.reason in {"STAGE_NOT_STARTABLE", "STAGE_NOT_RUNNING", "PLAN_UNKNOWN"}  # noqa: PT017  # which of them depends on the state

    @rule(plan=st.sampled_from(sorted(PLANS)))
    def operator_deletes(self, plan: str) -> None:
        """An operator deletes a plan, where that may be."""
        try:
            self.hub.call("DeleteEdgeDeploymentPlan", EdgeDeploymentPlanName=plan)
        except HubRefusal as refusal:
            assert refusal.reason in {"PLAN_ACTIVE", "PLAN_UNKNOWN"}  # noqa: PT017  # which of them depends on the state

    @rule(passed_ms=st.sampled_from([0, 1, TIMEOUT_SECONDS * 500, TIMEOUT_SECONDS * 1000]))
    def time_passes(self, passed_ms: int) -> None:
        """The ticker looks at every stage."""
        self.hub.tick(passed_ms)

    @rule(name=st.sampled_from(NAMES), fate=st.sampled_from(["succeeds", "succeeds", "fails", "gets stuck", "dies"]))
    def device_asks(self, name: str, fate: str) -> None:
        """A device asks, and does what is new to it with some luck; it reports later."""
        device = self.devices[name]
        for deployment in self.hub.ask(name):
            if deployment["DeploymentName"] in device.done:
                continue
            device.done.add(deployment["DeploymentName"])
            self.carry_out(device, deployment, fate)

    def carry_out(self, device: Device, deployment: dict[str, Any], fate: str) -> None:
        """Let a device do what it was told."""
        handles = {one["ModelHandle"]: one.get("S3Url") for one in deployment["Definitions"]}
        if fate == "dies":
            device.done.discard(deployment["DeploymentName"])
            return
        if fate in {"succeeds", "gets stuck"}:
            device.has.update(handles)
        if fate == "gets stuck":
            device.between.update(handles)
        elif fate == "succeeds":
            device.between.difference_update(handles)
        device.outbox.append((deployment, fate == "succeeds", fate == "gets stuck"))

    @rule(name=st.sampled_from(NAMES), data=st.data(), twice=st.booleans())
    def device_reports(self, name: str, data: st.DataObject, twice: bool) -> None:
        """A device reports one of its results, perhaps twice, the second time with another word."""
        outbox = self.devices[name].outbox
        if not outbox:
            return
        deployment, succeeded, stuck = outbox.pop(data.draw(st.integers(0, len(outbox) - 1)))
        self.hub.answer(name, deployment, succeeded=succeeded, stuck=stuck)
        if twice:
            self.hub.answer(name, deployment, succeeded=not succeeded)

    @rule(name=st.sampled_from(NAMES))
    def device_is_registered_anew(self, name: str) -> None:
        """A device is deregistered in mid-flight and registered again, empty."""
        with self.hub.database.write() as connection:
            connection.execute(delete(DEVICES).where(DEVICES.c.name == name))
            connection.execute(insert(DEVICES).values(fleet="fleet", name=name, registered_ms=self.hub.now_ms))
        self.devices[name] = Device()

    @invariant()
    def no_two_open_deployments_are_about_one_handle(self) -> None:
        """A device is never told two things about a handle."""
        seen: set[tuple[str, str]] = set()
        for row in self.rows():
            if row.progress in OPEN:
                told = {(row.device, handle) for handle in row.definitions}
                assert not told & seen
                seen |= told

    @invariant()
    def batches_hold_and_closed_stages_offer_nothing(self) -> None:
        """Never more than a batch in flight; no offer stands outside a stage in progress."""
        in_flight = Counter(row.stage for row in self.rows() if not row.reverts and row.progress in IN_FLIGHT)
        assert all(number <= BATCH for number in in_flight.values())
        stages = self.stages()
        for row in self.rows():
            if row.progress == Progress.OFFERED and not row.reverts:
                assert stages[row.stage].status == StageStatus.IN_PROGRESS

    @invariant()
    def counters_add_up(self) -> None:
        """Every device that a stage still has is in one of its three numbers."""
        of_stage: dict[int, Counter[str]] = defaultdict(Counter)
        for row in self.rows():
            if not row.reverts and row.progress != Progress.SUPERSEDED:
                of_stage[row.stage][row.progress] += 1
        for stage in self.stages().values():
            status = self.hub.stage(stage.plan)
            numbers = [status[f"EdgeDeployment{word}InStage"] for word in ("Success", "Pending", "Failed")]
            assert sum(numbers) == (sum(of_stage[stage.id].values()) if stage.selected else len(NAMES))
            if stage.status == StageStatus.DEPLOYED:
                assert numbers[1] == 0

    def come_to_rest(self) -> None:
        """Everybody comes, does what it is told, and reports; then the hub knows what each device has."""
        for _ in range(40):
            self.hub.tick(TIMEOUT_SECONDS * 100)
            for name, device in self.devices.items():
                self.device_asks(name, "succeeds")
                for deployment, succeeded, stuck in device.outbox:
                    self.hub.answer(name, deployment, succeeded=succeeded, stuck=stuck)
                device.outbox.clear()
        stages, slots = self.stages(), self.slots()
        for name, device in self.devices.items():
            known = {handle: url for (of, handle), (url, _) in slots.items() if of == name and url}
            has = {handle: url for handle, url in device.has.items() if url}
            sure = set(PLANS["two"]) - device.between
            assert {h: u for h, u in known.items() if h in sure} == {h: u for h, u in has.items() if h in sure}
        for row in self.rows():
            if row.stage is None:
                continue
            assert row.progress not in IN_FLIGHT
            status = stages[row.stage].status
            assert status not in {StageStatus.STARTING, StageStatus.IN_PROGRESS, StageStatus.STOPPING}
            if status == StageStatus.FAILED and row.policy == "ROLLBACK_ON_FAILURE" and not row.reverts:
                assert row.progress not in TO_REVERT
            self.holds_old_or_new(row, slots)

    def holds_old_or_new(self, row: Row[Any], slots: dict[tuple[str, str], tuple[str | None, int]]) -> None:
        """Where a stage is still the owner, its device has what the deployment's end says."""
        expected = {Progress.SUCCEEDED: row.definitions, Progress.REVERTED: row.previous}.get(Progress(row.progress))
        if expected is None or row.reverts:
            return
        for handle in row.definitions:
            url, owner = slots[row.device, handle]
            if owner == row.stage:
                package = expected.get(handle)
                assert url == (package["url"] if package else None)

    def slots(self) -> dict[tuple[str, str], tuple[str | None, int]]:
        """Return what the hub knows each device to have: an address and the owner, by device and handle."""
        with self.hub.database.read() as connection:
            return {
                (row.device, row.handle): (row.package["url"] if row.package else None, row.owner)
                for row in connection.execute(select(SLOTS))
            }


TestFleetMachine = FleetMachine.TestCase
TestFleetMachine.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
