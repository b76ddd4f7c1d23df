"""Deployment plans and the device data plane, as scripts and devices see them, by boto3 and the AWS CLI."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support.hubs import RunningHub
from tests.support.rollouts import Rollouts

Client = Any
DEVICES = [f"cam-{number}" for number in range(4)] + ["turbine-0"]
ALL = {"DeviceSubsetType": "PERCENTAGE", "Percentage": 100}


@pytest.fixture
def cameras(sagemaker: Client, fleet: str) -> str:
    """A fleet of four cameras and a turbine."""
    sagemaker.register_devices(
        DeviceFleetName=fleet, Devices=[{"DeviceName": name, "Description": f"the {name}"} for name in DEVICES]
    )
    return fleet


@pytest.fixture
def package(hub: RunningHub, unique: Callable[[], str]) -> str:
    """A packaging job that has made its package."""
    name = unique()
    Rollouts(hub.database).add_package(name)
    return name


@pytest.fixture(scope="session")
def edge(hub: RunningHub) -> Client:
    """A client of the data plane; the operator's key may act for any device."""
    return hub.client("sagemaker-edge")


def plan_of(sagemaker: Client, name: str, fleet: str, package: str, *stages: dict[str, Any], **more: Any) -> str:
    """Make a plan and return its ARN."""
    made = sagemaker.create_edge_deployment_plan(
        EdgeDeploymentPlanName=name,
        ModelConfigs=[{"ModelHandle": "eye", "EdgePackagingJobName": package}],
        DeviceFleetName=fleet,
        Stages=list(stages),
        **more,
    )
    return str(made["EdgeDeploymentPlanArn"])


def stage_of(name: str, chosen: dict[str, Any] | None = None) -> dict[str, Any]:
    """Make a stage."""
    return {"StageName": name, "DeviceSelectionConfig": chosen or ALL}


def wait_for(sagemaker: Client, plan: str, status: str) -> dict[str, Any]:
    """Wait until a plan's first stage has a status, and return what is said of it."""
    deadline = time.monotonic() + 30
    while True:
        described = sagemaker.describe_edge_deployment_plan(EdgeDeploymentPlanName=plan)
        found: dict[str, Any] = described["Stages"][0]["DeploymentStatus"]
        if found["StageStatus"] == status:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def refused(call: Callable[..., Any], code: str, reason: str, **given: Any) -> None:
    """Check that a call is refused with the service's code and our reason."""
    with pytest.raises(ClientError) as caught:
        call(**given)
    assert caught.value.response["Error"]["Code"] == code
    assert f"[{reason}]" in caught.value.response["Error"]["Message"]


def test_a_plan_goes_from_creation_to_deployed(
    sagemaker: Client, edge: Client, cameras: str, package: str, unique: Callable[[], str]
) -> None:
    """Created with two stages, described, listed, started, taken by its device, reported, and deleted."""
    plan = unique()
    chosen = {"DeviceSubsetType": "SELECTION", "DeviceNames": ["cam-1"]}
    arn = plan_of(sagemaker, plan, cameras, package, stage_of("canary", chosen), stage_of("rest"))
    described = sagemaker.describe_edge_deployment_plan(EdgeDeploymentPlanName=plan)
    assert described["EdgeDeploymentPlanArn"] == arn
    assert described["ModelConfigs"] == [{"ModelHandle": "eye", "EdgePackagingJobName": package}]
    assert [described[f"EdgeDeployment{word}"] for word in ("Success", "Pending", "Failed")] == [0, 5, 0]
    assert [one["DeploymentStatus"]["EdgeDeploymentPendingInStage"] for one in described["Stages"]] == [1, 4]
    assert described["Stages"][0]["DeploymentConfig"] == {"FailureHandlingPolicy": "ROLLBACK_ON_FAILURE"}

    sagemaker.start_edge_deployment_stage(EdgeDeploymentPlanName=plan, StageName="canary")
    wait_for(sagemaker, plan, "INPROGRESS")
    who = {"DeviceName": "cam-1", "DeviceFleetName": cameras}
    deadline = time.monotonic() + 30
    while not (told := edge.get_deployments(**who)["Deployments"]):
        assert time.monotonic() < deadline
    listed = sagemaker.list_stage_devices(EdgeDeploymentPlanName=plan, StageName="canary")
    (device,) = listed["DeviceDeploymentSummaries"]
    assert device["DeviceDeploymentStatus"] == "INPROGRESS"
    assert (device["DeviceName"], device["DeployedStageName"], device["Description"]) == (
        "cam-1",
        "canary",
        "the cam-1",
    )
    edge.send_heartbeat(
        **who,
        AgentVersion="1.0",
        DeploymentResult={"DeploymentName": told[0]["DeploymentName"], "DeploymentStatus": "SUCCESS"},
    )
    status = wait_for(sagemaker, plan, "DEPLOYED")
    assert status["EdgeDeploymentSuccessInStage"] == 1
    assert "EdgeDeploymentStageStartTime" in status
    sagemaker.delete_edge_deployment_plan(EdgeDeploymentPlanName=plan)
    refused(sagemaker.describe_edge_deployment_plan, "ResourceNotFound", "PLAN_UNKNOWN", EdgeDeploymentPlanName=plan)


def test_devices_of_a_stage_are_listed_before_it_starts(
    sagemaker: Client, cameras: str, package: str, unique: Callable[[], str]
) -> None:
    """Page by page, those it would choose now; devices that an earlier stage has are shown with that stage or left."""
    plan = unique()
    first = {"DeviceSubsetType": "SELECTION", "DeviceNames": ["cam-2"]}
    by_name = {"DeviceSubsetType": "NAMECONTAINS", "DeviceNameContains": "cam"}
    plan_of(sagemaker, plan, cameras, package, stage_of("first", first), stage_of("cams", by_name))
    sagemaker.start_edge_deployment_stage(EdgeDeploymentPlanName=plan, StageName="first")
    wait_for(sagemaker, plan, "INPROGRESS")

    def names(**more: Any) -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        token: dict[str, str] = {}
        while True:
            page = sagemaker.list_stage_devices(
                EdgeDeploymentPlanName=plan, StageName="cams", MaxResults=2, **token, **more
            )
            assert len(page["DeviceDeploymentSummaries"]) <= 2
            for one in page["DeviceDeploymentSummaries"]:
                found[one["DeviceName"]] = one.get("DeployedStageName")
            if "NextToken" not in page:
                return found
            token = {"NextToken": page["NextToken"]}

    assert names() == {"cam-0": None, "cam-1": None, "cam-2": "first", "cam-3": None}
    assert names(ExcludeDevicesDeployedInOtherStage=True) == {"cam-0": None, "cam-1": None, "cam-3": None}


def test_plans_are_listed_by_name_fleet_and_time(
    sagemaker: Client, cameras: str, package: str, unique: Callable[[], str]
) -> None:
    """Filters hold together, and the order is the one asked for."""
    word = unique()
    names = [f"{word}-{letter}" for letter in "bca"]
    for name in names:
        plan_of(sagemaker, name, cameras, package, stage_of("all"))

    def listed(**more: Any) -> list[str]:
        found = sagemaker.list_edge_deployment_plans(NameContains=word, **more)["EdgeDeploymentPlanSummaries"]
        assert all(one["EdgeDeploymentPending"] == 5 for one in found)
        return [one["EdgeDeploymentPlanName"] for one in found]

    assert listed(SortBy="NAME") == sorted(names)
    assert listed(SortBy="NAME", SortOrder="Descending") == sorted(names, reverse=True)
    assert listed(SortBy="CREATION_TIME", DeviceFleetNameContains=cameras) == names
    assert listed(DeviceFleetNameContains="nowhere") == []


def test_a_plan_that_can_not_be_is_refused(
    hub: RunningHub, sagemaker: Client, cameras: str, package: str, unique: Callable[[], str]
) -> None:
    """Each with its reason, and nothing of it is made."""
    name, unready = unique(), unique()
    Rollouts(hub.database).add_package(unready, status="FAILED")
    good: dict[str, Any] = {
        "EdgeDeploymentPlanName": name,
        "ModelConfigs": [{"ModelHandle": "eye", "EdgePackagingJobName": package}],
        "DeviceFleetName": cameras,
        "Stages": [stage_of("all")],
    }
    twice = good["ModelConfigs"] * 2
    nobody = {"DeviceSubsetType": "SELECTION", "DeviceNames": ["cam-1", "stranger"]}
    for code, reason, change in (
        ("ResourceNotFound", "FLEET_UNKNOWN", {"DeviceFleetName": "nowhere"}),
        ("ValidationException", "PLAN_INVALID", {"ModelConfigs": twice}),
        ("ValidationException", "PLAN_INVALID", {"ModelConfigs": []}),
        (
            "ValidationException",
            "PACKAGE_NOT_READY",
            {"ModelConfigs": [{"ModelHandle": "eye", "EdgePackagingJobName": unready}]},
        ),
        ("ValidationException", "SELECTION_INVALID", {"Stages": [stage_of("all", nobody)]}),
        ("ValidationException", "SELECTION_INVALID", {"Stages": [stage_of("all", {"DeviceSubsetType": "SELECTION"})]}),
        ("ValidationException", "ITEM_DUPLICATE", {"Stages": [stage_of("all"), stage_of("all")]}),
        ("ResourceLimitExceeded", "STAGE_LIMIT", {"Stages": [stage_of(f"stage-{n}") for n in range(11)]}),
        ("ValidationException", "PLAN_TAG_INVALID", {"Tags": [{"Key": "lightkeeper:batchsize", "Value": "1"}]}),
        ("ValidationException", "PLAN_TAG_INVALID", {"Tags": [{"Key": "lightkeeper:batch-size", "Value": "1.5"}]}),
    ):
        refused(sagemaker.create_edge_deployment_plan, code, reason, **good | change)
    assert sagemaker.list_edge_deployment_plans(NameContains=name)["EdgeDeploymentPlanSummaries"] == []
    sagemaker.create_edge_deployment_plan(**good, Tags=[{"Key": "team", "Value": "north"}])
    refused(sagemaker.create_edge_deployment_plan, "ResourceInUse", "PLAN_EXISTS", **good)
    refused(sagemaker.delete_device_fleet, "ResourceInUse", "FLEET_OCCUPIED", DeviceFleetName=cameras)


def test_stages_are_added_stopped_and_deleted(
    sagemaker: Client, cameras: str, package: str, unique: Callable[[], str]
) -> None:
    """What a stage's status does not allow is refused."""
    plan = unique()
    plan_of(sagemaker, plan, cameras, package, stage_of("one"))
    sagemaker.create_edge_deployment_stage(EdgeDeploymentPlanName=plan, Stages=[stage_of("two")])
    one = {"EdgeDeploymentPlanName": plan, "StageName": "one"}
    refused(
        sagemaker.create_edge_deployment_stage,
        "ResourceInUse",
        "STAGE_EXISTS",
        EdgeDeploymentPlanName=plan,
        Stages=[stage_of("two")],
    )
    refused(sagemaker.stop_edge_deployment_stage, "ConflictException", "STAGE_NOT_RUNNING", **one)
    refused(sagemaker.start_edge_deployment_stage, "ResourceNotFound", "STAGE_UNKNOWN", **one | {"StageName": "three"})
    sagemaker.start_edge_deployment_stage(**one)
    refused(sagemaker.start_edge_deployment_stage, "ConflictException", "STAGE_NOT_STARTABLE", **one)
    refused(sagemaker.delete_edge_deployment_stage, "ResourceInUse", "STAGE_ACTIVE", **one)
    refused(sagemaker.delete_edge_deployment_plan, "ResourceInUse", "PLAN_ACTIVE", EdgeDeploymentPlanName=plan)
    sagemaker.stop_edge_deployment_stage(**one)
    assert wait_for(sagemaker, plan, "STOPPED")["EdgeDeploymentStatusMessage"]
    sagemaker.delete_edge_deployment_stage(**one)
    described = sagemaker.describe_edge_deployment_plan(EdgeDeploymentPlanName=plan)
    assert [stage["StageName"] for stage in described["Stages"]] == ["two"]
    sagemaker.delete_edge_deployment_plan(EdgeDeploymentPlanName=plan)


def test_a_plans_tags_are_there_and_go_with_it(
    sagemaker: Client, cameras: str, package: str, unique: Callable[[], str]
) -> None:
    """Ours say how the plan is rolled out, others are the operator's."""
    plan = unique()
    given = [{"Key": "lightkeeper:batch-size", "Value": "2"}, {"Key": "team", "Value": "north"}]
    arn = plan_of(sagemaker, plan, cameras, package, stage_of("all"), Tags=given)
    assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == given
    sagemaker.delete_edge_deployment_plan(EdgeDeploymentPlanName=plan)
    refused(sagemaker.list_tags, "ResourceNotFound", "TAGGED_RESOURCE_UNKNOWN", ResourceArn=arn)


def test_a_device_asks_whether_it_is_registered(edge: Client, cameras: str) -> None:
    """The answer is a word and how long to rely on it."""
    known = edge.get_device_registration(DeviceName="cam-0", DeviceFleetName=cameras)
    assert (known["DeviceRegistration"], known["CacheTTL"]) == ("Registered", "3600")
    unknown = edge.get_device_registration(DeviceName="stranger", DeviceFleetName=cameras)
    assert unknown["DeviceRegistration"] == "NotRegistered"
    refused(edge.get_deployments, "ResourceNotFound", "DEVICE_UNKNOWN", DeviceName="stranger", DeviceFleetName=cameras)


def test_a_heartbeat_is_seen_in_the_fleet(sagemaker: Client, edge: Client, cameras: str) -> None:
    """DescribeDevice and the fleet's report say what the device said."""
    now = time.time()
    edge.send_heartbeat(
        DeviceName="cam-0",
        DeviceFleetName=cameras,
        AgentVersion="1.0",
        AgentMetrics=[{"MetricName": "Crashes", "Value": 1.0, "Timestamp": now}],
        Models=[{"ModelName": "detector", "ModelVersion": "1.2", "LatestInference": now, "LatestSampleTime": now}],
    )
    device = sagemaker.describe_device(DeviceName="cam-0", DeviceFleetName=cameras)
    assert device["AgentVersion"] == "1.0"
    assert [(model["ModelName"], model["ModelVersion"]) for model in device["Models"]] == [("detector", "1.2")]
    report = sagemaker.get_device_fleet_report(DeviceFleetName=cameras)
    assert report["DeviceStats"] == {"ConnectedDeviceCount": 1, "RegisteredDeviceCount": 5}


def test_the_aws_cli_rolls_out_as_the_documentation_says(
    hub: RunningHub, sagemaker: Client, cameras: str, package: str, unique: Callable[[], str]
) -> None:
    """The commands of docs/hub.md, with names of their own."""
    plan = unique()
    page = (Path(__file__).parents[2] / "docs" / "hub.md").read_text()
    script = page.split("```\naws sagemaker create-edge-deployment-plan", 1)[1].split("```", 1)[0]
    for of_the_page, ours in (("=eye-2", f"={package}"), ("plan-name eye-2", f"plan-name {plan}"), ("yard", cameras)):
        assert of_the_page in script
        script = script.replace(of_the_page, ours)
    done = subprocess.run(
        ["sh", "-ec", f"aws sagemaker create-edge-deployment-plan{script}"],
        env=os.environ | hub.addresses.environment() | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f'"EdgeDeploymentPlanName": "{plan}"' in done.stdout
    assert '"DeviceName": "cam-1"' in done.stdout
    described = sagemaker.describe_edge_deployment_plan(EdgeDeploymentPlanName=plan)
    assert [stage["StageName"] for stage in described["Stages"]] == ["canary", "rest"]
    assert described["Stages"][0]["DeploymentStatus"]["StageStatus"] in {"STARTING", "INPROGRESS"}
