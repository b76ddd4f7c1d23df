"""Rollouts over the database: what devices are told, and what the counters say, in the cases that are hard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete, event, text

from lightkeeper.errors import PlanActive, StageActive, StageNotRunning, StageNotStartable
from lightkeeper.hub.deployments import reachable
from lightkeeper.hub.tables import METADATA
from lightkeeper.hub.tables.fleet import DEVICES as DEVICES_TABLE
from lightkeeper.hub.tables.setting import SCHEMA
from lightkeeper.hub.ticker import LEASE_MS, Ticker
from tests.support.postgres import Postgres
from tests.support.rollouts import Rollouts

TIMEOUT_MS = 3_600_000


@pytest.fixture(scope="module")
def url(postgres: Postgres) -> str:
    """A database on PostgreSQL for all tests here."""
    return postgres.database()


@pytest.fixture(params=["sqlite", "postgresql"])
def hub(request: pytest.FixtureRequest, quick_folder: Path) -> Iterator[Rollouts]:
    """A fleet of six devices, and packages of three versions of a model and one of another."""
    if request.param == "sqlite":
        hub = Rollouts.on_sqlite(quick_folder)
    else:
        hub = Rollouts(request.getfixturevalue("url"))
        with hub.database.write() as connection:
            names = ", ".join(table for table in METADATA.tables if table != SCHEMA.name)
            connection.execute(text(f"TRUNCATE {names}"))
    hub.add_fleet("fleet", [f"device-{number}" for number in range(6)])
    for version in ("1", "2", "3"):
        hub.add_package(f"eye-{version}", "eye", version)
    hub.add_package("ear-1", "ear", "1")
    yield hub
    hub.database.close()


DEVICES = [f"device-{number}" for number in range(6)]


def deploy(hub: Rollouts, plan: str, models: dict[str, str], devices: list[str] | None = None) -> None:
    """Roll a plan out to devices that all succeed."""
    hub.add_plan(plan, models, devices=devices, batch_size="1.0")
    hub.start(plan)
    for device in devices or DEVICES:
        for deployment in hub.ask(device):
            hub.answer(device, deployment, succeeded=True)
    hub.tick()
    assert hub.stage(plan)["StageStatus"] == "DEPLOYED"


def test_a_stage_goes_through_its_devices_in_batches_and_ends_deployed(hub: Rollouts) -> None:
    """Two at a time; who asks while two are at it is told nothing; who has answered is told nothing more."""
    hub.add_plan("plan", {"eye": "eye-1"}, batch_size=2)
    assert hub.counters("plan") == (0, 6, 0)
    hub.start("plan")
    done: list[str] = []
    for _ in range(3):
        asked = {device: hub.ask(device) for device in DEVICES}
        given = {device: told for device, told in asked.items() if told}
        assert len(given) == 2
        for device, (deployment,) in given.items():
            assert deployment["Type"] == "Model"
            assert deployment["FailureHandlingPolicy"] == "ROLLBACK_ON_FAILURE"
            assert deployment["Definitions"] == [
                {
                    "ModelHandle": "eye",
                    "S3Url": "s3://fleet/eye-1.tar.gz",
                    "Checksum": {"Type": "SHA1", "Sum": "0" * 40},
                    "State": "DEPLOY",
                }
            ]
            hub.answer(device, deployment, succeeded=True)
        done += given
        assert hub.counters("plan") == (len(done), 6 - len(done), 0)
        hub.tick()
    assert sorted(done) == DEVICES
    assert hub.stage("plan")["StageStatus"] == "DEPLOYED"
    assert all(hub.has(device) == {"eye": "eye-1"} for device in DEVICES)
    assert [hub.ask(device) for device in DEVICES] == [[]] * 6


def test_devices_that_are_away_keep_nobody_waiting(hub: Rollouts) -> None:
    """The stage offers to two; whoever asks first takes it, once: as many as a batch has, and what it had is noted."""
    deploy(hub, "first", {"eye": "eye-1"}, ["device-4"])
    hub.add_plan("plan", {"eye": "eye-2"}, devices=DEVICES, batch_size=2, failure_threshold=1)
    hub.start("plan")
    told = {device: hub.ask(device) for device in ("device-5", "device-4", "device-3", "device-0")}
    assert [len(some) for some in told.values()] == [1, 1, 0, 0]
    assert hub.ask("device-4") == told["device-4"]
    hub.answer("device-4", told["device-4"][0], succeeded=True)
    hub.tick()
    (deployment,) = hub.ask("device-3")
    hub.answer("device-3", deployment, succeeded=False)
    (back,) = hub.ask("device-4")
    assert back["Definitions"][0]["S3Url"] == "s3://fleet/eye-1.tar.gz"
    assert hub.ask("device-0") == []


def test_to_ask_in_vain_writes_nothing(hub: Rollouts) -> None:
    """A fleet asks all day: where nobody's place is to be had, the database is only read."""
    hub.add_plan("plan", {"eye": "eye-1"}, devices=DEVICES, batch_size=1)
    hub.start("plan")
    assert hub.ask("device-3")
    statements: list[str] = []
    for engine in (hub.database._reader, hub.database._writer):
        event.listen(engine, "before_cursor_execute", lambda *seen: statements.append(seen[2]))
    assert [hub.ask(device) for device in ("device-0", "device-1")] == [[], []]
    assert hub.ask("device-3")
    assert {statement.split()[0] for statement in statements} <= {"BEGIN", "SELECT"}
    assert not any("IMMEDIATE" in statement or "FOR UPDATE" in statement for statement in statements)


def test_at_the_threshold_every_device_goes_back_to_what_it_had_before(hub: Rollouts) -> None:
    """A package where there was one, UNDEPLOY where there was none; devices not reached are told nothing."""
    deploy(hub, "first", {"eye": "eye-1"}, ["device-0", "device-1"])
    hub.add_plan("bad", {"eye": "eye-2", "ear": "ear-1"}, devices=DEVICES, batch_size=3, failure_threshold=1)
    hub.start("bad")
    told = {device: hub.ask(device) for device in DEVICES}
    assert [device for device, some in told.items() if some] == DEVICES[:3]
    hub.answer("device-0", told["device-0"][0], succeeded=True)
    hub.tick()
    told |= {"device-3": hub.ask("device-3")}
    hub.answer("device-1", told["device-1"][0], succeeded=False)

    status = hub.stage("bad")
    assert status["StageStatus"] == "FAILED"
    assert status["EdgeDeploymentStatusMessage"] == "1 of 6 devices failed, the threshold is 1: rolling back"
    assert [hub.ask(device) for device in ("device-1", "device-4", "device-5")] == [[]] * 3
    (back,) = hub.ask("device-0")
    assert {one["ModelHandle"]: (one["State"], one.get("S3Url")) for one in back["Definitions"]} == {
        "eye": ("DEPLOY", "s3://fleet/eye-1.tar.gz"),
        "ear": ("UNDEPLOY", None),
    }
    (other,) = hub.ask("device-2")
    assert {one["State"] for one in other["Definitions"]} == {"UNDEPLOY"}
    for device, deployment in (("device-0", back), ("device-2", other), ("device-3", hub.ask("device-3")[0])):
        hub.answer(device, deployment, succeeded=True)
    hub.tick()
    assert hub.has("device-0") == hub.has("device-1") == {"eye": "eye-1"}
    assert hub.has("device-2") == hub.has("device-3") == {}
    assert hub.counters("bad") == (0, 2, 4)


def test_the_first_final_answer_counts(hub: Rollouts) -> None:
    """A second one, whatever it says, changes nothing; neither does one about a deployment that nobody knows."""
    hub.add_plan("plan", {"eye": "eye-1"}, devices=["device-0"])
    hub.start("plan")
    (deployment,) = hub.ask("device-0")
    hub.beat(
        "device-0", DeploymentResult={"DeploymentName": deployment["DeploymentName"], "DeploymentStatus": "STARTED"}
    )
    hub.answer("device-0", deployment | {"DeploymentName": "nobody-knows"}, succeeded=False)
    hub.answer("device-1", deployment, succeeded=False)
    hub.answer("device-0", deployment, succeeded=True)
    hub.answer("device-0", deployment, succeeded=False)
    hub.tick()
    assert hub.counters("plan") == (1, 0, 0)
    assert hub.stage("plan")["StageStatus"] == "DEPLOYED"


def test_an_answer_that_comes_after_the_time_out_counts(hub: Rollouts) -> None:
    """The device fell silent, the batch went on, and its late word is taken."""
    hub.add_plan("plan", {"eye": "eye-1"}, devices=["device-0", "device-1"], batch_size=1)
    hub.start("plan")
    (deployment,) = hub.ask("device-0")
    hub.tick(TIMEOUT_MS)
    assert [one["DeploymentName"] for one in hub.ask("device-0")] == [deployment["DeploymentName"]]
    (second,) = hub.ask("device-1")
    hub.answer("device-1", second, succeeded=True)
    hub.answer("device-0", deployment, succeeded=True)
    hub.tick()
    assert hub.stage("plan")["StageStatus"] == "DEPLOYED"


def test_an_offline_device_gets_the_then_current_deployment_when_it_returns(hub: Rollouts) -> None:
    """It was away for two plans and is told of the second alone."""
    hub.add_plan("one", {"eye": "eye-1"}, devices=["device-0"])
    hub.start("one")
    hub.tick(TIMEOUT_MS)
    hub.add_plan("two", {"eye": "eye-2"}, devices=["device-0"])
    hub.start("two")
    hub.tick(TIMEOUT_MS)
    assert hub.counters("two") == (0, 1, 0)
    (deployment,) = hub.ask("device-0")
    assert deployment["Definitions"][0]["S3Url"] == "s3://fleet/eye-2.tar.gz"
    hub.answer("device-0", deployment, succeeded=True)
    hub.tick()
    assert hub.has("device-0") == {"eye": "eye-2"}
    assert (hub.counters("one"), hub.counters("two")) == ((0, 0, 0), (1, 0, 0))
    assert hub.stage("one")["StageStatus"] == "DEPLOYED"


def test_a_device_stuck_in_progress_does_not_block_a_later_plan(hub: Rollouts) -> None:
    """The later plan takes the handle over; the late answer to the first changes neither plan."""
    hub.add_plan("one", {"eye": "eye-1"}, devices=["device-0"])
    hub.start("one")
    (stuck,) = hub.ask("device-0")
    hub.add_plan("two", {"eye": "eye-2"}, devices=["device-0"])
    hub.start("two")
    (deployment,) = hub.ask("device-0")
    assert deployment["DeploymentName"] != stuck["DeploymentName"]
    hub.answer("device-0", deployment, succeeded=True)
    hub.answer("device-0", stuck, succeeded=True)
    hub.tick()
    assert hub.has("device-0") == {"eye": "eye-2"}
    assert (hub.counters("one"), hub.counters("two")) == ((0, 0, 0), (1, 0, 0))


def test_two_plans_on_one_fleet_share_a_device_by_handle(hub: Rollouts) -> None:
    """Plans about different handles go side by side; of one that is overlapped in part, the rest is still told."""
    hub.add_plan("both", {"eye": "eye-1", "ear": "ear-1"}, devices=["device-0"])
    hub.start("both")
    hub.add_plan("eye", {"eye": "eye-2"}, devices=["device-0"])
    hub.start("eye")
    told = hub.ask("device-0")
    assert [[one["S3Url"] for one in deployment["Definitions"]] for deployment in told] == [
        ["s3://fleet/ear-1.tar.gz"],
        ["s3://fleet/eye-2.tar.gz"],
    ]
    for deployment in told:
        hub.answer("device-0", deployment, succeeded=True)
    assert hub.has("device-0") == {"eye": "eye-2", "ear": "ear-1"}


def test_a_failed_plan_does_not_take_back_what_a_later_plan_brought(hub: Rollouts) -> None:
    """Going back is about the handles that the failed stage still owns."""
    hub.add_plan("bad", {"eye": "eye-1", "ear": "ear-1"}, devices=DEVICES[:2], batch_size=1, failure_threshold=1)
    hub.start("bad")
    hub.answer("device-0", hub.ask("device-0")[0], succeeded=True)
    hub.tick()
    deploy(hub, "good", {"eye": "eye-2"}, ["device-0"])
    hub.answer("device-1", hub.ask("device-1")[0], succeeded=False)
    (back,) = hub.ask("device-0")
    assert [(one["ModelHandle"], one["State"]) for one in back["Definitions"]] == [("ear", "UNDEPLOY")]
    hub.answer("device-0", back, succeeded=True)
    assert hub.has("device-0") == {"eye": "eye-2"}


def test_a_plan_that_replaces_a_way_back_goes_back_as_far_as_that(hub: Rollouts) -> None:
    """The device still has the bad version when the next plan starts, and must not be sent back to it."""
    deploy(hub, "good", {"eye": "eye-1"}, DEVICES[:2])
    hub.add_plan("bad", {"eye": "eye-2"}, devices=DEVICES[:2], batch_size=1, failure_threshold=1)
    hub.start("bad")
    hub.answer("device-0", hub.ask("device-0")[0], succeeded=True)
    hub.tick()
    hub.answer("device-1", hub.ask("device-1")[0], succeeded=False)
    assert hub.has("device-0") == {"eye": "eye-2"}
    hub.add_plan("worse", {"eye": "eye-3"}, devices=DEVICES[:2], batch_size=1, failure_threshold=1)
    hub.start("worse")
    (deployment,) = hub.ask("device-0")
    hub.answer("device-0", deployment, succeeded=True)
    hub.tick()
    hub.answer("device-1", hub.ask("device-1")[0], succeeded=False)
    (back,) = hub.ask("device-0")
    assert back["Definitions"][0]["S3Url"] == "s3://fleet/eye-1.tar.gz"


def test_a_device_that_can_not_go_back_by_itself_is_sent_back_at_once(hub: Rollouts) -> None:
    """It counts as failed, and is not left between old and new."""
    deploy(hub, "good", {"eye": "eye-1"}, ["device-0"])
    hub.add_plan("bad", {"eye": "eye-2"}, devices=DEVICES, batch_size=6, failure_threshold=6)
    hub.start("bad")
    hub.answer("device-0", hub.ask("device-0")[0], succeeded=False, stuck=True)
    (back,) = hub.ask("device-0")
    assert back["Definitions"][0]["S3Url"] == "s3://fleet/eye-1.tar.gz"
    hub.answer("device-0", back, succeeded=True)
    assert hub.counters("bad") == (0, 5, 1)


def test_a_way_back_that_fails_is_said(hub: Rollouts) -> None:
    """The device is listed as failed, with what it said."""
    hub.add_plan("bad", {"eye": "eye-1"}, devices=DEVICES[:2], batch_size=1, failure_threshold=1)
    hub.start("bad")
    hub.answer("device-0", hub.ask("device-0")[0], succeeded=True)
    hub.tick()
    hub.answer("device-1", hub.ask("device-1")[0], succeeded=False)
    hub.answer("device-0", hub.ask("device-0")[0], succeeded=False)
    listed = hub.call("ListStageDevices", EdgeDeploymentPlanName="bad", StageName="all")
    first = listed["DeviceDeploymentSummaries"][0]
    assert (first["DeviceDeploymentStatus"], first["DeviceDeploymentStatusMessage"]) == (
        "FAILED",
        "could not be rolled back: eye: it does not fit",
    )


def test_a_stage_that_is_stopped_lets_those_at_it_finish_and_can_be_started_again(hub: Rollouts) -> None:
    """Offers are withdrawn, and what has succeeded is not done again."""
    hub.add_plan("plan", {"eye": "eye-1"}, devices=DEVICES, batch_size=2)
    hub.start("plan")
    (deployment,) = hub.ask("device-0")
    hub.call("StopEdgeDeploymentStage", EdgeDeploymentPlanName="plan", StageName="all")
    assert hub.stage("plan")["StageStatus"] == "STOPPING"
    assert hub.ask("device-1") == []
    with pytest.raises(StageNotStartable):
        hub.start("plan")
    with pytest.raises(StageNotRunning):
        hub.call("StopEdgeDeploymentStage", EdgeDeploymentPlanName="plan", StageName="all")
    with pytest.raises(StageActive):
        hub.call("DeleteEdgeDeploymentStage", EdgeDeploymentPlanName="plan", StageName="all")
    with pytest.raises(PlanActive):
        hub.call("DeleteEdgeDeploymentPlan", EdgeDeploymentPlanName="plan")
    hub.answer("device-0", deployment, succeeded=True)
    hub.tick()
    assert hub.stage("plan")["StageStatus"] == "STOPPED"
    assert hub.counters("plan") == (1, 5, 0)
    hub.start("plan")
    assert [bool(hub.ask(device)) for device in DEVICES] == [False, True, True, False, False, False]


def test_a_failed_stage_started_again_goes_back_to_what_was_there_first(hub: Rollouts) -> None:
    """The second failure sends a device to the same old version as the first."""
    deploy(hub, "good", {"eye": "eye-1"}, DEVICES[:2])
    hub.add_plan("bad", {"eye": "eye-2"}, devices=DEVICES[:2], batch_size=1, failure_threshold=1)
    for _ in range(2):
        hub.start("bad")
        hub.answer("device-0", hub.ask("device-0")[0], succeeded=True)
        hub.tick()
        hub.answer("device-1", hub.ask("device-1")[0], succeeded=False)
        (back,) = hub.ask("device-0")
        assert back["Definitions"][0]["S3Url"] == "s3://fleet/eye-1.tar.gz"
    hub.answer("device-0", back, succeeded=True)
    assert hub.has("device-0") == hub.has("device-1") == {"eye": "eye-1"}


def test_the_way_back_outlives_its_plan(hub: Rollouts) -> None:
    """The operator deletes the failed plan while a device is off; when it returns it still goes back."""
    hub.add_plan("bad", {"eye": "eye-1"}, devices=DEVICES[:2], batch_size=1, failure_threshold=1)
    hub.start("bad")
    hub.answer("device-0", hub.ask("device-0")[0], succeeded=True)
    hub.tick()
    hub.answer("device-1", hub.ask("device-1")[0], succeeded=False)
    hub.call("DeleteEdgeDeploymentPlan", EdgeDeploymentPlanName="bad")
    (back,) = hub.ask("device-0")
    hub.answer("device-0", back, succeeded=True)
    assert hub.has("device-0") == {}
    assert hub.ask("device-0") == []


def test_an_answer_outlives_its_plan(hub: Rollouts) -> None:
    """A device that answers after its plan was deleted is believed, so that a later plan knows what it had."""
    hub.add_plan("plan", {"eye": "eye-1"}, devices=["device-0"])
    hub.start("plan")
    (deployment,) = hub.ask("device-0")
    hub.call("StopEdgeDeploymentStage", EdgeDeploymentPlanName="plan", StageName="all")
    hub.tick(TIMEOUT_MS)
    hub.call("DeleteEdgeDeploymentPlan", EdgeDeploymentPlanName="plan")
    hub.answer("device-0", deployment, succeeded=True)
    assert hub.has("device-0") == {"eye": "eye-1"}


def test_a_device_may_read_what_it_has_and_what_it_is_told(hub: Rollouts) -> None:
    """The newest first; what a stopped stage would have brought is out of reach."""
    deploy(hub, "first", {"eye": "eye-1"}, ["device-0"])
    hub.add_plan("second", {"eye": "eye-2"}, devices=["device-1", "device-0"], batch_size=1)

    def reach() -> list[str]:
        with hub.database.read() as connection:
            return reachable(connection, "fleet", "device-0")

    assert reach() == ["s3://fleet/eye-1.tar.gz"]
    hub.start("second")
    assert reach() == ["s3://fleet/eye-2.tar.gz", "s3://fleet/eye-1.tar.gz"]
    hub.call("StopEdgeDeploymentStage", EdgeDeploymentPlanName="second", StageName="all")
    assert reach() == ["s3://fleet/eye-1.tar.gz"]


def test_a_device_that_is_deregistered_leaves_every_stage(hub: Rollouts) -> None:
    """Registered in another fleet it is a new device; the stage it left ends without it."""
    hub.add_plan("plan", {"eye": "eye-1"}, devices=DEVICES[:2], batch_size=2)
    hub.start("plan")
    (deployment,) = hub.ask("device-0")
    hub.answer("device-1", hub.ask("device-1")[0], succeeded=True)
    with hub.database.write() as connection:
        connection.execute(delete(DEVICES_TABLE).where(DEVICES_TABLE.c.name == "device-0"))
    hub.add_fleet("other", ["device-0"])
    hub.answer("device-0", deployment, succeeded=True, fleet="other")
    hub.tick()
    assert hub.stage("plan")["StageStatus"] == "DEPLOYED"
    assert hub.counters("plan") == (1, 0, 0)
    assert hub.has("device-0", "other") == {}
    assert hub.ask("device-0", "other") == []


def test_one_process_ticks_at_a_time_and_another_takes_over(hub: Rollouts) -> None:
    """The lease is kept while it is renewed, is free when it has ended or is given back."""
    clock = [1_000_000]
    one, two = (Ticker(hub.database, hub.settings, lambda: clock[0]) for _ in range(2))
    hub.add_plan("plan", {"eye": "eye-1"}, devices=["device-0"])
    hub.call("StartEdgeDeploymentStage", EdgeDeploymentPlanName="plan", StageName="all")
    assert one.once()
    assert hub.stage("plan")["StageStatus"] == "INPROGRESS"
    assert not two.once()
    clock[0] += LEASE_MS - 1
    assert not two.once()
    assert one.once()
    clock[0] += LEASE_MS
    assert two.once()
    assert not one.once()
    two.start()
    two.stop()
    assert one.once()


def test_a_clock_that_was_far_ahead_does_not_keep_the_lease(hub: Rollouts) -> None:
    """A lease that ends later than any can is taken."""
    assert Ticker(hub.database, hub.settings, lambda: 10_000_000_000).once()
    assert Ticker(hub.database, hub.settings, lambda: 1_000_000).once()
