"""From a model in a bucket to a package that devices trust, with boto3 and the AWS CLI alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lightkeeper.cli import run
from lightkeeper.hub.authority import package_authority
from tests.support import models
from tests.support.hubs import RunningHub
from tests.support.jobs import ROLE, wait_for


def test_a_model_becomes_a_package_that_devices_trust(hub: RunningHub, tmp_path: Path) -> None:
    """Compiled by boto3, packaged by the AWS CLI, and verified with the hub's own root."""
    store, sagemaker = hub.client("s3", endpoint_url=hub.addresses.s3_endpoint), hub.client("sagemaker")
    store.create_bucket(Bucket="chain")
    store.put_object(Bucket="chain", Key="models/net.onnx", Body=models.doubled(("n", 4)))
    sagemaker.create_compilation_job(
        CompilationJobName="net",
        RoleArn=ROLE,
        InputConfig={"S3Uri": "s3://chain/models/net.onnx", "Framework": "ONNX", "DataInputConfig": '{"x": [1, 4]}'},
        OutputConfig={
            "S3OutputLocation": "s3://chain/compiled",
            "TargetPlatform": {"Os": "LINUX", "Arch": "ARM64", "Accelerator": "NVIDIA"},
        },
        StoppingCondition={"MaxRuntimeInSeconds": 900},
    )
    compiled = wait_for(lambda: sagemaker.describe_compilation_job(CompilationJobName="net"), "CompilationJobStatus")
    assert compiled["CompilationJobStatus"] == "COMPLETED", compiled["FailureReason"]
    assert compiled["ModelArtifacts"]["S3ModelArtifacts"] == "s3://chain/compiled/net-LINUX_ARM64_NVIDIA.tar.gz"

    def aws(*words: str) -> dict[str, Any]:
        done = subprocess.run(
            [Path(sys.executable).with_name("aws"), "sagemaker", *words, "--endpoint-url", hub.endpoint],
            env=os.environ
            | {
                "AWS_ACCESS_KEY_ID": hub.addresses.access_key_id,
                "AWS_SECRET_ACCESS_KEY": hub.addresses.secret_access_key,
                "AWS_DEFAULT_REGION": hub.addresses.region,
            },
            capture_output=True,
            text=True,
            check=True,
        )
        answer: dict[str, Any] = json.loads(done.stdout or "{}")
        return answer

    job = ["--edge-packaging-job-name", "net"]
    words = ["--compilation-job-name", "net", "--model-name", "net", "--model-version", "1.0", "--role-arn", ROLE]
    aws("create-edge-packaging-job", *job, *words, "--output-config", "S3OutputLocation=s3://chain/packages")
    packaged = wait_for(lambda: aws("describe-edge-packaging-job", *job), "EdgePackagingJobStatus")
    assert packaged["EdgePackagingJobStatus"] == "COMPLETED", packaged["EdgePackagingJobStatusMessage"]
    assert packaged["ModelArtifact"] == "s3://chain/packages/net-1.0.tar.gz"

    path, roots = tmp_path / "net-1.0.tar.gz", tmp_path / "roots"
    store.download_file("chain", "packages/net-1.0.tar.gz", path)
    roots.mkdir()
    (roots / "root.pem").write_text(package_authority(hub.database, hub.addresses.region, datetime.now(UTC)).root)
    (roots / "root.pem").chmod(0o444)
    assert run(["verify", str(path), "--root-certs", str(roots), "--json"]) == 0
