"""Hub processes are killed at random moments while rollouts run; every device ends where it should, and the hub knows.

The devices are simulated, over boto3; each carries out what it is told once and reports it until it is heard. A few
kills here, many with `make test-hub-crash` (LIGHTKEEPER_HUB_CRASHES).
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from sqlalchemy import create_engine, select, text

from lightkeeper.hub.folder import read
from lightkeeper.hub.tables.rollout import SLOTS
from tests.support.hubs import NOWHERE, HubProcess, client
from tests.support.rollouts import Rollouts

CRASHES = int(os.environ.get("LIGHTKEEPER_HUB_CRASHES", "4"))
DEVICES = [f"device-{number:02}" for number in range(10)]
BATCH = 3
PATIENCE_SECONDS = 60.0 + 10.0 * CRASHES


@dataclass
class Fleet:
    """Simulated devices: what each has under its one handle, what it did, and who is at it now."""

    clients: list[Any]
    breaks: Callable[[str, str], bool]
    """Whether a package breaks on a device."""

    has: dict[str, str | None] = field(default_factory=lambda: dict.fromkeys(DEVICES))
    done: dict[str, str] = field(default_factory=dict)
    at_it: set[str] = field(default_factory=set)
    most_at_it: int = 0
    carried_out: int = 0
    faults: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> list[threading.Thread]:
        """Let the devices come, from two threads."""
        threads = [threading.Thread(target=self._visit, args=(DEVICES[first::2],)) for first in range(2)]
        for thread in threads:
            thread.start()
        return threads

    def _visit(self, names: list[str]) -> None:
        rng = random.Random(names[0])  # noqa: S311 - a load, no secret
        while not self.stop.is_set():
            for name in names:
                try:
                    self._come(name, rng.choice(self.clients))
                except ClientError as error:
                    if error.response["ResponseMetadata"]["HTTPStatusCode"] < 500:
                        self.faults.append(f"{name}: {error}")
                except (BotoCoreError, HTTPClientError):
                    pass  # the hub is being killed: the device comes again
            self.stop.wait(0.05)

    def _come(self, name: str, edge: Any) -> None:
        """Ask, do what is new, and report all that is under way."""
        who = {"DeviceName": name, "DeviceFleetName": "fleet"}
        for deployment in edge.get_deployments(**who).get("Deployments", []):
            told = deployment["DeploymentName"]
            if told not in self.done:
                self.at_it.add(name)
                self.most_at_it = max(self.most_at_it, len(self.at_it))
                self.done[told] = self._carry_out(name, deployment)
                self.carried_out += 1
            models = [
                {"ModelHandle": one["ModelHandle"], "DesiredState": one["State"], "Status": self.done[told]}
                for one in deployment["Definitions"]
            ]
            result = {"DeploymentName": told, "DeploymentStatus": self.done[told], "DeploymentModels": models}
            self.at_it.discard(name)
            edge.send_heartbeat(**who, AgentVersion="1.0", DeploymentResult=result)

    def _carry_out(self, name: str, deployment: dict[str, Any]) -> str:
        (definition,) = deployment["Definitions"]
        time.sleep(0.02)
        if self.breaks(name, definition.get("S3Url", "")):
            return "FAIL"
        self.has[name] = definition.get("S3Url")
        return "SUCCESS"


class Killer:
    """Kills one of the hubs again and again, at a random moment after it is ready, and starts it again."""

    def __init__(self, hubs: list[HubProcess], kills: int) -> None:
        self._hubs = hubs
        self._left = kills
        self._rng = random.Random(len(hubs))  # noqa: S311 - a load, no secret
        self.thread = threading.Thread(target=self._run)
        self.failed: list[BaseException] = []

    def _run(self) -> None:
        try:
            while self._left:
                time.sleep(self._rng.uniform(0.05, 1.5))
                hub = self._rng.choice(self._hubs)
                hub.end(signal.SIGKILL)
                hub.start()
                self._left -= 1
        except BaseException as error:  # noqa: BLE001 - the test's own thread says it
            self.failed.append(error)


@pytest.fixture(params=["one process on SQLite", "two processes on PostgreSQL"])
def hubs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[list[HubProcess], str]]:
    """Running hub processes and their database."""
    two = "PostgreSQL" in request.param
    url = request.getfixturevalue("postgres").database() if two else f"sqlite:///{tmp_path / 'hub.db'}"
    options = ("--database", url, "--s3-endpoint", NOWHERE, "--set", "rollout_tick_ms=100")
    made = [HubProcess(tmp_path / name, *options) for name in (("one", "two") if two else ("one",))]
    for hub in made:
        hub.start()
    yield made, url
    for hub in made:
        hub.end()


@pytest.mark.timeout(int(2 * PATIENCE_SECONDS) + 60)
def test_rollouts_survive_hubs_that_are_killed(hubs: tuple[list[HubProcess], str]) -> None:
    """Three plans, the second one bad: at the end every device has the third, or had the first after the second."""
    processes, url = hubs
    patient = Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=10)
    addresses = [read(hub.folder) for hub in processes]
    control = [client(one, "sagemaker", config=patient) for one in addresses]
    packages = Rollouts(url)
    for number in (1, 2, 3):
        packages.add_package(f"eye-{number}")
    packages.database.close()
    control[0].create_device_fleet(DeviceFleetName="fleet", OutputConfig={"S3OutputLocation": "s3://fleet/captures"})
    control[-1].register_devices(DeviceFleetName="fleet", Devices=[{"DeviceName": name} for name in DEVICES])
    fleet = Fleet(
        [client(one, "sagemaker-edge", config=patient) for one in addresses],
        breaks=lambda name, package: "eye-2" in package and name[-1] in "13579",
    )
    killer = Killer(processes, CRASHES)
    threads = [*fleet.run(), killer.thread]
    killer.thread.start()
    try:
        rounds = 0
        while killer.thread.is_alive() or rounds < 1:
            rounds += 1
            for number, status in ((1, "DEPLOYED"), (2, "FAILED"), (3, "DEPLOYED")):
                roll_out(control, f"plan-{rounds}-{number}", f"eye-{number}", status)
                if number == 2:
                    expect_at_rest(fleet, "s3://fleet/eye-1.tar.gz")
            expect_at_rest(fleet, "s3://fleet/eye-3.tar.gz")
    finally:
        fleet.stop.set()
        for thread in threads:
            thread.join()
    assert killer.failed == []
    assert fleet.faults == []
    assert 0 < fleet.most_at_it <= BATCH
    assert what_the_hub_knows(url) == dict.fromkeys(DEVICES, "s3://fleet/eye-3.tar.gz")
    logs = "".join(hub.log() for hub in processes)
    assert "call_failed" not in logs
    assert "not_ticked" not in logs


def roll_out(control: list[Any], plan: str, package: str, status: str) -> None:
    """Make and start a plan, and wait until it is over; the counters then add up."""
    stage = {"StageName": "all", "DeviceSelectionConfig": {"DeviceSubsetType": "PERCENTAGE", "Percentage": 100}}
    tags = {"batch-size": BATCH, "failure-threshold": 2, "device-timeout-seconds": 3600}
    insist(
        control,
        "create_edge_deployment_plan",
        EdgeDeploymentPlanName=plan,
        ModelConfigs=[{"ModelHandle": "eye", "EdgePackagingJobName": package}],
        DeviceFleetName="fleet",
        Stages=[stage],
        Tags=[{"Key": f"lightkeeper:{key}", "Value": str(value)} for key, value in tags.items()],
    )
    insist(control, "start_edge_deployment_stage", EdgeDeploymentPlanName=plan, StageName="all")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        described = insist(control, "describe_edge_deployment_plan", EdgeDeploymentPlanName=plan)
        numbers = [described[f"EdgeDeployment{word}"] for word in ("Success", "Pending", "Failed")]
        assert sum(numbers) == len(DEVICES)
        if described["Stages"][0]["DeploymentStatus"]["StageStatus"] in {"DEPLOYED", "FAILED"}:
            break
        assert time.monotonic() < deadline, described
        time.sleep(0.1)
    assert described["Stages"][0]["DeploymentStatus"]["StageStatus"] == status
    if status == "DEPLOYED":
        assert numbers == [len(DEVICES), 0, 0]


def expect_at_rest(fleet: Fleet, package: str) -> None:
    """Wait until every device has a package."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while set(fleet.has.values()) != {package}:
        assert time.monotonic() < deadline, fleet.has
        time.sleep(0.05)


def insist(control: list[Any], operation: str, **given: Any) -> dict[str, Any]:
    """Call until a hub answers; a call that was done, but whose answer was lost, is known by its refusal."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    for one in itertools.cycle(control):
        answer = attempt(one, operation, given)
        if answer is not None:
            return answer
        assert time.monotonic() < deadline
        time.sleep(0.05)
    raise AssertionError


def attempt(control: Any, operation: str, given: dict[str, Any]) -> dict[str, Any] | None:
    """Call once. Return None where no hub answered, and {} where the call had been done before."""
    try:
        answer: dict[str, Any] = getattr(control, operation)(**given)
    except ClientError as error:
        if error.response["Error"]["Code"] in {"ResourceInUse", "ConflictException"}:
            return {}
        if error.response["ResponseMetadata"]["HTTPStatusCode"] < 500:
            raise
        return None
    except (BotoCoreError, HTTPClientError):
        return None
    return answer


def what_the_hub_knows(url: str) -> dict[str, str | None]:
    """Return what the database says each device has; an SQLite file is whole."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            assert connection.execute(text("PRAGMA integrity_check")).scalar_one() == "ok"
        rows = connection.execute(select(SLOTS.c.device, SLOTS.c.package)).all()
    engine.dispose()
    return {row.device: row.package["url"] if row.package else None for row in rows}
