"""Edge packaging jobs: Create-, Describe-, List- and StopEdgePackagingJob."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, select

from lightkeeper.errors import JobNotEnded, JobUnsupported, NameInvalid, VersionInvalid
from lightkeeper.hub import tags
from lightkeeper.hub.arns import arn
from lightkeeper.hub.compilation import listing_conditions, refuse_key
from lightkeeper.hub.context import Context
from lightkeeper.hub.jobs import ENDED, Job, Jobs, Kind, Status, job_of
from lightkeeper.hub.paging import matches, page
from lightkeeper.hub.tables.job import JOBS
from lightkeeper.names import check_model_name, check_model_version
from lightkeeper.objects import Address

Input = Mapping[str, Any]
Output = dict[str, Any]

KEPT = ("CompilationJobName", "ModelName", "ModelVersion", "RoleArn", "OutputConfig")
"""What Describe gives back as it was given."""

NO_GREENGRASS = "this hub makes no Greengrass components; give the package at ModelArtifact to one as its artifact"


_SORTED_BY: Mapping[str, tuple[ColumnElement[Any], ...]] = {
    "NAME": (JOBS.c.name,),
    "MODEL_NAME": (JOBS.c.model_name, JOBS.c.name),
    "CREATION_TIME": (JOBS.c.created_ms, JOBS.c.name),
    "LAST_MODIFIED_TIME": (JOBS.c.modified_ms, JOBS.c.name),
    "STATUS": (JOBS.c.status, JOBS.c.name),
}


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
    jobs.create(
        Kind.PACKAGING,
        name,
        request,
        model_name=given["ModelName"],
        limit=context.settings.jobs_limit,
        also=lambda connection: tags.keep(connection, _arn(context, name), given.get("Tags", ())),
    )
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


def list_jobs(context: Context, given: Input) -> Output:
    """ListEdgePackagingJobs, by creation time unless SortBy says else. Raises `PageTokenInvalid`."""
    conditions = [
        JOBS.c.kind == str(Kind.PACKAGING),
        *matches(JOBS.c.name, given.get("NameContains")),
        *matches(JOBS.c.model_name, given.get("ModelNameContains")),
        *listing_conditions(given),
    ]
    with context.read() as connection:
        found = page(
            connection,
            select(JOBS).where(*conditions),
            given,
            by=_SORTED_BY[given.get("SortBy", "CREATION_TIME")],
            descending=given.get("SortOrder") == "Descending",
        )
    return {
        "EdgePackagingJobSummaries": [_summary(context, job_of(row)) for row in found.rows],
        "NextToken": found.next_token,
    }


def _summary(context: Context, job: Job) -> Output:
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
