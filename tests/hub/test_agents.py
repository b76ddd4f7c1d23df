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

from lightkeeper.capture.request import CaptureStatus
from lightkeeper.client import Client
from tests.hub.test_hubdevice import credentials, run
from tests.hub.test_job_chain import wait
from tests.support import models
from tests.support.hubs import RunningHub
from tests.support.jobs import ROLE

PATIENCE_SECONDS = 150.0  # deployments are looked for once a minute
X = np.ones((1, 4), np.float32)


class Device:
    """An agent in its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "agent.log"
        config = folder / "config.json"
        keys = json.loads(config.read_text()) | {
            "lightkeeper_heartbeat_seconds": 1,
            "sagemaker_edge_local_data_root_path": "state",  # two agents on one machine
            "lightkeeper_deployments": True,
            "sagemaker_edge_model_deployment_poll_interval": 1,
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
        assert all(device.process.poll() is None for device in devices), logs
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


def test_an_agent_reports_and_is_cut_off(
    hub: RunningHub, fleet: str, add_device: Callable[[str], Device], unique: Callable[[], str]
) -> None:
    """Heartbeats are in the report, another's session is refused; once revoked, it goes on and says so once."""
    name, other = unique(), unique()
    device = add_device(name)
    sagemaker = hub.client("sagemaker")
    words = {"DeviceName": name, "DeviceFleetName": fleet}
    eventually(lambda: sagemaker.describe_device(**words).get("AgentVersion"), device)
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
    with device.client as client:
        assert client.list_models() == []


def package(hub: RunningHub, bucket: str, version: str, columns: int) -> str:
    """Compile and package a model through the API, and return the packaging job's name."""
    store, sagemaker = hub.client("s3", endpoint_url=hub.addresses.s3_endpoint), hub.client("sagemaker")
    job = f"scores-{version.replace('.', '-')}-{bucket}"[:63].rstrip("-")
    store.put_object(Bucket=bucket, Key=f"models/{job}.onnx", Body=models.doubled((1, columns)))
    sagemaker.create_compilation_job(
        CompilationJobName=job,
        RoleArn=ROLE,
        InputConfig={
            "S3Uri": f"s3://{bucket}/models/{job}.onnx",
            "Framework": "ONNX",
            "DataInputConfig": json.dumps({"x": [1, columns]}),
        },
        OutputConfig={
            "S3OutputLocation": f"s3://{bucket}/compiled",
            "TargetPlatform": {"Os": "LINUX", "Arch": "X86_64"},
        },
        StoppingCondition={"MaxRuntimeInSeconds": 900},
    )
    compiled = wait(lambda: sagemaker.describe_compilation_job(CompilationJobName=job), "CompilationJobStatus")
    assert compiled["CompilationJobStatus"] == "COMPLETED", compiled
    sagemaker.create_edge_packaging_job(
        EdgePackagingJobName=job,
        CompilationJobName=job,
        ModelName="scores",
        ModelVersion=version,
        RoleArn=ROLE,
        OutputConfig={"S3OutputLocation": f"s3://{bucket}/packages"},
    )
    packaged = wait(lambda: sagemaker.describe_edge_packaging_job(EdgePackagingJobName=job), "EdgePackagingJobStatus")
    assert packaged["EdgePackagingJobStatus"] == "COMPLETED", packaged
    return job


def roll_out(hub: RunningHub, fleet: str, plan: str, job: str, devices: list[str]) -> Callable[[], dict[str, Any]]:
    """Start a plan of one stage, and return what describes that stage."""
    sagemaker = hub.client("sagemaker")
    sagemaker.create_edge_deployment_plan(
        EdgeDeploymentPlanName=plan,
        DeviceFleetName=fleet,
        ModelConfigs=[{"ModelHandle": "scores", "EdgePackagingJobName": job}],
        Stages=[
            {
                "StageName": "all",
                "DeviceSelectionConfig": {"DeviceSubsetType": "SELECTION", "DeviceNames": devices},
                "DeploymentConfig": {"FailureHandlingPolicy": "ROLLBACK_ON_FAILURE"},
            }
        ],
    )
    sagemaker.start_edge_deployment_stage(EdgeDeploymentPlanName=plan, StageName="all")

    def described() -> dict[str, Any]:
        stage: dict[str, Any] = sagemaker.describe_edge_deployment_plan(EdgeDeploymentPlanName=plan)["Stages"][0]
        return stage["DeploymentStatus"]

    return described


@pytest.mark.timeout(400)
def test_a_model_is_rolled_out_and_a_bad_version_goes_back_by_itself(
    hub: RunningHub, fleet: str, add_device: Callable[[str], Device], unique: Callable[[], str], tmp_path: Path
) -> None:
    """Two agents fetch, verify and run what a plan names; a version that does not fit leaves them with the old."""
    bucket, names = unique(), [unique(), unique()]
    store = hub.client("s3", endpoint_url=hub.addresses.s3_endpoint)
    for each in (bucket, "bucket"):  # that of the packages, and that of the fleet's captures
        store.create_bucket(Bucket=each)
    good = package(hub, bucket, "1.0", columns=4)
    bad = package(hub, bucket, "2.0", columns=5)
    devices = [add_device(name) for name in names]
    first = roll_out(hub, fleet, unique(), good, names)
    eventually(lambda: first()["StageStatus"] == "DEPLOYED", *devices)
    for device in devices:
        with device.client as client:
            assert np.array_equal(client.predict("scores", {"x": X})["y"], 2 * X)
            client.capture_data("scores", inputs={"x": X}, outputs={"y": 2 * X}, capture_id="kept")
            eventually(lambda client=client: client.capture_status("kept") is CaptureStatus.SUCCESS, device)  # type: ignore[misc]  # bound now
    second = roll_out(hub, fleet, unique(), bad, names)
    eventually(lambda: second()["StageStatus"] == "FAILED", *devices)
    for device in devices:
        with device.client as client:
            assert np.array_equal(client.predict("scores", {"x": X})["y"], 2 * X)
    code, said, _ = run(hub, "report", fleet, "--json", folder=tmp_path)
    assert code == 0
    assert all(name in said for name in names)
