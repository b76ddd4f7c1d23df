"""Any number of hub processes on one database: on PostgreSQL and on SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support.hubs import NOWHERE, RunningHub

OUTPUT = {"S3OutputLocation": "s3://bucket/captures"}


@pytest.fixture(params=["sqlite", "postgresql"])
def two(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[RunningHub, RunningHub]]:
    """Two hubs, each with a folder of its own, on one database."""
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").database()
    else:
        url = f"sqlite:///{tmp_path / 'shared.db'}"
    with ThreadPoolExecutor() as pool:  # at the same moment, on a database without tables
        made = [pool.submit(RunningHub, tmp_path / name, database=url, s3_endpoint=NOWHERE) for name in ("one", "two")]
    with ExitStack() as ending:
        first, second = (ending.enter_context(closing(one.result())) for one in made)
        yield first, second


def test_two_hubs_serve_one_fleet(two: tuple[RunningHub, RunningHub]) -> None:
    """One operator's key, and what one changes the other answers; pages too."""
    first, second = (hub.client("sagemaker") for hub in two)
    assert two[0].addresses.access_key_id == two[1].addresses.access_key_id
    first.create_device_fleet(DeviceFleetName="yard", OutputConfig=OUTPUT, Tags=[{"Key": "a", "Value": "b"}])
    names = [f"cam-{number}" for number in range(5)]
    second.register_devices(DeviceFleetName="yard", Devices=[{"DeviceName": name} for name in names])
    page = first.list_devices(DeviceFleetName="yard", MaxResults=3)
    rest = second.list_devices(DeviceFleetName="yard", NextToken=page["NextToken"])
    found = [device["DeviceName"] for device in page["DeviceSummaries"] + rest["DeviceSummaries"]]
    assert found == names
    assert second.list_tags(ResourceArn=first.describe_device_fleet(DeviceFleetName="yard")["DeviceFleetArn"])["Tags"]
    with pytest.raises(second.exceptions.ResourceInUse):
        second.create_device_fleet(DeviceFleetName="yard", OutputConfig=OUTPUT)


def test_the_same_change_at_the_same_time_is_made_once(two: tuple[RunningHub, RunningHub]) -> None:
    """Of many callers of both hubs one makes the fleet; the others are told that it is there."""
    clients = [hub.client("sagemaker") for hub in two for _ in range(4)]

    def create(client: Any) -> str:
        try:
            client.create_device_fleet(DeviceFleetName="yard", OutputConfig=OUTPUT)
        except ClientError as error:
            return str(error.response["Error"]["Code"])
        return "made"

    with ThreadPoolExecutor(len(clients)) as pool:
        outcomes = sorted(pool.map(create, clients))
    assert outcomes == ["ResourceInUse"] * (len(clients) - 1) + ["made"]


def test_a_fleet_is_never_deleted_under_a_device(two: tuple[RunningHub, RunningHub]) -> None:
    """To register and to delete at the same time ends one way or the other, on either hub."""
    first, second = (hub.client("sagemaker") for hub in two)

    outcomes: set[str] = set()

    def attempt(call: Any, **given: Any) -> bool:
        try:
            call(DeviceFleetName="yard", **given)
        except (first.exceptions.ClientError, second.exceptions.ClientError) as error:
            outcomes.add(error.response["Error"]["Code"])
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        for _ in range(5):
            first.create_device_fleet(DeviceFleetName="yard", OutputConfig=OUTPUT)
            registered = pool.submit(attempt, first.register_devices, Devices=[{"DeviceName": "cam"}])
            deleted = pool.submit(attempt, second.delete_device_fleet)
            assert registered.result() != deleted.result()
            if registered.result():
                first.deregister_devices(DeviceFleetName="yard", DeviceNames=["cam"])
                first.delete_device_fleet(DeviceFleetName="yard")
    assert outcomes <= {"ResourceInUse", "ResourceNotFound"}
