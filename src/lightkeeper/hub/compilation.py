"""Compilation jobs: Create-, Describe-, List-, Stop- and DeleteCompilationJob."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, select

from lightkeeper.errors import JobUnsupported
from lightkeeper.hub import arns, declared, tags, targets
from lightkeeper.hub.context import Context
from lightkeeper.hub.jobs import Job, Jobs, Kind, Status, job_of
from lightkeeper.hub.jobwork import artifact_address
from lightkeeper.hub.paging import between, matches, page
from lightkeeper.hub.tables.job import JOBS
from lightkeeper.objects import Address

Input = Mapping[str, Any]
Output = dict[str, Any]

KEPT = ("RoleArn", "InputConfig", "OutputConfig", "StoppingCondition", "VpcConfig")
"""What Describe gives back as it was given. Roles and networks are the service's; the hub has no use for them."""


_SORTED_BY: Mapping[str, tuple[ColumnElement[Any], ...]] = {
    "Name": (JOBS.c.name,),
    "CreationTime": (JOBS.c.created_ms, JOBS.c.name),
    "Status": (JOBS.c.status, JOBS.c.name),
}


def create(context: Context, given: Input) -> Output:
    """CreateCompilationJob. Raises `JobUnsupported`, `ObjectAddressInvalid`, `JobNameTaken`, `JobLimit`."""
    name = given["CompilationJobName"]
    if "ModelPackageVersionArn" in given or "InputConfig" not in given:
        raise JobUnsupported("this hub has no model registry: give InputConfig, and no ModelPackageVersionArn")
    refuse_key(given["OutputConfig"], "KmsKeyId")
    targets.target(given["OutputConfig"])
    declared.shapes(given["InputConfig"].get("DataInputConfig"))
    Address.parse(given["InputConfig"]["S3Uri"])
    Address.parse_prefix(given["OutputConfig"]["S3OutputLocation"])
    request = {member: given[member] for member in KEPT if member in given}
    arn = _arn(context, name)
    _jobs(context).create(
        Kind.COMPILATION,
        name,
        request,
        limit=context.settings.jobs_limit,
        also=lambda connection: tags.keep(connection, arn, given.get("Tags", ())),
    )
    return {"CompilationJobArn": arn}


def describe(context: Context, given: Input) -> Output:
    """DescribeCompilationJob. Raises `JobUnknown`."""
    job = _jobs(context).get(Kind.COMPILATION, given["CompilationJobName"])
    answer = {
        "CompilationJobName": job.name,
        "CompilationJobArn": _arn(context, job.name),
        "CompilationJobStatus": job.status,
        "CompilationStartTime": job.started_ms,
        "CompilationEndTime": job.ended_ms,
        "CreationTime": job.created_ms,
        "LastModifiedTime": job.modified_ms,
        "FailureReason": job.reason if job.status is Status.FAILED else "",
        "ModelArtifacts": {"S3ModelArtifacts": str(artifact_address(job))},
        **job.request,
    }
    if job.artifact is not None:
        answer["ModelDigests"] = {"ArtifactDigest": job.artifact.blake2b}
        if "DataInputConfig" not in job.request["InputConfig"]:
            answer["DerivedInformation"] = {"DerivedDataInputConfig": job.artifact.facts["inputs"]}
    return answer


def stop(context: Context, given: Input) -> Output:
    """StopCompilationJob. Raises `JobUnknown`, `JobEnded`."""
    _jobs(context).stop(Kind.COMPILATION, given["CompilationJobName"])
    return {}


def delete(context: Context, given: Input) -> Output:
    """DeleteCompilationJob: the job goes, its artefact stays. Raises `JobUnknown`, `JobNotEnded`."""
    name = given["CompilationJobName"]
    arn = _arn(context, name)
    _jobs(context).delete(Kind.COMPILATION, name, also=lambda connection: tags.forget(connection, [arn]))
    return {}


def list_jobs(context: Context, given: Input) -> Output:
    """ListCompilationJobs, by creation time unless SortBy says else. Raises `PageTokenInvalid`."""
    conditions = [
        JOBS.c.kind == str(Kind.COMPILATION),
        *matches(JOBS.c.name, given.get("NameContains")),
        *listing_conditions(given),
    ]
    with context.read() as connection:
        found = page(
            connection,
            select(JOBS).where(*conditions),
            given,
            by=_SORTED_BY[given.get("SortBy", "CreationTime")],
            descending=given.get("SortOrder") == "Descending",
        )
    return {
        "CompilationJobSummaries": [_summary(context, job_of(row)) for row in found.rows],
        "NextToken": found.next_token,
    }


def listing_conditions(given: Input) -> list[ColumnElement[bool]]:
    """Return the conditions that both listings of jobs have."""
    status = given.get("StatusEquals")
    return [
        *between(JOBS.c.created_ms, given, "CreationTime"),
        *between(JOBS.c.modified_ms, given, "LastModifiedTime"),
        *([] if status is None else [JOBS.c.status == status]),
    ]


def refuse_key(config: Input, member: str) -> None:
    """Raise `JobUnsupported` for a key to encrypt with: what is not encrypted must not pass for it."""
    if config.get(member):
        raise JobUnsupported(
            f"this hub does not encrypt with {member}; leave it out, and set the bucket's default encryption instead"
        )


def _summary(context: Context, job: Job) -> Output:
    output = job.request["OutputConfig"]
    platform = output.get("TargetPlatform", {})
    return {
        "CompilationJobName": job.name,
        "CompilationJobArn": _arn(context, job.name),
        "CreationTime": job.created_ms,
        "CompilationStartTime": job.started_ms,
        "CompilationEndTime": job.ended_ms,
        "CompilationTargetDevice": output.get("TargetDevice"),
        "CompilationTargetPlatformOs": platform.get("Os"),
        "CompilationTargetPlatformArch": platform.get("Arch"),
        "CompilationTargetPlatformAccelerator": platform.get("Accelerator"),
        "LastModifiedTime": job.modified_ms,
        "CompilationJobStatus": job.status,
    }


def _jobs(context: Context) -> Jobs:
    return Jobs(context, lambda: context.now_ms)


def _arn(context: Context, name: str) -> str:
    return arns.arn(context.settings, "compilation-job", name)
