"""Compilation and packaging jobs as operators see them: boto3, with nothing but the endpoint changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from lightkeeper.hub.api import Api
from lightkeeper.hub.database import Database
from lightkeeper.hub.jobs import Artifact, Jobs, Kind
from lightkeeper.hub.keys import OperatorKeys
from lightkeeper.hub.server import Listener, Server
from lightkeeper.hub.settings import Settings
from tests.support.jobs import ROLE, now_ms

ARTIFACT = Artifact("s3://bucket/out/net-ml_c5.tar.gz", 1, "aa", "bb", "cc", {"inputs": '{"x": [1, 4]}'})
PACKAGE = Artifact("s3://bucket/packages/net-1.0.tar.gz", 1, "aa", "bb", "cc", {"digest": "dd"})


def request(name: str, **changed: Any) -> dict[str, Any]:
    """Return what a compilation job is asked for with."""
    return {
        "CompilationJobName": name,
        "RoleArn": ROLE,
        "InputConfig": {"S3Uri": "s3://bucket/in/net.onnx", "Framework": "ONNX", "DataInputConfig": '{"x": [1, 4]}'},
        "OutputConfig": {"S3OutputLocation": "s3://bucket/out/", "TargetDevice": "ml_c5"},
        "StoppingCondition": {"MaxRuntimeInSeconds": 900},
    } | changed


def packaging(name: str, compiled: str, **changed: Any) -> dict[str, Any]:
    """Return what a packaging job is asked for with."""
    return {
        "EdgePackagingJobName": name,
        "CompilationJobName": compiled,
        "ModelName": "net",
        "ModelVersion": "1.0",
        "RoleArn": ROLE,
        "OutputConfig": {"S3OutputLocation": "s3://bucket/packages"},
    } | changed


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A hub's database, whose queue nobody works off but the tests."""
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('calls') / 'hub.db'}")
    yield database
    database.close()


@pytest.fixture(scope="module")
def sagemaker(database: Database) -> Iterator[Any]:
    """An operator's client of a hub that answers, and does no more."""
    settings, keys = Settings(), OperatorKeys(database)
    key = keys.first(now_ms())
    server = Server([Listener("api", "127.0.0.1", 0, Api(database, settings, keys, now_ms))])
    client = boto3.client(
        "sagemaker",
        region_name=settings.region,
        endpoint_url=f"http://127.0.0.1:{server.start()['api']}",
        aws_access_key_id=key.access_key_id,
        aws_secret_access_key=key.secret_access_key,
        config=Config(retries={"total_max_attempts": 1}),
    )
    yield client
    client.close()
    server.stop()


@pytest.fixture
def jobs(database: Database) -> Jobs:
    """The queue."""
    return Jobs(database, now_ms)


@pytest.fixture
def compiled(sagemaker: Any, jobs: Jobs, unique: Callable[[], str]) -> str:
    """The name of a compilation job that is COMPLETED."""
    name = unique()
    sagemaker.create_compilation_job(**request(name))
    end(jobs, Kind.COMPILATION, name, lambda claim: jobs.complete(claim, ARTIFACT))
    return name


def end(jobs: Jobs, kind: Kind, name: str, how: Callable[[Any], bool]) -> None:
    """Claim a job, and end it."""
    while True:
        claim = jobs.claim()
        assert claim is not None
        if (claim.job.kind, claim.job.name) == (kind, name):
            assert how(claim)
            return
        assert jobs.fail(claim, "left by another test")


def refused(call: Callable[..., Any], **given: Any) -> tuple[str, str]:
    """Return the code and the message that a call ends with."""
    with pytest.raises(ClientError) as error:
        call(**given)
    told = error.value.response["Error"]
    return told["Code"], told["Message"]


def test_a_compilation_job_is_described_as_it_was_created(sagemaker: Any, unique: Callable[[], str]) -> None:
    """What was given comes back; the artefact's address is known from the beginning."""
    name = unique()
    given = request(name)
    arn = sagemaker.create_compilation_job(**given)["CompilationJobArn"]
    job = sagemaker.describe_compilation_job(CompilationJobName=name)
    assert arn.endswith(f":compilation-job/{name}")
    assert job["CompilationJobArn"] == arn
    assert job["CompilationJobStatus"] == "STARTING"
    assert {member: job[member] for member in given} == given
    assert job["ModelArtifacts"]["S3ModelArtifacts"] == "s3://bucket/out/net-ml_c5.tar.gz"
    assert job["FailureReason"] == ""
    assert "CompilationStartTime" not in job
    assert "ModelDigests" not in job


def test_a_compilation_job_that_is_done_has_its_digest_and_times(sagemaker: Any, compiled: str) -> None:
    """In the order in which they passed."""
    job = sagemaker.describe_compilation_job(CompilationJobName=compiled)
    assert job["CompilationJobStatus"] == "COMPLETED"
    assert job["ModelDigests"] == {"ArtifactDigest": "cc"}
    assert job["CreationTime"] <= job["CompilationStartTime"] <= job["CompilationEndTime"] == job["LastModifiedTime"]


def test_what_a_model_says_of_its_inputs_is_told_where_the_job_did_not(
    sagemaker: Any, jobs: Jobs, unique: Callable[[], str]
) -> None:
    """As the service derived it."""
    name = unique()
    sagemaker.create_compilation_job(
        **request(name, InputConfig={"S3Uri": "s3://bucket/in/net.onnx", "Framework": "ONNX"})
    )
    end(jobs, Kind.COMPILATION, name, lambda claim: jobs.complete(claim, ARTIFACT))
    job = sagemaker.describe_compilation_job(CompilationJobName=name)
    assert job["DerivedInformation"] == {"DerivedDataInputConfig": '{"x": [1, 4]}'}


def test_a_job_that_failed_tells_its_reason(sagemaker: Any, jobs: Jobs, unique: Callable[[], str]) -> None:
    """And can be deleted, after which its name is free."""
    name = unique()
    sagemaker.create_compilation_job(**request(name))
    end(jobs, Kind.COMPILATION, name, lambda claim: jobs.fail(claim, "ClientError: no"))
    job = sagemaker.describe_compilation_job(CompilationJobName=name)
    assert (job["CompilationJobStatus"], job["FailureReason"]) == ("FAILED", "ClientError: no")
    assert refused(sagemaker.stop_compilation_job, CompilationJobName=name)[0] == "ValidationException"
    sagemaker.delete_compilation_job(CompilationJobName=name)
    assert refused(sagemaker.describe_compilation_job, CompilationJobName=name)[0] == "ResourceNotFound"
    sagemaker.create_compilation_job(**request(name))


def test_a_job_is_stopped(sagemaker: Any, unique: Callable[[], str]) -> None:
    """One that waits at once; before that it cannot be deleted."""
    name = unique()
    sagemaker.create_compilation_job(**request(name))
    assert refused(sagemaker.delete_compilation_job, CompilationJobName=name)[0] == "ValidationException"
    sagemaker.stop_compilation_job(CompilationJobName=name)
    assert sagemaker.describe_compilation_job(CompilationJobName=name)["CompilationJobStatus"] == "STOPPED"
    sagemaker.delete_compilation_job(CompilationJobName=name)


def test_a_name_that_is_taken_is_in_use(sagemaker: Any, compiled: str, unique: Callable[[], str]) -> None:
    """Of either kind."""
    assert refused(sagemaker.create_compilation_job, **request(compiled))[0] == "ResourceInUse"
    name = unique()
    sagemaker.create_edge_packaging_job(**packaging(name, compiled))
    assert refused(sagemaker.create_edge_packaging_job, **packaging(name, compiled))[0] == "ResourceInUse"


OUTPUT = "s3://bucket/out"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"InputConfig": {"S3Uri": "https://bucket.s3.amazonaws.com/net.onnx", "Framework": "ONNX"}}, "s3://"),
        ({"InputConfig": {"S3Uri": "s3://bucket/a/../net.onnx", "Framework": "ONNX"}}, "OBJECT_ADDRESS_INVALID"),
        ({"OutputConfig": {"S3OutputLocation": "s3://B", "TargetDevice": "ml_c5"}}, "bucket"),
        ({"OutputConfig": {"S3OutputLocation": OUTPUT}}, "either TargetDevice or TargetPlatform"),
        ({"OutputConfig": {"S3OutputLocation": OUTPUT, "TargetDevice": "ml_inf1"}}, "ml_inf1"),
        ({"OutputConfig": {"S3OutputLocation": OUTPUT, "TargetDevice": "ml_c5", "KmsKeyId": "key"}}, "KmsKeyId"),
        (
            {"InputConfig": {"S3Uri": "s3://bucket/m.onnx", "Framework": "ONNX", "DataInputConfig": "[[1, 3]]"}},
            "DataInputConfig",
        ),
        (
            {"InputConfig": {"S3Uri": "s3://bucket/m.onnx", "Framework": "ONNX", "DataInputConfig": '{"x": ["a"]}'}},
            "DataInputConfig",
        ),
        (
            {"InputConfig": {"S3Uri": "s3://bucket/m.onnx", "Framework": "ONNX", "DataInputConfig": "{"}},
            "not JSON",
        ),
    ],
)
def test_what_can_never_be_compiled_is_refused_at_once(
    sagemaker: Any, unique: Callable[[], str], changed: dict[str, Any], words: str
) -> None:
    """With what is wrong in the message; no job is made."""
    name = unique()
    code, message = refused(sagemaker.create_compilation_job, **request(name, **changed))
    assert code == "ValidationException"
    assert words in message
    assert refused(sagemaker.describe_compilation_job, CompilationJobName=name)[0] == "ResourceNotFound"


@pytest.mark.parametrize("operation", ["describe", "stop", "delete"])
def test_a_job_that_is_not_there_is_not_found(sagemaker: Any, operation: str) -> None:
    """Of either kind."""
    call = getattr(sagemaker, f"{operation}_compilation_job")
    assert refused(call, CompilationJobName="none-such")[0] == "ResourceNotFound"
    if operation != "delete":
        call = getattr(sagemaker, f"{operation}_edge_packaging_job")
        assert refused(call, EdgePackagingJobName="none-such")[0] == "ResourceNotFound"


def test_a_packaging_job_is_described(sagemaker: Any, jobs: Jobs, compiled: str, unique: Callable[[], str]) -> None:
    """Before and after it is done; a Greengrass component is not made, and that is said."""
    name = unique()
    output = {"S3OutputLocation": "s3://bucket/packages", "PresetDeploymentType": "GreengrassV2Component"}
    given = packaging(name, compiled, OutputConfig=output)
    sagemaker.create_edge_packaging_job(**given)
    job = sagemaker.describe_edge_packaging_job(EdgePackagingJobName=name)
    assert job["EdgePackagingJobStatus"] == "STARTING"
    assert {member: job[member] for member in given} == given
    assert job["EdgePackagingJobArn"].endswith(f":edge-packaging-job/{name}")
    assert "ModelArtifact" not in job
    end(jobs, Kind.PACKAGING, name, lambda claim: jobs.complete(claim, PACKAGE))
    job = sagemaker.describe_edge_packaging_job(EdgePackagingJobName=name)
    assert job["EdgePackagingJobStatus"] == "COMPLETED"
    assert (job["ModelArtifact"], job["ModelSignature"]) == (PACKAGE.uri, "dd")
    assert job["PresetDeploymentOutput"]["Status"] == "FAILED"
    assert "Greengrass" in job["PresetDeploymentOutput"]["StatusMessage"]


def test_a_packaging_job_that_failed_tells_its_reason(
    sagemaker: Any, jobs: Jobs, compiled: str, unique: Callable[[], str]
) -> None:
    """In its status message."""
    name = unique()
    sagemaker.create_edge_packaging_job(**packaging(name, compiled))
    end(jobs, Kind.PACKAGING, name, lambda claim: jobs.fail(claim, "ClientError: no"))
    job = sagemaker.describe_edge_packaging_job(EdgePackagingJobName=name)
    assert (job["EdgePackagingJobStatus"], job["EdgePackagingJobStatusMessage"]) == ("FAILED", "ClientError: no")
    assert refused(sagemaker.stop_edge_packaging_job, EdgePackagingJobName=name)[0] == "ValidationException"


def test_only_a_model_that_was_compiled_is_packaged(sagemaker: Any, unique: Callable[[], str]) -> None:
    """Not one whose job is not there, goes on or was stopped."""
    name = unique()
    assert refused(sagemaker.create_edge_packaging_job, **packaging(name, name))[0] == "ResourceNotFound"
    sagemaker.create_compilation_job(**request(name))
    code, message = refused(sagemaker.create_edge_packaging_job, **packaging(name, name))
    assert (code, "STARTING" in message) == ("ValidationException", True)
    sagemaker.stop_compilation_job(CompilationJobName=name)
    code, message = refused(sagemaker.create_edge_packaging_job, **packaging(name, name))
    assert (code, "made no model" in message) == ("ValidationException", True)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"ModelVersion": "1 0"}, "not a model version"),
        ({"ModelVersion": "_"}, "not a model version"),
        ({"ResourceKey": "key"}, "ResourceKey"),
        ({"OutputConfig": {"S3OutputLocation": "https://bucket/packages"}}, "s3://"),
        ({"OutputConfig": {"S3OutputLocation": "s3://bucket/packages", "KmsKeyId": "key"}}, "KmsKeyId"),
    ],
)
def test_what_can_never_be_packaged_is_refused_at_once(
    sagemaker: Any, compiled: str, unique: Callable[[], str], changed: dict[str, Any], words: str
) -> None:
    """With what is wrong in the message."""
    code, message = refused(sagemaker.create_edge_packaging_job, **packaging(unique(), compiled, **changed))
    assert code == "ValidationException"
    assert words in message


def test_compilation_jobs_are_listed_page_by_page(sagemaker: Any, unique: Callable[[], str]) -> None:
    """By name, by time or by status, all of them or some; each once."""
    mark = unique()
    names = [f"{mark}-{letter}" for letter in "cab"]
    for name in names:
        sagemaker.create_compilation_job(**request(name))
    sagemaker.stop_compilation_job(CompilationJobName=names[1])

    def listed(**given: Any) -> list[str]:
        pages = sagemaker.get_paginator("list_compilation_jobs").paginate(
            NameContains=mark, PaginationConfig={"PageSize": 2}, **given
        )
        return [job["CompilationJobName"] for page in pages for job in page["CompilationJobSummaries"]]

    assert listed() == names
    assert listed(SortOrder="Descending") == names[::-1]
    assert listed(SortBy="Name") == sorted(names)
    assert listed(SortBy="Status") == [names[2], names[0], names[1]]
    assert listed(StatusEquals="STOPPED") == [names[1]]
    created = sagemaker.describe_compilation_job(CompilationJobName=names[0])["CreationTime"]
    assert names[0] not in listed(CreationTimeAfter=created)
    (job,) = sagemaker.list_compilation_jobs(NameContains=names[1])["CompilationJobSummaries"]
    assert (job["CompilationTargetDevice"], job["CompilationJobStatus"]) == ("ml_c5", "STOPPED")
    assert job["CreationTime"] <= job["CompilationEndTime"] == job["LastModifiedTime"]


def test_packaging_jobs_are_listed_by_model_too(sagemaker: Any, compiled: str, unique: Callable[[], str]) -> None:
    """As their shapes have it."""
    mark = unique()
    for model in ("b", "a"):
        sagemaker.create_edge_packaging_job(**packaging(f"{mark}-{model}", compiled, ModelName=f"{mark}-model-{model}"))
    pages = sagemaker.get_paginator("list_edge_packaging_jobs").paginate(
        ModelNameContains=f"{mark}-model", SortBy="MODEL_NAME", PaginationConfig={"PageSize": 1}
    )
    found = [job for page in pages for job in page["EdgePackagingJobSummaries"]]
    assert [job["EdgePackagingJobName"] for job in found] == [f"{mark}-a", f"{mark}-b"]
    assert found[0]["CompilationJobName"] == compiled
    assert (found[0]["ModelName"], found[0]["ModelVersion"]) == (f"{mark}-model-a", "1.0")


def test_jobs_keep_their_tags(sagemaker: Any, compiled: str, unique: Callable[[], str]) -> None:
    """As long as they are there."""
    name, tags = unique(), [{"Key": "line", "Value": "7"}]
    arn = sagemaker.create_compilation_job(**request(name), Tags=tags)["CompilationJobArn"]
    assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == tags
    sagemaker.stop_compilation_job(CompilationJobName=name)
    sagemaker.delete_compilation_job(CompilationJobName=name)
    sagemaker.create_compilation_job(**request(name))
    assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == []
    sagemaker.create_edge_packaging_job(**packaging(name, compiled), Tags=tags)
    arn = sagemaker.describe_edge_packaging_job(EdgePackagingJobName=name)["EdgePackagingJobArn"]
    assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == tags
