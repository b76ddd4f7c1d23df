"""`lightkeeper hub device`, `alias` and `audit` against a running hub, and the device's way from there to its calls."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support.devices import credentials, device_client
from tests.support.hubs import RunningHub, command


def run(hub: RunningHub, *arguments: str, folder: Path) -> tuple[int, str, str]:
    """Run a command line of `lightkeeper hub` in a folder; return its exit code and what it said."""
    return command(hub.hub.folder.path, *arguments, folder=folder)


@pytest.fixture
def yard(sagemaker: Any, unique: Callable[[], str]) -> str:
    """A fleet whose captures go into the bucket that is there."""
    name = unique()
    output = {"S3OutputLocation": "s3://lightkeeper/captures"}
    sagemaker.create_device_fleet(DeviceFleetName=name, OutputConfig=output)
    return name


def test_a_device_goes_from_one_command_to_its_calls(
    hub: RunningHub, sagemaker: Any, yard: str, tmp_path: Path
) -> None:
    """Added, it is registered, gets credentials, keeps captures and speaks for itself alone; revoked, all that ends."""
    code, said, complaint = run(hub, "device", "add", "cam-1", "--fleet", yard, folder=tmp_path)
    assert (code, complaint) == (0, "")
    assert "copy this folder to the device" in said
    assert sagemaker.describe_device(DeviceName="cam-1", DeviceFleetName=yard)["IotThingName"] == "cam-1"
    status, answer = credentials(tmp_path / "cam-1")
    assert status == 200
    s3 = device_client("s3", hub.addresses.s3_endpoint, answer)
    s3.put_object(Bucket="lightkeeper", Key=f"captures/{yard}/cam-1/x", Body=b"{}")
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.put_object(Bucket="lightkeeper", Key=f"captures/{yard}/cam-2/x", Body=b"{}")
    edge = device_client("sagemaker-edge", hub.endpoint, answer)
    registration = edge.get_device_registration(DeviceName="cam-1", DeviceFleetName=yard)
    assert registration["DeviceRegistration"]
    with pytest.raises(ClientError, match="AccessDenied"):
        edge.get_device_registration(DeviceName="cam-2", DeviceFleetName=yard)
    control = device_client("sagemaker", hub.endpoint, answer)
    with pytest.raises(ClientError, match="AccessDenied"):
        control.list_device_fleets()
    assert run(hub, "device", "revoke", "cam-1", "--fleet", yard, folder=tmp_path)[0] == 0
    with pytest.raises(ClientError) as refused:
        edge.get_device_registration(DeviceName="cam-1", DeviceFleetName=yard)
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    assert credentials(tmp_path / "cam-1")[0] == 403
    code, said, _ = run(hub, "audit", "--json", folder=tmp_path)
    events = {row["event"] for row in json.loads(said) if row["thing"] == "cam-1"}
    assert {
        "DEVICE_CERTIFICATE_ISSUED",
        "CREDENTIALS_ISSUED",
        "DEVICE_CERTIFICATES_REVOKED",
        "DEVICE_CERTIFICATE_REVOKED",
    } <= events


def test_an_alias_is_closed_from_the_command_line_and_the_api(
    hub: RunningHub, sagemaker: Any, yard: str, tmp_path: Path
) -> None:
    """Both ways mean the same alias."""
    assert run(hub, "device", "add", "cam-1", "--fleet", yard, "--output", "here", folder=tmp_path)[0] == 0
    assert run(hub, "alias", "close", yard, folder=tmp_path)[0] == 0
    assert credentials(tmp_path / "here")[0] == 403
    output = {"S3OutputLocation": "s3://lightkeeper/captures"}
    sagemaker.update_device_fleet(DeviceFleetName=yard, OutputConfig=output, EnableIotRoleAlias=True)
    assert credentials(tmp_path / "here")[0] == 200


def test_a_refused_command_says_why_and_what_to_do(hub: RunningHub, yard: str, tmp_path: Path) -> None:
    """Exit code 1, the reason, the next step; with --json as a document."""
    (tmp_path / "bad.csr").write_text("no request")
    given = ("device", "add", "cam-1", "--fleet", yard, "--csr")
    code, said, _ = run(hub, *given, "bad.csr", "--json", folder=tmp_path)
    assert (code, json.loads(said)["error"]["reason"]) == (1, "SIGNING_REQUEST_UNUSABLE")
    code, _, complaint = run(hub, *given, "none.csr", folder=tmp_path)
    assert code == 1
    assert "openssl req" in complaint
    code, _, complaint = run(hub, "device", "add", "cam-1", "--fleet", "nobody", folder=tmp_path)
    assert (code, "[FLEET_UNKNOWN]" in complaint) == (1, True)
    code, _, complaint = run(hub, "device", "revoke", "nobody", folder=tmp_path)
    assert (code, "[DEVICE_UNKNOWN]" in complaint) == (1, True)
    addressed = ("device", "add", "cam-1", "--fleet", yard, "--key-address")
    code, _, complaint = run(hub, *addressed, "pkcs11:object=k", folder=tmp_path)
    assert (code, "give --csr" in complaint) == (1, True)
    code, _, complaint = run(hub, *addressed, "pkcs11:object=k?pin-value=4711", "--csr", "bad.csr", folder=tmp_path)
    assert (code, "write pin-source" in complaint, "4711" in complaint) == (2, True, False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.csr"]
