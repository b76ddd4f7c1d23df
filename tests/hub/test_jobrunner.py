"""Jobs with a real S3 and real workers: what they write, how they fail, and how they end early."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from lightkeeper.cli import run
from lightkeeper.errors import JobTimedOut, OutputUnwritable, WorkerDied
from lightkeeper.hub import sandbox
from lightkeeper.hub.jobs import Kind, Status
from lightkeeper.hub.jobwork import Allowance, Workshop
from lightkeeper.hub.sandbox import Confines
from lightkeeper.modelpackage.limits import GIB, MIB
from lightkeeper.objects import Objects
from tests.support import models
from tests.support.jobs import JobShop
from tests.support.seaweed import REGION, Seaweed, free_ports

WORKER = "lightkeeper.hub.worker"
CONFINES = Confines(memory_bytes=4 * GIB, file_bytes=GIB, wall_seconds=60)


@pytest.fixture(scope="module")
def shared(seaweed: Seaweed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobShop]:
    """One shop for the tests that leave its queue empty."""
    shop = JobShop(tmp_path_factory.mktemp("shop"), seaweed)
    shop.upload(models.doubled(("n", 4)))
    yield shop
    shop.close()


@pytest.fixture
def shop(shared: JobShop) -> JobShop:
    """The shared shop, whose model takes four columns and any number of rows."""
    return shared


@pytest.fixture
def uri(shop: JobShop) -> str:
    """The address of the model."""
    return f"s3://{shop.bucket}/in/model.onnx"


def endless() -> bytes:
    """Compute y = x after a loop that takes days."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["going_in"], ["going_out"]), helper.make_node("Neg", ["v_in"], ["v_out"])],
        "body",
        [
            models.tensor("turn", TensorProto.INT64, ()),
            models.tensor("going_in", TensorProto.BOOL, ()),
            models.tensor("v_in", TensorProto.FLOAT, (1,)),
        ],
        [models.tensor("going_out", TensorProto.BOOL, ()), models.tensor("v_out", TensorProto.FLOAT, (1,))],
    )
    return models.model(
        [helper.make_node("Loop", ["turns", "", "x"], ["y"], body=body)],
        [models.tensor("x", TensorProto.FLOAT, (1,))],
        [models.tensor("y", TensorProto.FLOAT, (1,))],
        [helper.make_tensor("turns", TensorProto.INT64, [], [10**15])],
    )


def hog() -> bytes:
    """Compute the sum of a tensor of 8 GB that the model makes itself."""
    return models.model(
        [
            helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
            helper.make_node("Add", ["zeros", "x"], ["sum"]),
            helper.make_node("ReduceSum", ["sum"], ["y"], keepdims=0),
        ],
        [models.tensor("x", TensorProto.FLOAT, (1,))],
        [models.tensor("y", TensorProto.FLOAT, ())],
        [helper.make_tensor("shape", TensorProto.INT64, [1], [2 * 10**9])],
    )


def test_a_model_is_compiled_and_packaged_and_devices_can_trust_it(shop: JobShop, uri: str, tmp_path: Path) -> None:
    """What is in the database, in the store and in the files agrees."""
    shop.compile("first", uri, '{"x": [2, 4]}')
    compiled = shop.run(Kind.COMPILATION, "first")
    assert compiled.status is Status.COMPLETED
    assert compiled.artifact is not None
    assert compiled.artifact.uri == f"s3://{shop.bucket}/out/first/model-jetson_nano.tar.gz"
    assert json.loads(compiled.artifact.facts["inputs"]) == {"x": [2, 4]}

    shop.package("packed", "first", "net", "2.0")
    packed = shop.run(Kind.PACKAGING, "packed")
    assert packed.status is Status.COMPLETED
    assert packed.artifact is not None
    assert packed.artifact.uri == f"s3://{shop.bucket}/packages/net-2.0.tar.gz"
    path = tmp_path / "net-2.0.tar.gz"
    metadata = shop.fetch(packed.artifact.uri, path)
    assert metadata["sha256"] == packed.artifact.sha256
    assert run(["verify", str(path), "--root-certs", str(shop.authority.root_certificate.parent)]) == 0
    with tarfile.open(path) as archive:
        manifest = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]  # it is a file
    assert (manifest["name"], manifest["version"]) == ("net", "2.0")
    assert manifest["target"] == {"os": "linux", "architecture": "aarch64", "accelerator": "any"}
    assert manifest["inputs"] == [{"name": "x", "data_type": "FLOAT32", "shape": [2, 4]}]
    assert list(shop.work_folder.iterdir()) == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"S3Uri": "s3://{bucket}/none.onnx"}, ["ClientError: there is no object", "upload", "OBJECT_MISSING"]),
        ({"S3Uri": "s3://no-such-bucket-here/none.onnx"}, ["no bucket no-such-bucket-here", "OBJECT_MISSING"]),
        ({"S3Uri": "s3://{bucket}/text.tar.gz"}, ["neither", "SOURCE_UNUSABLE"]),
        ({"S3Uri": "s3://{bucket}/text.onnx"}, ["not an ONNX model", "SOURCE_UNUSABLE"]),
        ({"DataInputConfig": '{"data": [1, 4]}'}, ["'data'", "DataInputConfig", "MODEL_SHAPES_MISMATCH"]),
        ({"Framework": "PYTORCH"}, ["ClientError: InputConfiguration", "torch.onnx.export", "FRAMEWORK_UNSUPPORTED"]),
    ],
    ids=["no object", "no bucket", "no archive", "no model", "other inputs", "framework"],
)
def test_a_job_that_cannot_be_done_says_why_and_what_to_do(
    shop: JobShop, uri: str, unique_name: str, changed: dict[str, str], words: list[str]
) -> None:
    """It is not tried again, and leaves no object."""
    shop.upload(b"some text", "text.tar.gz")
    shop.upload(b"some text", "text.onnx")
    given = {name: value.replace("{bucket}", shop.bucket) for name, value in changed.items()}
    shop.compile(unique_name, uri, InputConfig={"S3Uri": uri, "Framework": "ONNX", **given})
    job = shop.run(Kind.COMPILATION, unique_name)
    assert job.status is Status.FAILED
    assert [word for word in words if word not in job.reason] == []
    assert job.attempt == 1
    assert shop.client.list_objects_v2(Bucket=shop.bucket, Prefix=f"out/{unique_name}").get("Contents", []) == []


def test_a_model_that_wants_too_much_memory_fails_alone(shop: JobShop, unique_name: str) -> None:
    """Its worker is held to the limit; the process that watches it goes on."""
    shop.compile(unique_name, shop.upload(hog(), "hog.onnx"))
    job = shop.run(Kind.COMPILATION, unique_name, shop.runner(allowance=Allowance(memory_bytes=GIB)))
    assert job.status is Status.FAILED
    assert "JOB_OUT_OF_MEMORY" in job.reason


def test_a_model_that_takes_too_long_is_ended(shop: JobShop, unique_name: str) -> None:
    """At the time that the job itself allows."""
    shop.compile(unique_name, shop.upload(endless(), "endless.onnx"), StoppingCondition={"MaxRuntimeInSeconds": 2})
    job = shop.run(Kind.COMPILATION, unique_name)
    assert job.status is Status.FAILED
    assert "TimeOut" in job.reason
    assert "MaxRuntimeInSeconds" in job.reason
    assert own_workers() == []


def test_a_compiled_model_that_was_replaced_is_not_packaged(shop: JobShop, uri: str, unique_name: str) -> None:
    """The hub signs what it compiled, and nothing that somebody put in its place."""
    shop.compile(unique_name, uri)
    compiled = shop.run(Kind.COMPILATION, unique_name)
    assert compiled.artifact is not None
    shop.upload(b"other", compiled.artifact.uri.removeprefix(f"s3://{shop.bucket}/"))
    shop.package(unique_name, unique_name)
    job = shop.run(Kind.PACKAGING, unique_name)
    assert job.status is Status.FAILED
    assert "COMPILED_MODEL_CHANGED" in job.reason


def test_a_store_that_is_away_is_tried_again(shop: JobShop, uri: str, unique_name: str) -> None:
    """The job waits, says nothing of failure, and is done when the store is back."""
    shop.compile(unique_name, uri)
    away = Objects(f"http://127.0.0.1:{free_ports(1)[0]}", REGION, shop.objects.credentials)
    job = shop.run(Kind.COMPILATION, unique_name, shop.runner(away))
    assert job.status is Status.INPROGRESS
    assert "OBJECT_STORE_UNREACHABLE" in job.reason
    job = shop.run(Kind.COMPILATION, unique_name)
    assert (job.status, job.attempt, job.reason) == (Status.COMPLETED, 2, "")


def test_an_attempt_that_finds_its_artefact_has_nothing_left_to_do(
    shared: JobShop, seaweed: Seaweed, tmp_path: Path, unique_name: str
) -> None:
    """The one before it died after the put; not even the upload needs to be there any more."""
    shop = JobShop(tmp_path, seaweed, lease_seconds=1.0, bucket=shared.bucket)
    shop.compile(unique_name, shop.upload(models.doubled(), "again/model.onnx"))
    claim = shop.jobs.claim()
    assert claim is not None
    (tmp_path / "first").mkdir()
    workshop = Workshop(shop.jobs, shop.objects, shop.signer, Allowance())
    artifact = workshop.work(claim.job, tmp_path / "first", lambda: None)
    shop.client.delete_object(Bucket=shop.bucket, Key="again/model.onnx")
    job = shop.run(Kind.COMPILATION, unique_name)
    assert (job.status, job.attempt, job.artifact) == (Status.COMPLETED, 2, artifact)
    shop.close()


def test_a_running_job_is_stopped(shared: JobShop, seaweed: Seaweed, tmp_path: Path) -> None:
    """Its worker is gone, and so are its files; nothing was written."""
    shop = JobShop(tmp_path, seaweed, lease_seconds=3.0, bucket=shared.bucket)
    shop.compile("job", shop.upload(endless(), "endless.onnx"))
    process = shop.process()
    try:
        wait_for(process.workers)
        (worker,) = process.workers()
        shop.jobs.stop(Kind.COMPILATION, "job")
        assert shop.wait(Kind.COMPILATION, "job").status is Status.STOPPED
        assert not worker.is_running()
        wait_for(lambda: not list(shop.work_folder.iterdir()))
        assert "Contents" not in shop.client.list_objects_v2(Bucket=shop.bucket, Prefix="out/job/")
    finally:
        assert process.stop() == 0
        shop.close()


def test_a_process_that_is_told_to_end_gives_its_job_back(shared: JobShop, seaweed: Seaweed, tmp_path: Path) -> None:
    """That was no attempt, and nobody waits for a lease to end."""
    shop = JobShop(tmp_path, seaweed, lease_seconds=600.0, bucket=shared.bucket)
    shop.compile("job", shop.upload(endless(), "endless.onnx"))
    process = shop.process()
    wait_for(process.workers)
    (worker,) = process.workers()
    assert process.stop() == 0
    assert not worker.is_running()
    claim = shop.jobs.claim()
    shop.close()
    assert claim is not None
    assert claim.job.attempt == 1


def test_a_worker_dies_with_its_hub(shared: JobShop, seaweed: Seaweed, tmp_path: Path) -> None:
    """A hub that is killed leaves no process behind."""
    shop = JobShop(tmp_path, seaweed, bucket=shared.bucket)
    shop.compile("job", shop.upload(endless(), "endless.onnx"))
    process = shop.process()
    wait_for(process.workers)
    (worker,) = process.workers()
    process.kill()
    shop.close()
    worker.wait(10)
    assert not worker.is_running()


def test_a_worker_has_no_secret_and_no_more_than_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in its environment nor on its command line; its memory and its files are limited."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    seen: dict[str, Any] = {}

    def look() -> None:
        with contextlib.suppress(psutil.NoSuchProcess):  # it may end at any moment
            for child in own_workers():
                now = {"environment": child.environ(), "words": child.cmdline(), "nice": child.nice()}
                now |= {"network": Path(f"/proc/{child.pid}/ns/net").readlink()}
                now |= {"files": child.rlimit(psutil.RLIMIT_FSIZE)[0], "folder": child.cwd()}
                if child.rlimit(psutil.RLIMIT_AS)[0] == CONFINES.memory_bytes:
                    seen.update(now)

    (tmp_path / "input").write_bytes(models.doubled())
    task = {"input": "input", "file_name": "m.onnx", "shapes": {}, "limits": {}, "about": {}}
    facts = sandbox.run("compile", task, tmp_path, CONFINES, look)
    assert facts["artifact"] == "artifact.tar.gz"
    assert "hidden" not in seen["environment"].values()
    assert not [name for name in seen["environment"] if name.startswith("AWS_")]
    assert seen["words"][1:] == ["-I", "-m", WORKER]
    assert seen["nice"] > os.nice(0)
    assert seen["files"] == CONFINES.file_bytes
    assert seen["folder"] == str(tmp_path)
    allowed = subprocess.run(["unshare", "--user", "--net", "true"], check=False, capture_output=True).returncode == 0
    assert (seen["network"] != Path("/proc/self/ns/net").readlink()) == allowed


def test_a_worker_that_is_killed_is_told_from_one_that_refuses(tmp_path: Path) -> None:
    """The first is worth another attempt."""

    def kill() -> None:
        for child in own_workers():
            child.kill()

    with pytest.raises(WorkerDied, match="SIGKILL"):
        sandbox.run("compile", {}, tmp_path, CONFINES, kill)


def test_a_step_ends_at_its_time(tmp_path: Path) -> None:
    """Even where it does nothing wrong."""
    with pytest.raises(JobTimedOut):
        sandbox.run("compile", {}, tmp_path, replace(CONFINES, wall_seconds=0), lambda: None)


def test_a_worker_that_writes_more_than_it_may_is_refused(tmp_path: Path) -> None:
    """The kernel holds it to the size of a file."""
    noise = np.random.default_rng(1).random((1, 200_000)).astype(np.float32)
    model = models.model(
        [helper.make_node("Add", ["x", "noise"], ["y"])],
        [models.tensor("x", TensorProto.FLOAT, (1, 200_000))],
        [models.tensor("y", TensorProto.FLOAT, (1, 200_000))],
        [numpy_helper.from_array(noise, "noise")],
    )
    (tmp_path / "input").write_bytes(model)
    task = {"input": "input", "file_name": "m.onnx", "shapes": {}, "limits": {}, "about": {}}
    with pytest.raises(OutputUnwritable, match="File too large"):
        sandbox.run("compile", task, tmp_path, replace(CONFINES, file_bytes=MIB // 2), lambda: None)


def own_workers() -> list[psutil.Process]:
    """Return the workers that this process has started and that run."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if WORKER in child.cmdline():
                found.append(child)
    return found


def wait_for(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


_names = iter(range(1_000_000))


@pytest.fixture
def unique_name() -> str:
    """A name that no other test uses."""
    return f"job-{next(_names)}"
