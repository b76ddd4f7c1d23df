"""Heartbeats: the latest state of a device, the sums of its hours, and what is too old to keep."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Row, insert, select

from lightkeeper.errors import DeviceUnknown
from lightkeeper.hub import metrics
from lightkeeper.hub.metrics import AGENT, HOUR_MS, MOST_METRICS
from lightkeeper.hub.retention import DAY_MS, ROWS_A_PIECE, sweep
from lightkeeper.hub.settings import Settings
from lightkeeper.hub.tables.fleet import DEVICES
from lightkeeper.hub.tables.heartbeat import HEARTBEATS, HOURS
from lightkeeper.hub.tables.key import SPENT_SIGNATURES
from tests.support.rollouts import START_MS, Rollouts


@pytest.fixture
def hub(quick_folder: Path) -> Iterator[Rollouts]:
    """A fleet of one device."""
    hub = Rollouts.on_sqlite(quick_folder)
    hub.add_fleet("fleet", ["device"])
    yield hub
    hub.database.close()


def metric(name: str, value: float, time_ms: int | None = None, dimension: str | None = None) -> dict[str, Any]:
    """Make one metric."""
    found = {"MetricName": name, "Value": value, "Timestamp": time_ms, "Dimension": dimension}
    return {key: one for key, one in found.items() if one is not None}


def device(hub: Rollouts) -> Row[Any]:
    """Return the device's row."""
    with hub.database.read() as connection:
        return connection.execute(select(DEVICES)).one()


def document(hub: Rollouts) -> metrics.Document:
    """Return the device's metrics."""
    with hub.database.read() as connection:
        found: metrics.Document = connection.execute(select(HEARTBEATS.c.metrics)).scalar_one()
        return found


def hours(hub: Rollouts) -> dict[int, metrics.Document]:
    """Return the hours that are over, by how many hours after the test's beginning they began."""
    with hub.database.read() as connection:
        rows = connection.execute(select(HOURS.c.hour_ms, HOURS.c.sums)).all()
    return {(row.hour_ms - START_MS) // HOUR_MS: row.sums for row in rows}


def test_a_heartbeat_becomes_the_devices_latest_state(hub: Rollouts) -> None:
    """Version, models with their times, and every metric's latest value."""
    model = {"ModelName": "model", "ModelVersion": "1.0", "LatestInference": START_MS - 5}
    hub.beat(
        "device",
        AgentMetrics=[metric("Crashes", 2)],
        Models=[model | {"ModelMetrics": [metric("Latency", 3.5, START_MS, "camera/1")]}],
    )
    row = device(hub)
    assert (row.heartbeat_ms, row.agent_version, row.models) == (START_MS, "1.0", [model])
    assert metrics.latest(document(hub)) == {"Crashes": 2}
    assert metrics.latest(document(hub), "model model 1.0") == {"Latency camera/1": 3.5}


def test_an_unknown_device_sends_nothing(hub: Rollouts) -> None:
    """The refusal names it, and no row is left behind."""
    with pytest.raises(DeviceUnknown):
        hub.beat("stranger", AgentMetrics=[metric("Crashes", 1)])
    with hub.database.read() as connection:
        assert connection.execute(select(HEARTBEATS)).all() == []


def test_a_late_heartbeat_changes_nothing(hub: Rollouts) -> None:
    """One that was signed before the latest does not bring an older state back."""
    hub.beat("device", AgentMetrics=[metric("Crashes", 2, START_MS)])
    before = device(hub), document(hub)
    hub.now_ms -= 1000
    hub.beat("device", AgentMetrics=[metric("Crashes", 1, START_MS - 1000)], Models=[{"ModelName": "model"}])
    assert (device(hub), document(hub)) == before


def test_a_heartbeat_that_is_sent_again_counts_once(hub: Rollouts) -> None:
    """The client did not get the answer and sends the same samples under a new signature."""
    for _ in range(3):
        hub.beat("device", AgentMetrics=[metric("Inferences", 10, START_MS)])
        hub.now_ms += 1000
    assert document(hub)[AGENT]["Inferences"] == [10, START_MS, 1, 10, 10, 10]


def test_a_models_latest_times_never_go_back_and_are_never_in_the_future(hub: Rollouts) -> None:
    """An agent that was restarted knows of no inference yet; one whose clock is ahead is not believed."""
    model = {"ModelName": "model", "ModelVersion": "1.0"}
    hub.beat("device", Models=[model | {"LatestInference": START_MS - 10, "LatestSampleTime": START_MS + DAY_MS}])
    hub.beat("device", Models=[model | {"LatestInference": START_MS - 20}])
    assert device(hub).models == [model | {"LatestInference": START_MS - 10, "LatestSampleTime": START_MS}]
    hub.beat("device", Models=[])
    assert device(hub).models == []


def test_hours_keep_count_sum_minimum_and_maximum(hub: Rollouts) -> None:
    """The running hour is summed beside the latest value, and written down when the next begins."""
    for value in (3.0, 1.0, 2.0):
        hub.beat("device", AgentMetrics=[metric("Load", value, hub.now_ms)])
        hub.now_ms += 300_000
    hub.now_ms = START_MS + 2 * HOUR_MS
    hub.beat("device", AgentMetrics=[metric("Load", 7.0, hub.now_ms)])
    assert hours(hub) == {0: {AGENT: {"Load": [3, 6.0, 1.0, 3.0]}}}
    assert document(hub) == {AGENT: {"Load": [7.0, hub.now_ms, 1, 7.0, 7.0, 7.0]}}


samples = st.lists(
    st.tuples(st.integers(0, 5 * HOUR_MS), st.floats(-1e6, 1e6, allow_nan=False)), min_size=1, max_size=30
)


@given(samples=samples)
def test_the_sums_of_all_hours_are_those_of_all_samples(samples: list[tuple[int, float]]) -> None:
    """Whenever samples come, each is in exactly one hour."""
    running: metrics.Document = {}
    over: list[metrics.Document] = []
    hour = 0
    times = sorted(dict(samples).items())
    for time_ms, value in times:
        if time_ms // HOUR_MS > hour:
            hour = time_ms // HOUR_MS
            closed, running = metrics.close_hour(running)
            over.append(closed)
        running, lost = metrics.add(running, {"AgentMetrics": [metric("Load", value, time_ms + 1)]})
        assert lost == 0
    over.append(metrics.close_hour(running)[0])
    entries = [closed[AGENT]["Load"] for closed in over if closed]
    values = [value for _, value in times]
    assert sum(entry[0] for entry in entries) == len(values)
    assert sum(entry[1] for entry in entries) == pytest.approx(sum(values), abs=1e-3)
    assert min(entry[2] for entry in entries) == min(values)
    assert max(entry[3] for entry in entries) == max(values)


def test_metrics_beyond_the_limit_and_those_that_are_no_number_are_counted_and_left_out(
    hub: Rollouts, caplog: pytest.LogCaptureFixture
) -> None:
    """A device can not fill the database; what is left out is said."""
    given_metrics = [metric(f"Metric-{number}", 1.0) for number in range(MOST_METRICS + 5)]
    hub.beat("device", AgentMetrics=[*given_metrics, {"MetricName": "Nothing"}])
    assert len(document(hub)[AGENT]) == MOST_METRICS
    (said,) = [record for record in caplog.records if record.message == "metrics_not_kept"]
    assert said.__dict__["metrics"] == 6


def test_hours_past_their_keeping_go_piece_by_piece(hub: Rollouts) -> None:
    """Only what is older than the setting is deleted, in transactions of a bounded size."""
    old, rows = START_MS - 3 * DAY_MS, 2 * ROWS_A_PIECE + 3
    with hub.database.write() as connection:
        connection.execute(
            insert(HOURS),
            [
                {"hour_ms": old - number * HOUR_MS, "fleet": "fleet", "device": "device", "sums": {}}
                for number in range(rows)
            ]
            + [{"hour_ms": START_MS - DAY_MS, "fleet": "fleet", "device": "device", "sums": {}}],
        )
    assert sweep(hub.database, replace(Settings(), heartbeat_days=2), START_MS) == rows
    assert list(hours(hub)) == [-24]


def test_signatures_that_could_not_pass_again_are_forgotten(hub: Rollouts) -> None:
    """Those that still could are kept, or a copy of a request would be carried out."""
    with hub.database.write() as connection:
        connection.execute(
            insert(SPENT_SIGNATURES),
            [{"signature": bytes([ends]) * 32, "expires_ms": START_MS + ends} for ends in range(10)],
        )
    assert sweep(hub.database, hub.settings, START_MS + 4) == 4
    with hub.database.read() as connection:
        left = connection.scalars(select(SPENT_SIGNATURES.c.expires_ms)).all()
    assert sorted(left) == [START_MS + ends for ends in range(4, 10)]
