"""Real agents on a real hub: each started from the one folder that `hub device add` writes, with nothing edited."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from botocore.exceptions import ClientError

from lightkeeper.client import Client
from tests.hub.test_hubdevice import credentials, run
from tests.support.hubs import RunningHub

PATIENCE_SECONDS = 60.0
X = np.ones((1, 4), np.float32)


class Device:
    """An agent in its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "agent.log"
        config = folder / "config.json"
        keys = json.loads(config.read_text()) | {
            "lightkeeper_heartbeat_seconds": 1,
            "lightkeeper_deployments": True,
            "sagemaker_edge_core_capture_data_destination": "Cloud",
            "sagemaker_edge_core_capture_data_push_period_seconds": 1,
        }
        config.write_text(json.dumps(keys))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lightkeeper", "agent", "-a", "agent.sock", "-c", "config.json", "-f"],
                cwd=folder,
                stdout=log,
                stderr=log,
                env={key: value for key, value in os.environ.items() if not key.startswith("AWS_")},
            )

    @property
    def client(self) -> Client:
        """A client of the agent."""
        return Client(str(self.folder / "agent.sock"))

    def events(self, word: str) -> list[dict[str, Any]]:
        """Return the log lines of one event."""
        lines = [line for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in map(json.loads, lines) if line["event"] == word]

    def stop(self) -> int:
        """End the agent."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def eventually(what: Callable[[], object], *devices: Device) -> None:
    """Wait until something is so; the agents' logs tell why it is not."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not what():
        logs = "\n".join(device.log.read_text()[-3000:] for device in devices)
        assert time.monotonic() < deadline, logs
        time.sleep(0.2)


@pytest.fixture
def add_device(hub: RunningHub, fleet: str, tmp_path: Path) -> Iterator[Callable[[str], Device]]:
    """Add a device to the fleet, and start its agent."""
    started: list[Device] = []

    def add(name: str) -> Device:
        folder = tmp_path / name
        code, _, said = run(hub, "device", "add", name, "--fleet", fleet, "--output", str(folder), folder=tmp_path)
        assert code == 0, said
        device = Device(next(path.parent for path in folder.rglob("config.json")))
        started.append(device)
        eventually(lambda: device.events("agent_started"), device)
        return device

    yield add
    for device in started:
        assert device.stop() == 0


def test_an_agent_reports_captures_and_is_cut_off(
    hub: RunningHub, fleet: str, add_device: Callable[[str], Device], unique: Callable[[], str], doubled_package: Path
) -> None:
    """Heartbeats are in the report, captures in its own prefix; once revoked, it predicts on and says so once."""
    name, other = unique(), unique()
    device = add_device(name)
    sagemaker = hub.client("sagemaker")
    described = lambda: sagemaker.describe_device(DeviceName=name, DeviceFleetName=fleet)  # noqa: E731
    eventually(lambda: described().get("AgentVersion"), device)
    eventually(lambda: device.events("device_registered"), device)

    code, _, said = run(hub, "device", "add", other, "--fleet", fleet, "--output", other, folder=device.folder)
    assert code == 0, said
    (stranger,) = (path.parent for path in (device.folder / other).rglob("config.json"))
    status, answer = credentials(stranger)
    assert status == 200, answer
    with pytest.raises(ClientError):
        hub.client(
            "sagemaker-edge",
            aws_access_key_id=answer["credentials"]["accessKeyId"],
            aws_secret_access_key=answer["credentials"]["secretAccessKey"],
            aws_session_token=answer["credentials"]["sessionToken"],
        ).get_deployments(DeviceName=name, DeviceFleetName=fleet)

    code, _, said = run(hub, "device", "revoke", name, "--fleet", fleet, folder=device.folder)
    assert code == 0, said
    eventually(lambda: device.events("heartbeat_refused"), device)
    time.sleep(3)  # further heartbeats fail, and are not said again
    assert len(device.events("heartbeat_refused")) == 1
    assert doubled_package.exists()
    with device.client as client:
        assert client.list_models() == []
