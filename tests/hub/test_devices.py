"""Devices of a fleet and the fleet's report, through boto3."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lightkeeper.hub import latest
from lightkeeper.hub.up import now_ms
from tests.support.hubs import RunningHub


def beat(
    hub: RunningHub, fleet: str, device: str, *models: dict[str, Any], version: str = "1.0", at_ms: int = 0
) -> None:
    """Leave what a heartbeat leaves in the device's row."""
    given = {"DeviceFleetName": fleet, "DeviceName": device, "AgentVersion": version, "Models": list(models)}
    with hub.database.write() as connection:
        assert latest.keep(connection, given, at_ms or now_ms())


def names(answer: dict[str, Any]) -> list[str]:
    """Return the names of a list of devices."""
    return [device["DeviceName"] for device in answer["DeviceSummaries"]]


def register(sagemaker: Any, fleet: str, *devices: str) -> None:
    """Register devices of these names."""
    sagemaker.register_devices(DeviceFleetName=fleet, Devices=[{"DeviceName": name} for name in devices])


def test_a_device_is_described_as_it_was_registered(sagemaker: Any, fleet: str) -> None:
    """It has no heartbeat yet."""
    device = {"DeviceName": "cam-1", "Description": "at the gate", "IotThingName": "thing-1"}
    sagemaker.register_devices(DeviceFleetName=fleet, Devices=[device])
    found = sagemaker.describe_device(DeviceFleetName=fleet, DeviceName="cam-1")
    assert {name: found[name] for name in device} == device
    assert found["DeviceArn"].endswith(f":device-fleet/{fleet}/device/cam-1")
    assert found["Models"] == []
    assert "LatestHeartbeat" not in found


def test_a_device_says_what_its_last_heartbeat_said(sagemaker: Any, hub: RunningHub, fleet: str) -> None:
    """Agent version, models, times; what is longer than the answer's shape allows is cut to it."""
    register(sagemaker, fleet, "cam-1")
    long = "m" * 62 + "-" + "m" * 100
    model = {"ModelName": "ocr-model", "ModelVersion": "1.0", "LatestInference": now_ms()}
    beat(hub, fleet, "cam-1", model, {"ModelName": long, "ModelVersion": "2" * 64}, version="v" * 64)
    found = sagemaker.describe_device(DeviceFleetName=fleet, DeviceName="cam-1")
    assert found["AgentVersion"] == "v" * 30
    assert [(one["ModelName"], one["ModelVersion"]) for one in found["Models"]] == [
        ("ocr-model", "1.0"),
        ("m" * 62, "2" * 30),
    ]
    assert found["LatestHeartbeat"] >= found["Models"][0]["LatestInference"]


def test_devices_registered_again_as_they_are_change_nothing(sagemaker: Any, fleet: str) -> None:
    """A call whose answer was lost can be repeated."""
    register(sagemaker, fleet, "a", "b")
    first = sagemaker.describe_device(DeviceFleetName=fleet, DeviceName="a")["RegistrationTime"]
    register(sagemaker, fleet, "a", "b", "c")
    assert names(sagemaker.list_devices(DeviceFleetName=fleet)) == ["a", "b", "c"]
    assert sagemaker.describe_device(DeviceFleetName=fleet, DeviceName="a")["RegistrationTime"] == first


def test_a_device_registered_otherwise_is_refused_with_all_of_its_call(sagemaker: Any, fleet: str) -> None:
    """All or none."""
    register(sagemaker, fleet, "a")
    with pytest.raises(sagemaker.exceptions.ResourceInUse):
        sagemaker.register_devices(
            DeviceFleetName=fleet, Devices=[{"DeviceName": "b"}, {"DeviceName": "a", "Description": "another"}]
        )
    assert names(sagemaker.list_devices(DeviceFleetName=fleet)) == ["a"]


def test_devices_are_listed_page_by_page(sagemaker: Any, fleet: str) -> None:
    """boto3's own paginator gets each once, though devices come and go meanwhile."""
    register(sagemaker, fleet, *(f"cam-{number:03}" for number in range(25)))
    pages = sagemaker.get_paginator("list_devices").paginate(DeviceFleetName=fleet, MaxResults=10)
    found = []
    for number, page in enumerate(pages):
        found += names(page)
        if number == 0:
            sagemaker.deregister_devices(DeviceFleetName=fleet, DeviceNames=["cam-003", "cam-009"])
    assert found == [f"cam-{number:03}" for number in range(25)]


@pytest.mark.parametrize("token", ["", "x", "W10=", "WzFd", "é", "W" * 8000])
def test_a_made_up_token_is_refused(sagemaker: Any, fleet: str, token: str) -> None:
    """Never another page; an empty one is the first."""
    if token:
        with pytest.raises(sagemaker.exceptions.ClientError, match=r"PAGE_TOKEN_INVALID|SHAPE_MISMATCH"):
            sagemaker.list_devices(DeviceFleetName=fleet, NextToken=token)
    else:
        assert names(sagemaker.list_devices(DeviceFleetName=fleet, NextToken=token)) == []


def test_a_token_of_another_listing_is_refused(sagemaker: Any, fleet: str) -> None:
    """The parameters stay the same from page to page."""
    register(sagemaker, fleet, "a", "b")
    token = sagemaker.list_devices(DeviceFleetName=fleet, MaxResults=1)["NextToken"]
    assert names(sagemaker.list_devices(DeviceFleetName=fleet, MaxResults=5, NextToken=token)) == ["b"]
    with pytest.raises(sagemaker.exceptions.ClientError, match="PAGE_TOKEN_INVALID"):
        sagemaker.list_devices(NextToken=token)


def test_devices_are_found_by_model_and_by_heartbeat(sagemaker: Any, hub: RunningHub, fleet: str) -> None:
    """The model's whole name counts, letters large and small."""
    register(sagemaker, fleet, "a", "b", "c")
    beat(hub, fleet, "a", {"ModelName": "ocr-large", "ModelVersion": "1"})
    beat(hub, fleet, "b", {"ModelName": "ocr", "ModelVersion": "1"}, {"ModelName": "face", "ModelVersion": "1"})
    found = sagemaker.list_devices(DeviceFleetName=fleet, ModelName="ocr")
    assert names(found) == ["b"]
    assert len(found["DeviceSummaries"][0]["Models"]) == 2
    assert names(sagemaker.list_devices(DeviceFleetName=fleet, ModelName="OCR")) == []
    assert names(sagemaker.list_devices(DeviceFleetName=fleet, LatestHeartbeatAfter=now_ms() / 1000 - 60)) == ["a", "b"]


def test_devices_are_changed_all_or_none(sagemaker: Any, fleet: str) -> None:
    """What is not given keeps its value."""
    sagemaker.register_devices(DeviceFleetName=fleet, Devices=[{"DeviceName": "a", "IotThingName": "thing"}])
    sagemaker.update_devices(DeviceFleetName=fleet, Devices=[{"DeviceName": "a", "Description": "new"}])
    with pytest.raises(sagemaker.exceptions.ResourceNotFound):
        sagemaker.update_devices(
            DeviceFleetName=fleet, Devices=[{"DeviceName": "a", "Description": "x"}, {"DeviceName": "nobody"}]
        )
    found = sagemaker.describe_device(DeviceFleetName=fleet, DeviceName="a")
    assert (found["Description"], found["IotThingName"]) == ("new", "thing")


def test_a_fleet_with_devices_is_not_deleted(sagemaker: Any, fleet: str) -> None:
    """Without them it is; to deregister a device twice is no error."""
    register(sagemaker, fleet, "a")
    with pytest.raises(sagemaker.exceptions.ResourceInUse, match="FLEET_OCCUPIED"):
        sagemaker.delete_device_fleet(DeviceFleetName=fleet)
    for _ in range(2):
        sagemaker.deregister_devices(DeviceFleetName=fleet, DeviceNames=["a"])
    sagemaker.delete_device_fleet(DeviceFleetName=fleet)
    with pytest.raises(sagemaker.exceptions.ResourceNotFound):
        sagemaker.list_devices(DeviceFleetName=fleet)


def test_the_report_counts_devices_agents_and_models(sagemaker: Any, hub: RunningHub, fleet: str) -> None:
    """A device that fell silent is offline, and its model neither active nor sampling."""
    register(sagemaker, fleet, "a", "b", "c", "d")
    now = now_ms()
    ocr = {"ModelName": "ocr-model", "ModelVersion": "1.0"}
    beat(hub, fleet, "a", {**ocr, "LatestInference": now, "LatestSampleTime": now})
    beat(hub, fleet, "b", {**ocr, "LatestInference": now - 3_600_000}, version="1.1")
    beat(hub, fleet, "c", {**ocr, "LatestInference": now}, at_ms=now - 3_600_000)
    found = sagemaker.get_device_fleet_report(DeviceFleetName=fleet)
    assert found["DeviceStats"] == {"ConnectedDeviceCount": 2, "RegisteredDeviceCount": 4}
    assert found["AgentVersions"] == [{"Version": "1.0", "AgentCount": 2}, {"Version": "1.1", "AgentCount": 1}]
    counts = {"OfflineDeviceCount": 1, "ConnectedDeviceCount": 2, "ActiveDeviceCount": 1, "SamplingDeviceCount": 1}
    assert found["ModelStats"] == [{**ocr, **counts}]
    assert abs(found["ReportGenerated"].timestamp() * 1000 - now) < 60_000


def test_tags_follow_their_resource(sagemaker: Any, unique: Callable[[], str]) -> None:
    """Made with it, added, removed, and gone with it."""
    name = unique()
    sagemaker.create_device_fleet(
        DeviceFleetName=name,
        OutputConfig={"S3OutputLocation": "s3://bucket"},
        Tags=[{"Key": "site", "Value": "nørd +1"}],
    )
    arn = sagemaker.describe_device_fleet(DeviceFleetName=name)["DeviceFleetArn"]
    sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "site", "Value": "south"}, {"Key": "owner", "Value": ""}])
    assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == [
        {"Key": "owner", "Value": ""},
        {"Key": "site", "Value": "south"},
    ]
    sagemaker.delete_tags(ResourceArn=arn, TagKeys=["owner"])
    with pytest.raises(sagemaker.exceptions.ResourceLimitExceeded):
        sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": f"key-{number}", "Value": ""} for number in range(50)])
    assert len(sagemaker.list_tags(ResourceArn=arn)["Tags"]) == 1
    sagemaker.delete_device_fleet(DeviceFleetName=name)
    with pytest.raises(sagemaker.exceptions.ResourceNotFound):
        sagemaker.list_tags(ResourceArn=arn)
    sagemaker.create_device_fleet(DeviceFleetName=name, OutputConfig={"S3OutputLocation": "s3://bucket"})
    assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == []
