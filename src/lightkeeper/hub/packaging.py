"""Edge packaging jobs: Create-, Describe-, List- and StopEdgePackagingJob."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightkeeper.errors import JobNotEnded, JobUnsupported, NameInvalid, VersionInvalid
from lightkeeper.hub.arns import arn
from lightkeeper.hub.compilation import refuse_key
from lightkeeper.hub.context import Context
from lightkeeper.hub.jobs import ENDED, Job, Jobs, Kind, Status
from lightkeeper.hub.objects import Address
from lightkeeper.names import check_model_name, check_model_version

Input = Mapping[str, Any]
Output = dict[str, Any]

KEPT = ("CompilationJobName", "ModelName", "ModelVersion", "RoleArn", "OutputConfig")
"""What Describe gives back as it was given."""

NO_GREENGRASS = "this hub makes no Greengrass components; give the package at ModelArtifact to one as its artifact"


def create(context: Context, given: Input) -> Output:
    """CreateEdgePackagingJob, of a compilation job that is COMPLETED.

    Raises `JobUnsupported`, `JobUnknown`, `JobNotEnded`, `ObjectAddressInvalid`, `JobNameTaken`, `JobLimit`.
    """
    refuse_key(given, "ResourceKey")
    refuse_key(given["OutputConfig"], "KmsKeyId")
    try:
        check_model_name(given["ModelName"])
        check_model_version(given["ModelVersion"])
    except (NameInvalid, VersionInvalid) as error:
        raise JobUnsupported(f"{error.message}: {error.next_step}") from error
    Address.parse_prefix(given["OutputConfig"]["S3OutputLocation"])
    jobs = _jobs(context)
    compiled = jobs.get(Kind.COMPILATION, given["CompilationJobName"])
    if compiled.status not in ENDED:
        raise JobNotEnded(f"the compilation job {compiled.name} is {compiled.status}", job=compiled.name)
    if compiled.status is not Status.COMPLETED:
        raise JobUnsupported(f"the compilation job {compiled.name} is {compiled.status}: it has made no model")
    request = {member: given[member] for member in KEPT}
    name = given["EdgePackagingJobName"]
    jobs.create(Kind.PACKAGING, name, request, given["ModelName"], limit=context.settings.jobs_limit)
    return {}


def describe(context: Context, given: Input) -> Output:
    """DescribeEdgePackagingJob. Raises `JobUnknown`."""
    job = _jobs(context).get(Kind.PACKAGING, given["EdgePackagingJobName"])
    answer = {
        "EdgePackagingJobArn": _arn(context, job.name),
        "EdgePackagingJobName": job.name,
        "EdgePackagingJobStatus": job.status,
        "EdgePackagingJobStatusMessage": job.reason,
        "CreationTime": job.created_ms,
        "LastModifiedTime": job.modified_ms,
        **job.request,
    }
    if job.artifact is not None:
        answer["ModelArtifact"] = job.artifact.uri
        answer["ModelSignature"] = job.artifact.facts["digest"]
    preset = job.request["OutputConfig"].get("PresetDeploymentType")
    if preset is not None and job.status is Status.COMPLETED:
        answer["PresetDeploymentOutput"] = {"Type": preset, "Status": "FAILED", "StatusMessage": NO_GREENGRASS}
    return answer


def stop(context: Context, given: Input) -> Output:
    """StopEdgePackagingJob. Raises `JobUnknown`, `JobEnded`."""
    _jobs(context).stop(Kind.PACKAGING, given["EdgePackagingJobName"])
    return {}


def summary(context: Context, job: Job) -> Output:
    """Return a job as ListEdgePackagingJobs shows it."""
    return {
        "EdgePackagingJobArn": _arn(context, job.name),
        "EdgePackagingJobName": job.name,
        "EdgePackagingJobStatus": job.status,
        **{member: job.request[member] for member in ("CompilationJobName", "ModelName", "ModelVersion")},
        "CreationTime": job.created_ms,
        "LastModifiedTime": job.modified_ms,
    }


def _jobs(context: Context) -> Jobs:
    return Jobs(context, lambda: context.now_ms)


def _arn(context: Context, name: str) -> str:
    return arn(context.settings, "edge-packaging-job", name)
