"""`lightkeeper hub` as its users run it: a process of its own, the AWS CLI, signals, restarts."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from lightkeeper import errors
from lightkeeper.hub import folder as folders
from lightkeeper.hub.database import SCHEMA_NUMBER
from lightkeeper.hub.tables.setting import SCHEMA
from tests.support.hubs import NOWHERE, RunningHub, client

BIN = Path(sys.executable).parent
START_SECONDS = 90.0
OUTPUT = "S3OutputLocation=s3://lightkeeper/captures"
CAPTURES = {
    "CapturesAccepted": 12,
    "CapturesOpen": 1,
    "CapturesWaiting": 3,
    "CapturesWritten": 2,
    "CapturesUploaded": 3,
    "CapturesExpired": 1,
    "CapturesThinned": 1,
    "CapturesQuarantined": 1,
    "CapturesRefused": 2,
    "SamplesLost": 1,
}


class HubProcess:
    """`lightkeeper hub up` on a folder."""

    def __init__(self, folder: Path, *words: object) -> None:
        self.folder = folder
        self.log = folder.with_suffix(".log")
        self._started_ns = time.time_ns()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [BIN / "lightkeeper", "hub", "up", folder, *map(str, words)], stdout=log, stderr=log
            )

    def ready(self) -> folders.Addresses:
        """Wait until it has published its addresses."""
        deadline = time.monotonic() + START_SECONDS
        while not self._published():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)
        return folders.read(self.folder)

    def _published(self) -> bool:
        try:
            return (self.folder / folders.ADDRESSES).stat().st_mtime_ns > self._started_ns
        except FileNotFoundError:
            return False

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it by a signal, and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(60)


Start = Callable[..., HubProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start hubs in folders named by the test; what still runs at the end is ended."""
    started: list[HubProcess] = []

    def run(name: str, *words: object) -> HubProcess:
        started.append(HubProcess(tmp_path / name, *words))
        return started[-1]

    yield run
    for hub in started:
        hub.end()


def command(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program of this environment."""
    program, *rest = map(str, words)
    return subprocess.run([BIN / program, *rest], check=False, capture_output=True, text=True, timeout=60, **options)


def test_the_aws_cli_runs_a_fleet_with_nothing_but_an_endpoint(start: Start, tmp_path: Path) -> None:
    """What `hub env` prints is all that the CLI and a script need; the report shows the fleet."""
    hub = start("hub")
    addresses = hub.ready()
    assert (hub.folder / folders.ADDRESSES).stat().st_mode & 0o777 == 0o600
    assert hub.folder.stat().st_mode & 0o777 == 0o700
    printed = command("lightkeeper", "hub", "env", "--hub", hub.folder).stdout
    variables = dict(re.findall(r"^export (\w+)=(.*)$", printed, re.MULTILINE))
    assert variables["AWS_ENDPOINT_URL_SAGEMAKER"] == addresses.endpoint
    environment = {**os.environ, **variables, "PATH": f"{BIN}:{os.environ['PATH']}"}
    made = command(
        *("aws", "sagemaker", "create-device-fleet", "--device-fleet-name", "yard", "--output-config", OUTPUT),
        env=environment,
    )
    assert (made.returncode, made.stderr) == (0, "")
    register = ("sagemaker", "register-devices", "--device-fleet-name", "yard", "--devices", "DeviceName=cam-1")
    keys = {name: value for name, value in environment.items() if not name.startswith("AWS_ENDPOINT_URL")}
    assert command("aws", "--endpoint-url", addresses.endpoint, *register, env=keys).returncode == 0
    refused = command("aws", "sagemaker", "describe-device-fleet", "--device-fleet-name", "none", env=environment)
    assert refused.returncode != 0
    assert "(ResourceNotFound)" in refused.stderr

    report = command("lightkeeper", "hub", "report", "yard", env=environment)
    assert report.stdout.splitlines() == ["yard: 0 of 1 devices connected", "cam-1\t-\tnever\t-\tnever\t-\t-\t-\t-"]
    document = json.loads(command("lightkeeper", "hub", "report", "yard", "--json", env=environment).stdout)
    assert document["DeviceStats"] == {"ConnectedDeviceCount": 0, "RegisteredDeviceCount": 1}
    assert [(device["DeviceName"], device["Captures"]) for device in document["Devices"]] == [("cam-1", {})]
    beat = {
        "AgentMetrics": [{"MetricName": name, "Value": value} for name, value in CAPTURES.items()],
        "Models": [{"ModelName": "eyes", "ModelVersion": "1.0", "LatestSampleTime": datetime.now(UTC)}],
        "AgentVersion": "1.2",
    }
    with closing(client(addresses, "sagemaker-edge")) as edge:
        edge.send_heartbeat(DeviceName="cam-1", DeviceFleetName="yard", **beat)
    (device,) = json.loads(command("lightkeeper", "hub", "report", "yard", "--json", env=environment).stdout)["Devices"]
    latest = datetime.fromisoformat(device["Captures"].pop("LatestSampleTime"))
    assert abs(latest - datetime.now(UTC)) < timedelta(minutes=5)
    assert device["Captures"] == CAPTURES
    row = command("lightkeeper", "hub", "report", "yard", env=environment).stdout.splitlines()[1].split("\t")
    assert (row[1], row[3], row[5:]) == ("1.2", "eyes 1.0", ["12", "5", "4", "6"])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(hub.folder / folders.ADDRESSES, elsewhere)
    far = command("lightkeeper", "hub", "report", "yard", "--hub", elsewhere)
    assert far.stdout.splitlines()[1].split("\t")[4:] == ["never", *"----"]
    assert "captures" in far.stderr
    unknown = command("lightkeeper", "hub", "report", "none", env=environment)
    assert unknown.returncode == 1
    assert "FLEET_UNKNOWN" in unknown.stderr
    assert hub.end() == 0
    gone = command("lightkeeper", "hub", "report", "yard", env=environment)
    assert (gone.returncode, "HUB_UNREACHABLE" in gone.stderr) == (3, True)


def test_a_hub_killed_and_started_again_is_the_same_hub(start: Start) -> None:
    """Addresses, keys and what was made are those from before; hub.json is away until it answers."""
    hub = start("hub", "--region", "eu-west-9", "--set", "connected_seconds=60", "--s3-endpoint", NOWHERE)
    before = hub.ready()
    client(before, "sagemaker").create_device_fleet(
        DeviceFleetName="yard", OutputConfig={"S3OutputLocation": "s3://lightkeeper/captures"}
    )
    assert hub.end(signal.SIGKILL) == -signal.SIGKILL
    again = start("hub")
    after = again.ready()
    assert asdict(after) == asdict(before)
    assert after.region == "eu-west-9"
    found = client(after, "sagemaker").describe_device_fleet(DeviceFleetName="yard")
    assert found["DeviceFleetArn"] == "arn:aws:sagemaker:eu-west-9:000000000000:device-fleet/yard"
    second = start("hub")
    assert second.process.wait(30) == 1
    assert "HUB_FOLDER_IN_USE" in second.log.read_text()
    assert after == folders.read(hub.folder)
    assert again.end(signal.SIGINT) == 0


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"database": "mysql://localhost/x"}, errors.DatabaseUnusable),
        ({"database": "postgresql://nobody@127.0.0.1:1/x"}, errors.DatabaseUnusable),
        ({"database": "nonsense"}, errors.DatabaseUnusable),
        ({"port": 1, "host": "203.0.113.1"}, errors.ListenerUnusable),
        ({"port": 65536}, errors.ListenerUnusable),
        ({"host": "0.0.0.0"}, errors.HubSettingInvalid),  # noqa: S104 - refused
        ({"settings": {"nothing": "1"}}, errors.HubSettingInvalid),
        ({"settings": {"connected_seconds": "-1"}}, errors.HubSettingInvalid),
        ({"settings": {"region": "No Region"}}, errors.HubSettingInvalid),
    ],
)
def test_a_hub_that_cannot_start_says_why(tmp_path: Path, options: Any, reason: type[errors.AgentError]) -> None:
    """One refusal, no hub.json, and the folder is free again."""
    with pytest.raises(reason):
        RunningHub(tmp_path, **{"s3_endpoint": NOWHERE} | options)
    assert not (tmp_path / folders.ADDRESSES).exists()
    folders.HubFolder(tmp_path).close()


def test_a_password_of_the_database_is_never_said(tmp_path: Path) -> None:
    """Not in the refusal, nor in its facts."""
    with pytest.raises(errors.DatabaseUnusable) as caught:
        RunningHub(tmp_path, database="postgresql://hub:topsecret@127.0.0.1:1/x")
    assert "topsecret" not in caught.value.diagnostics()


def test_a_database_of_a_later_build_is_left_alone(tmp_path: Path) -> None:
    """The hub does not start on it."""
    hub = RunningHub(tmp_path, s3_endpoint=NOWHERE)
    with hub.database.write() as connection:
        connection.execute(update(SCHEMA).values(number=SCHEMA_NUMBER + 1))
    hub.close()
    with pytest.raises(errors.SchemaNewer):
        RunningHub(tmp_path)


def test_commands_without_a_hub_say_so(tmp_path: Path) -> None:
    """And say how to start one."""
    for words in (["env"], ["report", "yard"]):
        done = command("lightkeeper", "hub", *words, "--hub", tmp_path)
        assert done.returncode == 1
        assert "HUB_NOT_RUNNING" in done.stderr
        assert "hub up" in done.stderr


def test_without_the_extra_the_hub_says_what_to_install(tmp_path: Path) -> None:
    """A device has no hub, and needs none of its libraries."""
    program = (
        "import sys; sys.modules['sqlalchemy'] = None; from lightkeeper.cli import run; "
        f"sys.exit(run(['hub', 'up', {str(tmp_path / 'hub')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "EXTRA_MISSING" in done.stderr
    assert "lightkeeper[EXTRA]" in done.stderr
    assert not (tmp_path / "hub").exists()
