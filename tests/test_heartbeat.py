"""Heartbeats: when they are sent, what the log says of them, and what a real agent reports."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightkeeper.capture.ledger import State
from lightkeeper.client import Client
from lightkeeper.device import DeviceIdentity
from lightkeeper.errors import DestinationUnreachable, MemoryShort
from lightkeeper.heartbeat import FIRST_SECONDS, JITTER, Heartbeats
from lightkeeper.providers.base import ObjectStore, ProviderOptions
from lightkeeper.providers.fleet import DeploymentResult, Fleet
from lightkeeper.providers.none import NoProvider
from lightkeeper.providers.report import Heartbeat, Metric, ModelReport, Registration
from tests.support.agents import AgentProcess

PATIENCE_SECONDS = 30.0
RESULT = DeploymentResult("d", True, "", 1, 2, ())


class Cloud:
    """A provider that keeps what it gets; while it has a fault it refuses everything with it."""

    takes_parts = True

    def __init__(self, standing: Registration | None = None) -> None:
        self.standing = standing
        self.asked = 0
        self.got: list[Heartbeat] = []
        self.fault: Exception | None = None

    def store(self, bucket: str) -> ObjectStore:
        """Have none."""
        raise NotImplementedError

    def fleet(self) -> Fleet | None:
        """Have none."""
        return None

    def registration(self) -> Registration | None:
        """Answer as the test says."""
        self.asked += 1
        return self.standing

    def send_heartbeat(self, heartbeat: Heartbeat) -> None:
        """Keep it."""
        if self.fault is not None:
            raise self.fault
        self.got.append(heartbeat)

    def close(self) -> None:
        """Nothing to let go of."""


def report(result: DeploymentResult | None = None) -> Callable[[], Heartbeat]:
    """Return what makes reports of a device without models."""
    return lambda: Heartbeat("1", (Metric("Startups", 1, 1.0),), (), result)


def eventually(what: Callable[[], Any]) -> Any:
    """Wait until something is so, and return it."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the event words of the log."""
    return [record.getMessage() for record in caplog.records]


def test_a_finished_deployment_is_reported_at_once() -> None:
    """The result does not wait for the interval, and is acknowledged when the provider has it."""
    cloud, due = Cloud(), threading.Event()
    acknowledged: list[DeploymentResult] = []
    beats = Heartbeats(
        cloud,
        report(RESULT),
        interval_seconds=86_400,
        due=due,
        acknowledge=acknowledged.append,
        draw=lambda: 1.0,
    )
    beats.start()
    due.set()
    eventually(lambda: acknowledged)
    beats.stop()
    assert acknowledged == [RESULT] * len(cloud.got)


def test_stopping_does_not_wait_for_the_next_report() -> None:
    """An agent that is told to end does not send one more."""
    cloud = Cloud()
    beats = Heartbeats(cloud, report(), interval_seconds=86_400, draw=lambda: 1.0)
    beats.start()
    started = time.monotonic()
    beats.stop()
    assert time.monotonic() - started < FIRST_SECONDS / 2
    assert cloud.got == []


def test_a_refusal_is_said_once_until_it_is_another_or_over(caplog: pytest.LogCaptureFixture) -> None:
    """One line a change of state, not one a report; a result that did not arrive is not acknowledged."""
    caplog.set_level(logging.INFO)
    cloud, acknowledged = Cloud(), list[DeploymentResult]()
    beats = Heartbeats(cloud, report(RESULT), interval_seconds=1, acknowledge=acknowledged.append)
    for fault in (DestinationUnreachable("gone"), DestinationUnreachable("gone"), MemoryShort("none"), None, None):
        cloud.fault = fault
        beats.once()
    assert said(caplog) == ["heartbeat_refused", "heartbeat_refused", "heartbeat_taken_again"]
    assert [record.__dict__.get("reason") for record in caplog.records] == [
        "DESTINATION_UNREACHABLE",
        "MEMORY_SHORT",
        None,
    ]
    assert acknowledged == [RESULT, RESULT]


def test_the_registration_is_asked_again_when_its_answer_no_longer_holds(caplog: pytest.LogCaptureFixture) -> None:
    """A device that is not registered goes on, and a change is said once."""
    caplog.set_level(logging.INFO)
    clock = [0.0]
    cloud = Cloud(Registration(active=False, ttl_seconds=60))
    beats = Heartbeats(cloud, report(), interval_seconds=1, monotonic=lambda: clock[0])
    for now in (0, 59, 61, 130):
        clock[0] = now
        cloud.standing = Registration(active=now > 100, ttl_seconds=60)
        beats.once()
    assert cloud.asked == 3
    assert len(cloud.got) == 4
    assert said(caplog) == ["device_not_registered", "device_registered"]


def test_reports_of_devices_that_start_together_are_spread() -> None:
    """The first ones over `FIRST_SECONDS`, and each later interval by its own random tenth."""
    beats = [Heartbeats(Cloud(), report(), interval_seconds=300, draw=lambda at=at: at / 1000) for at in range(1000)]
    first, later = [beat.first_wait_seconds() for beat in beats], [beat.wait_seconds() for beat in beats]
    assert max(sum(second <= wait < second + 1 for wait in first) for second in range(30)) <= 1000 / FIRST_SECONDS + 1
    assert min(later) >= 300 * (1 - JITTER)
    assert max(later) == 300
    assert max(sum(second <= wait < second + 1 for wait in later) for second in range(300)) <= 1000 / 30 + 1


def test_provider_none_has_heartbeats_in_the_log_at_level_debug(caplog: pytest.LogCaptureFixture) -> None:
    """And nothing of them above it."""
    made = NoProvider(ProviderOptions(device=DeviceIdentity("cam-1", "yard", "cam-1", "")))
    model = ModelReport("doubled", "1.0", None, 1.0, (Metric("Inferences", 3, 1.0),))
    beats = Heartbeats(
        made, lambda: Heartbeat("1", (Metric("Startups", 2, 1.0),), (model,)), interval_seconds=1, acknowledge=None
    )
    caplog.set_level(logging.DEBUG)
    beats.once()
    (line,) = caplog.records
    assert (line.getMessage(), line.levelno) == ("heartbeat", logging.DEBUG)
    assert line.__dict__["agent_metrics"] == {"Startups": 2}
    assert line.__dict__["models"] == {"doubled 1.0": {"Inferences": 3}}


def test_an_agents_report_has_its_starts_its_models_and_the_ledgers_sums(
    tmp_path: Path, authority: Path, doubled_package: Path
) -> None:
    """Read where provider None says them; a start after a crash counts both."""
    settings = {
        "lightkeeper_heartbeat_seconds": 1,
        "sagemaker_edge_log_verbose": True,
        "sagemaker_edge_core_capture_data_batch_size": 2,
        "lightkeeper_capture_rules": [{"name": "all", "model": "*", "every": 2}],
    }
    agent = AgentProcess(tmp_path, authority / "certs", settings=settings).wait_until_started()
    with Client(agent.address) as client:
        client.load_model(str(doubled_package), "net")
        for _ in range(10):
            client.predict("net", {"x": np.ones((1, 4), np.float32)})

        def delivered() -> dict[str, Any] | None:
            beats = agent.events("heartbeat")
            done = beats and beats[-1]["agent_metrics"].get("CapturesWritten", 0) >= 4
            return beats[-1] if done else None

        beat = eventually(delivered)
    metrics = beat["agent_metrics"]
    assert (metrics["Startups"], metrics["Crashes"]) == (1, 0)
    assert metrics["MemoryUsedMiB"] > 10
    assert metrics["CPUUtilization"] >= 0
    assert metrics["CapturesAccepted"] == 5
    assert metrics["CapturesAccepted"] == sum(metrics[f"Captures{state.name.capitalize()}"] for state in State)
    assert metrics["CapturesRefused"] == metrics["SamplesLost"] == 0
    assert metrics["SpoolBytes"] > 0
    model = beat["models"]["doubled 1.0"]
    assert (model["Inferences"], model["Failures"]) == (10, 0)
    assert 0 < model["LatencyMeanMs"] <= model["LatencyMaxMs"]
    assert beat["latest"]["doubled 1.0"]["sample"] >= beat["latest"]["doubled 1.0"]["inference"] - 60

    assert agent.stop(signal.SIGKILL) != 0
    seen = len(agent.events("heartbeat"))
    agent = AgentProcess(tmp_path, authority / "certs", settings=settings, flags=("-f",)).wait_until_started()
    eventually(lambda: len(agent.events("heartbeat")) > seen)
    metrics = agent.events("heartbeat")[-1]["agent_metrics"]
    assert agent.stop() == 0
    assert (metrics["Startups"], metrics["Crashes"]) == (2, 1)
    assert metrics["CapturesAccepted"] == 5
