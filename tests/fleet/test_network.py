"""Networks that end in the middle of something, and a hub that is killed: nothing is lost, nothing arrives twice."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import numpy as np
import pytest

from tests.fleet.conftest import DEVICES
from tests.support import models
from tests.support.devices import Application, Device, eventually
from tests.support.faults import CutAnswer, CutDownload, CutRequest, Fault, Refuse, Slow
from tests.support.yards import Yard

MANY = 20
OTHER_BYTES = 100_000
"""What S3 answers beside the package: heads, the small model's package, uploads' receipts."""
AWAY_SECONDS = 120.0 if DEVICES >= MANY else 3.0
"""How long the hub is gone."""


def is_back(device: Device) -> bool:
    """Whether nothing that was said to be away is away still."""
    pairs = (("heartbeat_refused", "heartbeat_taken_again"), ("deployments_away", "deployments_back"))
    return all(len(device.events(back)) >= bool(device.events(away)) for away, back in pairs)


@pytest.mark.timeout(400)
def test_cuts_at_every_step_leave_a_whole_deployment_and_every_capture_once(yard: Yard, scores: str) -> None:
    """An exchange, a download, heartbeats and uploads are cut and slowed: what was begun is gone on with."""
    yard.network.credentials.fault = CutRequest(200)
    device = yard.add("cam-1")
    eventually(lambda: device.events("cloud_reachable"), device)
    assert len(device.events("cloud_unreachable")) == 1

    rng = np.random.default_rng(1)
    large = models.weighty(600, 1000)
    weights = large.graph.initializer[0]
    weights.raw_data = rng.standard_normal(600_000).astype(np.float32).tobytes()  # nothing that can be packed
    job = yard.package("large", "1.0", large.SerializeToString(), {"x": [1, 600], "index": [1]})
    (package,) = (
        item["Size"] for item in yard.s3.list_objects_v2(Bucket="lightkeeper", Prefix="packages/large-1.0")["Contents"]
    )
    before = yard.network.s3.received_bytes
    yard.network.s3.fault = CutDownload(package // 2)
    yard.network.api.fault = Slow(4_000)
    yard.deploy(scores=scores, large=job)
    (cut,) = device.events("fetch_cut_off")
    assert cut["held_bytes"] > 0
    rest = package - cut["held_bytes"]  # what was on the way when the connection broke is lost, and comes again
    assert yard.network.s3.received_bytes - before < package // 2 + rest + OTHER_BYTES
    yard.network.api.fault = None

    application = Application(device)
    faults: list[Fault] = [CutRequest(3_000), CutAnswer(), Slow(2_000), CutRequest(1_500), Refuse()]
    for fault in faults:
        yard.network.all(fault)
        assert application.goes_on()
        yard.network.all(None)
        assert application.goes_on()
    application.end()
    eventually(lambda: yard.delivers(device, application.ids), device, seconds=300)
    eventually(lambda: is_back(device), device)


@pytest.mark.timeout(900)
def test_a_fleet_lives_through_a_hub_that_is_gone(
    yard: Yard, scores: str, record_property: Callable[[str, object], None]
) -> None:
    """Each device says once that it is away; they come back spread, and with all that they captured meanwhile."""
    pace = max(1, DEVICES // 4)
    for number in range(DEVICES):
        yard.add(f"cam-{number}", {"lightkeeper_heartbeat_seconds": pace, "lightkeeper_deployment_poll_seconds": pace})
    devices = list(yard.devices.values())
    yard.deploy(scores=scores)
    applications = [Application(device, every_seconds=0.1 * DEVICES) for device in devices]
    yard.hub.end(signal.SIGKILL)
    eventually(lambda: all(device.events("heartbeat_refused") for device in devices), *devices)
    until = time.monotonic() + AWAY_SECONDS
    eventually(lambda: time.monotonic() > until, *devices, seconds=2 * AWAY_SECONDS)
    assert all(application.goes_on() for application in applications)
    before = len(yard.network.api.arrivals)
    yard.hub.start()
    eventually(lambda: all(map(is_back, devices)), *devices, seconds=300)
    came = yard.network.api.arrivals[before:]
    busiest = max(sum(0 <= at - one < 1 for at in came) for one in came)
    record_property("connections in the busiest second after the return", busiest)
    if DEVICES >= MANY:
        assert busiest <= DEVICES  # each has two, one for heartbeats and one for deployments
    for application in applications:
        application.end()
    for device, application in zip(devices, applications, strict=True):
        eventually(lambda device=device, ids=application.ids: yard.delivers(device, ids), device, seconds=300)  # type: ignore[misc]  # bound now
        assert len(device.events("heartbeat_refused")) == len(device.events("destination_away")) == 1
