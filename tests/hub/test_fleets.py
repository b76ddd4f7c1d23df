"""Device fleets through boto3."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

OUTPUT = {"S3OutputLocation": "s3://bucket/captures"}


def test_a_fleet_is_described_as_it_was_made(sagemaker: Any, unique: Callable[[], str]) -> None:
    """Every member comes back."""
    name = unique()
    role = "arn:aws:iam::123456789012:role/edge"
    made = sagemaker.create_device_fleet(
        DeviceFleetName=name, OutputConfig=OUTPUT, Description="the yard", RoleArn=role, EnableIotRoleAlias=True
    )
    assert made["ResponseMetadata"]["HTTPStatusCode"] == 200
    found = sagemaker.describe_device_fleet(DeviceFleetName=name)
    assert found["DeviceFleetName"] == name
    assert found["DeviceFleetArn"] == f"arn:aws:sagemaker:us-east-1:000000000000:device-fleet/{name}"
    assert (found["Description"], found["RoleArn"], found["OutputConfig"]) == ("the yard", role, OUTPUT)
    assert found["IotRoleAlias"].endswith(f":rolealias/SageMakerEdge-{name}")
    assert found["CreationTime"] == found["LastModifiedTime"]


def test_a_second_fleet_of_a_name_is_refused(sagemaker: Any, fleet: str) -> None:
    """With the code and the class the SDK has for it."""
    with pytest.raises(sagemaker.exceptions.ResourceInUse) as caught:
        sagemaker.create_device_fleet(DeviceFleetName=fleet, OutputConfig=OUTPUT)
    assert "FLEET_EXISTS" in caught.value.response["Error"]["Message"]


def test_an_unknown_fleet_is_not_found(sagemaker: Any) -> None:
    """With the code and the class the SDK has for it."""
    with pytest.raises(sagemaker.exceptions.ResourceNotFound):
        sagemaker.describe_device_fleet(DeviceFleetName="nobody")


def test_a_wrong_name_is_a_validation_error(sagemaker: Any) -> None:
    """The rule and the member are named."""
    with pytest.raises(ClientError) as caught:
        sagemaker.create_device_fleet(DeviceFleetName="no_underscores", OutputConfig=OUTPUT)
    assert caught.value.response["Error"]["Code"] == "ValidationException"
    assert "'deviceFleetName'" in caught.value.response["Error"]["Message"]


def test_fleets_are_listed_in_the_order_asked_for(sagemaker: Any, unique: Callable[[], str]) -> None:
    """By name or time, up or down, filtered by a part of the name, over several pages."""
    part = f"{unique()}x"
    made = [f"{part}-{letter}" for letter in "bca"]
    for name in made:
        sagemaker.create_device_fleet(DeviceFleetName=name, OutputConfig=OUTPUT)

    def listed(**given: Any) -> list[str]:
        pages = sagemaker.get_paginator("list_device_fleets").paginate(NameContains=part, MaxResults=2, **given)
        return [fleet["DeviceFleetName"] for page in pages for fleet in page["DeviceFleetSummaries"]]

    assert listed(SortBy="NAME") == sorted(made)
    assert listed(SortBy="NAME", SortOrder="Descending") == sorted(made, reverse=True)
    sagemaker.update_device_fleet(DeviceFleetName=made[0], OutputConfig=OUTPUT, Description="changed")
    assert listed(SortBy="LAST_MODIFIED_TIME", SortOrder="Descending")[0] == made[0]
    assert set(listed()) == set(made)
    assert listed(CreationTimeAfter=4_000_000_000) == []
    assert sagemaker.describe_device_fleet(DeviceFleetName=made[0])["Description"] == "changed"


@pytest.mark.parametrize(
    ("given", "made"), [({}, True), ({"EnableIotRoleAlias": True}, True), ({"EnableIotRoleAlias": False}, False)]
)
def test_a_fleet_has_a_role_alias_unless_it_is_told_not_to(
    sagemaker: Any, unique: Callable[[], str], given: dict[str, bool], made: bool
) -> None:
    """Where the call does not say, there is one, since nothing else makes it; an update without a word leaves it so."""
    name = unique()
    sagemaker.create_device_fleet(DeviceFleetName=name, OutputConfig=OUTPUT, **given)
    sagemaker.update_device_fleet(DeviceFleetName=name, OutputConfig=OUTPUT, Description="changed")
    assert ("IotRoleAlias" in sagemaker.describe_device_fleet(DeviceFleetName=name)) is made
    sagemaker.update_device_fleet(DeviceFleetName=name, OutputConfig=OUTPUT, EnableIotRoleAlias=not made)
    assert ("IotRoleAlias" in sagemaker.describe_device_fleet(DeviceFleetName=name)) is not made
