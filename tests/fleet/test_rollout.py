"""A fleet of real agents from packages to captures: two models in stages, bad versions, and whose captures are whose.

Three agents, or as many as `LIGHTKEEPER_FLEET` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from botocore.exceptions import ClientError

from lightkeeper.client import Client
from lightkeeper.errors import AgentError
from tests.fleet.conftest import DEVICES, YardFactory
from tests.support import models
from tests.support.devices import Device, X, credentials, device_client, eventually
from tests.support.yards import BUCKET, Yard

pytestmark = pytest.mark.timeout(1800)

NAMES = [f"cam-{number:02}" for number in range(DEVICES)]
BATCH = max(1, DEVICES // 5)
PATIENCE_SECONDS = 60.0 + 15 * DEVICES
RUNS = {"scores": "1.0", "table": "1.0"}
KNOWN, NEW = np.array([1], np.int64), np.array([3], np.int64)
"""Rows of the table: the one that applications ask for, and one that the bad version lacks."""


@pytest.fixture(scope="module")
def yard(make_yard: YardFactory, scores: str) -> Iterator[Yard]:
    """A fleet that runs version 1.0 of two models: one device first, then the others in batches."""
    with closing(make_yard()) as made:
        table = made.package("table", "1.0", models.gather(4), {"index": [-1]})
        pace = {"lightkeeper_heartbeat_seconds": max(1, DEVICES // 5)}  # two cores for all of them
        for name in NAMES:
            made.add(name, pace | {"lightkeeper_deployment_poll_seconds": max(1, DEVICES // 5)})
        canary, others = NAMES[:1], NAMES[1:]
        made.plan("first", {"scores": scores, "table": table}, {"canary": canary, "rest": others}, batch_size=BATCH)
        for stage, on_it in (("canary", canary), ("rest", others)):
            made.start_stage("first", stage)
            ends(made, "first", stage, "DEPLOYED")
            got = {name for name, device in made.devices.items() if device.runs() == RUNS}
            assert got == ({*canary} if stage == "canary" else {*NAMES})
            assert set(made.stage_devices("first", stage).items()) == {(name, "DEPLOYED") for name in on_it}
        yield made


def ends(yard: Yard, plan: str, stage: str, status: str) -> dict[str, Any]:
    """Wait until a stage has ended as it should, and return how its devices are counted."""
    devices = list(yard.devices.values())
    eventually(lambda: yard.stage(plan, stage)["StageStatus"] == status, *devices, seconds=PATIENCE_SECONDS)
    return yard.stage(plan, stage)


def all_run_what_they_ran(yard: Yard) -> bool:
    """Whether every device says that it runs 1.0 of both, and the hub's report says the same of each."""
    return {name: device.runs() for name, device in yard.devices.items()} == yard.report() == dict.fromkeys(NAMES, RUNS)


def test_the_report_agrees_with_what_the_devices_run(yard: Yard) -> None:
    """Every device answers with both models, and `hub report --json` names the same versions."""
    for device in yard.devices.values():
        with device.client() as client:
            assert np.array_equal(client.predict("scores", {"x": X})["y"], 2 * X)
            assert client.predict("table", {"index": KNOWN})["y"] == [1.0]
    eventually(lambda: all_run_what_they_ran(yard), *yard.devices.values())


def test_captures_lie_under_their_own_device_and_no_other_reads_them(yard: Yard) -> None:
    """The bucket has each device's captures where they belong; with another's credentials, S3 denies every access."""
    written = {name: {f"{name}-{number}" for number in range(5)} for name in NAMES}
    for name, ids in written.items():
        with yard.devices[name].client() as client:
            for one in ids:
                client.capture_data("scores", inputs={"x": X}, outputs={"y": 2 * X}, capture_id=one)
    for name, ids in written.items():
        eventually(lambda name=name, ids=ids: yard.captured(name) == dict.fromkeys(ids, 1), yard.devices[name])  # type: ignore[misc]  # bound now
    for name, other in [*pairwise(NAMES), (NAMES[-1], NAMES[0])]:
        status, answer = credentials(yard.folder / name)
        assert status == 200, answer
        with closing(device_client("s3", yard.addresses.s3_endpoint, answer)) as s3:
            denied(s3, yard, other)
            own = f"{yard.prefix(name)}own"
            s3.put_object(Bucket=BUCKET, Key=own, Body=b"own")
            assert s3.get_object(Bucket=BUCKET, Key=own)["Body"].read() == b"own"


def denied(s3: Any, yard: Yard, other: str) -> None:
    """Require that a session is denied everything of another device: its objects, their names, and to change them."""
    prefix = yard.prefix(other)
    objects = yard.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix)["Contents"]
    key = objects[0]["Key"]
    calls: Mapping[str, Callable[[], Any]] = {
        "get": lambda: s3.get_object(Bucket=BUCKET, Key=key),
        "head": lambda: s3.head_object(Bucket=BUCKET, Key=key),
        "list": lambda: s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix),
        "list all": lambda: s3.list_objects_v2(Bucket=BUCKET),
        "list uploads": lambda: s3.list_multipart_uploads(Bucket=BUCKET, Prefix=prefix),
        "put": lambda: s3.put_object(Bucket=BUCKET, Key=f"{prefix}stranger", Body=b"x"),
        "overwrite": lambda: s3.put_object(Bucket=BUCKET, Key=key, Body=b"x"),
        "begin": lambda: s3.create_multipart_upload(Bucket=BUCKET, Key=f"{prefix}stranger"),
        "delete": lambda: s3.delete_object(Bucket=BUCKET, Key=key),
    }
    for what, call in calls.items():
        with pytest.raises(ClientError) as refused:
            call()
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403, what
    assert yard.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix)["Contents"] == objects


def test_a_version_that_does_not_fit_is_refused_by_the_first_devices_and_reaches_no_other(yard: Yard) -> None:
    """The health gate refuses it before it answers a call; the stage fails at the threshold, and nobody has changed."""
    job = yard.package("scores", "2.0", models.doubled((1, 5)), {"x": [1, 5]})
    yard.plan("misfit", {"scores": job}, {"all": NAMES}, batch_size=BATCH, failure_threshold=BATCH)
    yard.start_stage("misfit", "all")
    status = ends(yard, "misfit", "all", "FAILED")
    assert BATCH <= status["EdgeDeploymentFailedInStage"] < 2 * BATCH
    assert status["EdgeDeploymentSuccessInStage"] == 0
    offered = {name for name, device in yard.devices.items() if refused_for(device, "SWAP_INTERFACE_MISMATCH")}
    assert BATCH <= len(offered) < 2 * BATCH
    eventually(lambda: all_run_what_they_ran(yard), *yard.devices.values())


def refused_for(device: Device, reason: str) -> bool:
    """Whether the device's log says that a deployment's model failed for this reason."""
    return any(line["detail"].startswith(reason) for line in device.events("deployment_model_failed"))


class Watched:
    """An application that asks a version which fails for what it lacks, unless it is content with what it gets."""

    def __init__(self, device: Device) -> None:
        self.name = device.name
        self._client: Client = device.client()
        self._runs = device.runs
        self.failures = 0

    def has_new(self) -> bool:
        """Whether the device runs the new version now."""
        return self._runs()["table"] == "2.0"

    def work(self, rows: np.ndarray[Any, np.dtype[np.int64]]) -> None:
        """Call the model a few times."""
        for _ in range(5):
            try:
                self._client.predict("table", {"index": rows})
            except AgentError:
                self.failures += 1

    def close(self) -> None:
        """Let go of the agent."""
        self._client.close()


def test_a_version_that_fails_at_work_is_taken_back_everywhere(yard: Yard) -> None:
    """It passes the gate; where it fails, its watch takes it back; where it does well, the hub does, by itself."""
    job = yard.package("table", "2.0", models.gather(2), {"index": [-1]})
    yard.plan("failing", {"table": job}, {"all": NAMES}, batch_size=BATCH, failure_threshold=BATCH)
    applications = [Watched(device) for device in yard.devices.values()]
    content: set[str] = set()  # the first that get it never ask for what is missing

    def has_failed() -> bool:
        for application in applications:
            new = application.has_new()
            if new and len(content) < BATCH:
                content.add(application.name)
            application.work(NEW if new and application.name not in content else KNOWN)
        return bool(yard.stage("failing", "all")["StageStatus"] == "FAILED")

    for application in applications:
        application.work(KNOWN)
    yard.start_stage("failing", "all")
    eventually(has_failed, *yard.devices.values(), seconds=PATIENCE_SECONDS)
    eventually(lambda: all_run_what_they_ran(yard), *yard.devices.values(), seconds=PATIENCE_SECONDS)
    failed = {name for name, device in yard.devices.items() if refused_for(device, "SWAP_RUN_FAILED")}
    assert BATCH <= len(failed) < 2 * BATCH
    assert not failed & content
    assert {application.name for application in applications if application.failures} == failed
    eventually(lambda: {yard.stage_devices("failing", "all")[name] for name in content} == {"STOPPED"})
    for application in applications:
        application.close()
