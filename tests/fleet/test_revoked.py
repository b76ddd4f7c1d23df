"""A device whose certificate is revoked while it works: it goes on, says so, and is taken back with a new one."""

from __future__ import annotations

import shutil

import pytest

from tests.support.devices import CLOUD_LINES, Application, eventually
from tests.support.yards import Yard


@pytest.mark.timeout(400)
def test_a_revoked_device_works_on_and_its_captures_wait_for_a_new_certificate(yard: Yard, scores: str) -> None:
    """No call fails; uploads end with the reason, said once; a new certificate is found without a restart."""
    cut_off, other = yard.add("cam-1"), yard.add("cam-2")
    yard.deploy(scores=scores)
    applications = {device.name: Application(device) for device in (cut_off, other)}
    eventually(lambda: all(yard.captured(device.name) for device in (cut_off, other)), cut_off, other)

    yard.command("device", "revoke", cut_off.name, "--fleet", yard.fleet)
    eventually(lambda: cut_off.events("destination_away"), cut_off)
    arrived = len(yard.captured(cut_off.name))
    assert all(application.goes_on() for application in applications.values())
    eventually(
        lambda: cut_off.said() == dict.fromkeys(((event, "DESTINATION_DENIED") for event in CLOUD_LINES), 1), cut_off
    )
    (line,) = cut_off.events("cloud_unreachable")
    assert "DEVICE_CERTIFICATE_REVOKED" in line["detail"]
    assert len(yard.captured(cut_off.name)) == arrived < len(applications[cut_off.name].ids)
    assert other.said() == {}

    yard.command("device", "add", cut_off.name, "--fleet", yard.fleet, "--output", "again")
    for file in ("device.key", "device.pem"):
        shutil.move(yard.folder / "again" / file, cut_off.folder / file)
    for application in applications.values():
        application.end()
    for device in (cut_off, other):
        ids = applications[device.name].ids
        eventually(lambda device=device, ids=ids: yard.delivers(device, ids), device)  # type: ignore[misc]  # bound now
    assert len(cut_off.events("cloud_reachable")) == len(cut_off.events("destination_back")) == 1
    assert cut_off.said() == dict.fromkeys(((event, "DESTINATION_DENIED") for event in CLOUD_LINES), 1)
    assert other.said() == {}
