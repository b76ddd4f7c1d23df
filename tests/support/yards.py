"""A fleet on a running hub, behind a network that fails on command: what an operator and a test do with it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightkeeper.hub.folder import Addresses, read
from tests.support.devices import Device, eventually
from tests.support.faults import Fault, FaultProxy
from tests.support.hubs import HubProcess, client, command
from tests.support.jobs import ROLE, wait_for

BUCKET = "lightkeeper"
CAPTURES = "captures"


class Network:
    """What lies between the devices and the hub: the way to its API, to the credentials endpoint and to S3."""

    def __init__(self, addresses: Addresses) -> None:
        self.api, self.credentials, self.s3 = (
            FaultProxy(urlsplit(url).port or 0)
            for url in (addresses.endpoint, addresses.credentials_endpoint, addresses.s3_endpoint)
        )
        self._ports = {
            "sagemaker_edge_core_endpoint_override": self.api.port,
            "sagemaker_edge_provider_aws_iot_cred_endpoint": self.credentials.port,
            "lightkeeper_s3_endpoint": self.s3.port,
        }

    def keys(self, written: Mapping[str, str]) -> dict[str, object]:
        """Return the keys that lead a device here, from its own configuration."""
        return {
            key: urlsplit(written[key])._replace(netloc=f"127.0.0.1:{port}").geturl()
            for key, port in self._ports.items()
        }

    def all(self, fault: Fault | None) -> None:
        """Do the same to each way."""
        for proxy in (self.api, self.credentials, self.s3):
            proxy.fault = fault

    def close(self) -> None:
        """End all connections."""
        for proxy in (self.api, self.credentials, self.s3):
            proxy.close()


class Yard:
    """A fleet of its own, its devices and their network."""

    def __init__(self, hub: HubProcess, fleet: str, folder: Path) -> None:
        """Make the fleet; devices get folders in the folder."""
        self.hub, self.fleet, self.folder = hub, fleet, folder
        self.addresses = addresses = read(hub.folder)
        self.network = Network(addresses)
        self.devices: dict[str, Device] = {}
        self.sagemaker = client(addresses, "sagemaker")
        self.s3 = client(addresses, "s3", endpoint_url=addresses.s3_endpoint)
        self.sagemaker.create_device_fleet(
            DeviceFleetName=fleet, OutputConfig={"S3OutputLocation": f"s3://{BUCKET}/{CAPTURES}"}
        )

    def command(self, *words: str) -> str:
        """Run a command of the hub's that must succeed, and return what it printed."""
        code, said, complaint = command(self.hub.folder, *words, folder=self.folder)
        assert code == 0, complaint
        return said

    def add(
        self, name: str, settings: Mapping[str, object] | None = None, environment: Mapping[str, str] | None = None
    ) -> Device:
        """Add a device, and start its agent."""
        self.command("device", "add", name, "--fleet", self.fleet)
        config = self.folder / name / "config.json"
        keys = json.loads(config.read_text())
        config.write_text(json.dumps(keys | self.network.keys(keys)))
        return self.start(name, settings, environment)

    def start(
        self, name: str, settings: Mapping[str, object] | None = None, environment: Mapping[str, str] | None = None
    ) -> Device:
        """Start the agent of a device that was added, once more."""
        device = Device(self.folder / name, settings or {}, environment or {}).wait_until_started()
        self.devices[name] = device
        return device

    def report(self) -> dict[str, dict[str, str]]:
        """Return each device's models and versions, as `hub report --json` has them."""
        document = json.loads(self.command("report", self.fleet, "--json"))
        return {
            device["DeviceName"]: {model["ModelName"]: model["ModelVersion"] for model in device["Models"]}
            for device in document["Devices"]
        }

    def captured(self, device: str) -> Counter[str]:
        """Return how often each capture of a device is in the bucket, under the device's own prefix."""
        return Counter(json.loads(line)["eventMetadata"]["eventId"] for line in self._lines(device))

    def delivers(self, device: Device, ids: Sequence[str]) -> bool:
        """Have a device deliver now, and return whether the bucket has each of these captures once, and no other."""
        with device.client() as client:
            client.flush_captures(1)
        return self.captured(device.name) == Counter(ids)

    def _lines(self, device: str) -> Iterator[bytes]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=self.prefix(device))
        for item in (item for page in pages for item in page.get("Contents", ())):
            if item["Key"].endswith(".jsonl"):
                yield from self.s3.get_object(Bucket=BUCKET, Key=item["Key"])["Body"].read().splitlines()

    def prefix(self, device: str) -> str:
        """Return where a device's captures belong."""
        return f"{CAPTURES}/{self.fleet}/{device}/"

    def package(self, name: str, version: str, model: bytes, shapes: Mapping[str, Sequence[int]]) -> str:
        """Compile and package a model through the API, and return the packaging job's name."""
        job = f"{self.fleet}-{name}-{version.replace('.', '-')}"
        self.s3.put_object(Bucket=BUCKET, Key=f"models/{job}.onnx", Body=model)
        self.sagemaker.create_compilation_job(
            CompilationJobName=job,
            RoleArn=ROLE,
            InputConfig={
                "S3Uri": f"s3://{BUCKET}/models/{job}.onnx",
                "Framework": "ONNX",
                "DataInputConfig": json.dumps(shapes),
            },
            OutputConfig={
                "S3OutputLocation": f"s3://{BUCKET}/compiled",
                "TargetPlatform": {"Os": "LINUX", "Arch": "X86_64"},
            },
            StoppingCondition={"MaxRuntimeInSeconds": 900},
        )
        compiled = wait_for(
            lambda: self.sagemaker.describe_compilation_job(CompilationJobName=job), "CompilationJobStatus"
        )
        assert compiled["CompilationJobStatus"] == "COMPLETED", compiled
        self.sagemaker.create_edge_packaging_job(
            EdgePackagingJobName=job,
            CompilationJobName=job,
            ModelName=name,
            ModelVersion=version,
            RoleArn=ROLE,
            OutputConfig={"S3OutputLocation": f"s3://{BUCKET}/packages"},
        )
        packaged = wait_for(
            lambda: self.sagemaker.describe_edge_packaging_job(EdgePackagingJobName=job), "EdgePackagingJobStatus"
        )
        assert packaged["EdgePackagingJobStatus"] == "COMPLETED", packaged
        return job

    def plan(self, name: str, jobs: Mapping[str, str], stages: Mapping[str, Sequence[str]], **tags: object) -> None:
        """Make a plan of packaging jobs by handle, and of stages with the devices each has, in that order."""
        self.sagemaker.create_edge_deployment_plan(
            EdgeDeploymentPlanName=name,
            DeviceFleetName=self.fleet,
            ModelConfigs=[{"ModelHandle": handle, "EdgePackagingJobName": job} for handle, job in jobs.items()],
            Stages=[
                {
                    "StageName": stage,
                    "DeviceSelectionConfig": {"DeviceSubsetType": "SELECTION", "DeviceNames": list(devices)},
                    "DeploymentConfig": {"FailureHandlingPolicy": "ROLLBACK_ON_FAILURE"},
                }
                for stage, devices in stages.items()
            ],
            Tags=[{"Key": f"lightkeeper:{tag.replace('_', '-')}", "Value": str(value)} for tag, value in tags.items()],
        )

    def deploy(self, **jobs: str) -> None:
        """Have every device run what these packaging jobs made, under these handles."""
        plan = f"{self.fleet}-deployed"
        self.plan(plan, jobs, {"all": list(self.devices)}, batch_size=len(self.devices))
        self.start_stage(plan, "all")
        eventually(lambda: self.stage(plan, "all")["StageStatus"] == "DEPLOYED", *self.devices.values())

    def start_stage(self, plan: str, stage: str) -> None:
        """Begin with a stage."""
        self.sagemaker.start_edge_deployment_stage(EdgeDeploymentPlanName=plan, StageName=stage)

    def stage(self, plan: str, stage: str) -> dict[str, Any]:
        """Return how a stage stands."""
        found = self.sagemaker.describe_edge_deployment_plan(EdgeDeploymentPlanName=plan)["Stages"]
        status: dict[str, Any] = next(each for each in found if each["StageName"] == stage)["DeploymentStatus"]
        return status

    def stage_devices(self, plan: str, stage: str) -> dict[str, str]:
        """Return how each device of a stage stands."""
        pages = self.sagemaker.get_paginator("list_stage_devices").paginate(
            EdgeDeploymentPlanName=plan, StageName=stage
        )
        summaries = (each for page in pages for each in page["DeviceDeploymentSummaries"])
        return {each["DeviceName"]: each["DeviceDeploymentStatus"] for each in summaries}

    def close(self) -> None:
        """End the agents, each of which must end well, and the network."""
        codes = {name: device.stop() for name, device in self.devices.items()}
        self.network.close()
        assert set(codes.values()) <= {0}, codes
