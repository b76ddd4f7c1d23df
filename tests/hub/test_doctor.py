"""`lightkeeper doctor` on devices of a real hub: what is wrong is made wrong, and one check says so."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lightkeeper.doctor import Patient, State, examine
from lightkeeper.doctor.cloud import OBJECT_NAME
from tests.hub.test_hubdevice import run
from tests.support.hubs import RunningHub

BUCKET = "doctor"
CLOUD = ("proxy", "dns", "clock", "role_alias", "registration", "upload")


@pytest.fixture(scope="module")
def bucket(hub: RunningHub) -> str:
    """A bucket in the hub's S3."""
    store = hub.client("s3", endpoint_url=hub.addresses.s3_endpoint)
    store.create_bucket(Bucket=BUCKET)
    store.close()
    return BUCKET


class Device:
    """A device's folder as the hub wrote it, with captures for the cloud."""

    def __init__(self, folder: Path, name: str, fleet: str) -> None:
        self.folder, self.name, self.fleet = folder, name, fleet
        self.config = folder / "config.json"
        self.set(sagemaker_edge_local_data_root_path="state", sagemaker_edge_core_capture_data_destination="Cloud")

    def set(self, **keys: object) -> None:
        """Change keys of the configuration."""
        self.config.write_text(json.dumps(json.loads(self.config.read_text()) | keys))

    def doctor(self, *arguments: str, **environment: str) -> tuple[int, dict[str, dict[str, Any]]]:
        """Run the command in the device's folder; return its exit code and the checks by name."""
        done = subprocess.run(
            [sys.executable, "-m", "lightkeeper", "doctor", "--json", "-c", "config.json", "-a", "a.sock", *arguments],
            cwd=self.folder,
            env={key: value for key, value in os.environ.items() if not key.startswith("AWS_")} | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stderr == ""
        said = json.loads(done.stdout)
        assert said["passed"] == (done.returncode == 0)
        return done.returncode, {check["name"]: check for check in said["checks"]}


@pytest.fixture
def device(hub: RunningHub, sagemaker: Any, bucket: str, unique: Callable[[], str], tmp_path: Path) -> Iterator[Device]:
    """A registered device whose fleet keeps captures in the bucket."""
    name, fleet = unique(), unique()
    sagemaker.create_device_fleet(DeviceFleetName=fleet, OutputConfig={"S3OutputLocation": f"s3://{bucket}/kept"})
    code, _, said = run(hub, "device", "add", name, "--fleet", fleet, "--output", "device", folder=tmp_path)
    assert code == 0, said
    yield Device(tmp_path / "device", name, fleet)
    shutil.rmtree(tmp_path / "device")


def expect_only(checks: dict[str, dict[str, Any]], name: str, reason: str) -> dict[str, Any]:
    """Expect that one check failed, with its code and a fix, and that it alone did; return it."""
    assert [check["name"] for check in checks.values() if check["state"] == "failed"] == [name], checks
    assert checks[name]["reason"] == reason
    assert checks[name]["fix"]
    return checks[name]


def test_a_device_as_the_hub_makes_it_passes(hub: RunningHub, device: Device, bucket: str) -> None:
    """Every check of the cloud is made; one object is left, once, however often; nothing is made on the device."""
    before = sorted(path.name for path in device.folder.rglob("*"))
    code, checks = device.doctor()
    assert code == 0, [check for check in checks.values() if check["state"] == "failed"]
    assert {name: checks[name]["state"] for name in CLOUD} == dict.fromkeys(CLOUD, "ok") | {"dns": "skipped"}, checks
    page = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text(encoding="utf-8")
    assert [name for name in checks if f"`{name}`" not in page] == []
    assert "the object stays" in checks["upload"]["found"]
    assert device.doctor()[0] == 0
    store = hub.client("s3", endpoint_url=hub.addresses.s3_endpoint)
    listed = store.list_objects_v2(Bucket=bucket, Prefix=f"kept/{device.fleet}/")["Contents"]
    store.close()
    assert [item["Key"] for item in listed] == [f"kept/{device.fleet}/{device.name}/{OBJECT_NAME}"]
    assert sorted(path.name for path in device.folder.rglob("*")) == before


def test_a_closed_alias_fails_the_exchange_alone(hub: RunningHub, device: Device) -> None:
    """What builds on it is skipped and says why."""
    assert run(hub, "alias", "close", device.fleet, folder=device.folder.parent)[0] == 0
    code, checks = device.doctor()
    assert code == 1
    assert "hub alias open" in expect_only(checks, "role_alias", "DESTINATION_DENIED")["fix"]
    assert checks["upload"]["state"] == checks["registration"]["state"] == "skipped"
    assert "role_alias failed" in checks["upload"]["found"]


def test_a_revoked_certificate_fails_the_exchange(hub: RunningHub, device: Device) -> None:
    """Its dates and its key are still in order."""
    assert run(hub, "device", "revoke", device.name, "--fleet", device.fleet, folder=device.folder.parent)[0] == 0
    _, checks = device.doctor()
    expect_only(checks, "role_alias", "DESTINATION_DENIED")
    assert checks["certificate"]["state"] == checks["certificate_key"]["state"] == "ok"


def test_a_prefix_that_is_not_the_devices_fails_the_upload_alone(device: Device) -> None:
    """The bucket may be read by no means and written below the device's own prefix only."""
    device.set(sagemaker_edge_core_folder_prefix="elsewhere")
    _, checks = device.doctor()
    assert "S3OutputLocation" in expect_only(checks, "upload", "DESTINATION_DENIED")["fix"]
    assert checks["registration"]["state"] == "ok"


def test_a_closed_port_fails_the_exchange_and_the_clock_is_read_elsewhere(device: Device) -> None:
    """The hub's other address still tells the time."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    device.set(sagemaker_edge_provider_aws_iot_cred_endpoint=f"https://127.0.0.1:{port}/role-aliases/x/credentials")
    _, checks = device.doctor()
    assert "firewall" in expect_only(checks, "role_alias", "DESTINATION_UNREACHABLE")["fix"]
    assert checks["clock"]["state"] == "ok"


def test_another_authority_fails_the_exchange(device: Device, authority: Path) -> None:
    """The certificate that the endpoint shows is nobody's that this device trusts."""
    (root,) = (authority / "certs").glob("*.pem")
    device.set(sagemaker_edge_provider_aws_ca_cert_file=str(root))
    _, checks = device.doctor()
    assert "aws_ca_cert_file" in expect_only(checks, "role_alias", "DESTINATION_UNTRUSTED")["fix"]


def test_a_name_that_nobody_knows_fails_the_look_up(device: Device) -> None:
    """What would go there is skipped."""
    device.set(sagemaker_edge_provider_aws_iot_cred_endpoint="no-such-host.invalid")
    _, checks = device.doctor()
    assert "no-such-host.invalid" in expect_only(checks, "dns", "DESTINATION_UNREACHABLE")["found"]
    assert checks["role_alias"]["state"] == "skipped"


def test_a_proxy_that_is_not_there_fails_without_its_password(device: Device) -> None:
    """The address is told, the password is not; --offline leaves it all out."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    proxy = f"http://user:hidden-word@127.0.0.1:{port}"
    _, checks = device.doctor(HTTPS_PROXY=proxy, NO_PROXY="nowhere")
    assert f"127.0.0.1:{port}" in expect_only(checks, "proxy", "DESTINATION_UNREACHABLE")["found"]
    assert "hidden-word" not in json.dumps(checks)
    code, checks = device.doctor("--offline", HTTPS_PROXY=proxy, NO_PROXY="nowhere")
    assert code == 0
    assert {checks[name]["state"] for name in CLOUD} == {"skipped"}


@pytest.mark.parametrize("hours", [-30, 30])
def test_a_wrong_clock_is_named_as_the_cause(device: Device, monkeypatch: pytest.MonkeyPatch, hours: int) -> None:
    """It is found by the server's Date; the exchange that would fail because of it is skipped."""
    monkeypatch.chdir(device.folder)
    patient = Patient(Path("config.json"), "a.sock", now=lambda: datetime.now(UTC) + timedelta(hours=hours))
    found = {result.name: result.diagnosis for result in examine(patient)}
    assert (found["clock"].state, found["clock"].reason) == (State.FAILED, "CLOCK_WRONG")
    assert "1 day, 6:00:00" in found["clock"].found
    assert found["role_alias"].state is State.SKIPPED


def test_a_refused_configuration_fails_first_and_the_rest_is_looked_at(device: Device) -> None:
    """One key is wrong; the certificate is still held against its key, and the alias asked."""
    device.set(sagemaker_edge_core_capture_data_buffer_size="many", sagemaker_edge_provider_s3_bucket_name="s3://x/")
    code, checks = device.doctor()
    assert code == 1
    failed = expect_only(checks, "configuration", "CONFIG_INVALID")
    assert "buffer_size" in failed["found"]
    assert next(iter(checks)) == "configuration"
    assert checks["certificate_key"]["state"] == checks["role_alias"]["state"] == "ok"
    assert checks["upload"]["state"] == "skipped"
    assert "sagemaker_edge_provider_s3_bucket_name" in checks["upload"]["found"]
