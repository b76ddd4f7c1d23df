"""A device whose clock is set back and forth while it works, and one that starts in another decade."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.clocks import RIGHT, Clock
from tests.support.devices import Application, Device, eventually
from tests.support.yards import Yard

WRONG = "CLOCK_WRONG"
PARTS = ("heartbeat_refused", "deployments_away", "destination_away")


@pytest.mark.timeout(900)
def test_a_wrong_clock_is_named_once_and_costs_no_capture(yard: Yard, scores: str, tmp_path: Path) -> None:
    """A day ahead, a day and ten years behind: calls go on; each capture arrives once when the clock is right again."""
    clock = Clock(tmp_path / "clock")
    device = yard.add("cam-1", environment=clock.environment)
    yard.deploy(scores=scores)
    application = Application(device)
    arrives(yard, device, application)
    for number, offset in enumerate(("+1d", "-1d", "-10y"), 1):
        clock.set(offset)
        eventually(lambda number=number: said_so(device, number), device)  # type: ignore[misc]  # bound now
        assert application.goes_on()
        clock.set(RIGHT)
        arrives(yard, device, application)
        said = device.said()
        assert {reason for _, reason in said} == {WRONG}
        assert {said[part, WRONG] for part in PARTS} == {number}
    application.end()
    eventually(lambda: yard.delivers(device, application.ids), device)


def said_so(device: Device, times: int) -> bool:
    """Whether the device has found its clock wrong so often, at each part of its cloud."""
    return all(device.said()[part, WRONG] >= times for part in PARTS)


def arrives(yard: Yard, device: Device, application: Application) -> None:
    """Wait until what was captured until now has arrived, and everything that asks the cloud has got an answer."""
    until_now = set(application.ids)

    def arrived() -> bool:
        with device.client() as client:
            client.flush_captures(1)
        back = len(device.events("deployments_back")) == len(device.events("deployments_away"))
        taken = len(device.events("heartbeat_taken_again")) == len(device.events("heartbeat_refused"))
        named = len(device.events("cloud_reachable")) == len(device.events("cloud_unreachable"))
        return back and taken and named and until_now <= yard.captured(device.name).keys()

    eventually(arrived, device, seconds=300)


@pytest.mark.timeout(900)
def test_an_agent_that_starts_ten_years_behind_runs_its_models(yard: Yard, scores: str, tmp_path: Path) -> None:
    """What a dead battery does to a device without a network: it works, and delivers when it learns the time."""
    clock = Clock(tmp_path / "clock")
    device = yard.add("cam-1", environment=clock.environment)
    yard.deploy(scores=scores)
    assert device.stop() == 0
    clock.set("-10y")
    device = yard.start("cam-1", environment=clock.environment)
    eventually(lambda: device.runs() == {"scores": "1.0"}, device)
    application = Application(device)
    eventually(lambda: said_so(device, 1), device)
    assert application.goes_on()
    clock.set(RIGHT)
    application.end()
    eventually(lambda: yard.delivers(device, application.ids), device, seconds=300)
    assert set(device.said().values()) == {1}
    assert {reason for _, reason in device.said()} == {WRONG}
