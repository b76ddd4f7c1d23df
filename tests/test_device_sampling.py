"""Sampling in a running agent: what rules choose of real predictions can be read back, and the rest is untouched."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from lightkeeper.captures import Record, open_captures
from lightkeeper.client import Client
from lightkeeper.errors import CapturesMissing
from tests.support.agents import AgentProcess

DELIVERY_SECONDS = 20.0
RULES = [
    {"name": "high", "model": "net", "band": {"output": "y", "index": "max", "low": 100}},
    {"name": "third", "model": "*", "every": 3, "inputs": False},
]


def predict(client: Client, *values: float) -> None:
    """Run the model on each value and hold the answers against y = x + x."""
    for value in values:
        x = np.full((1, 4), value, np.float32)
        np.testing.assert_array_equal(client.predict("net", {"x": x})["y"], x + x)


@pytest.mark.parametrize("shared_memory_above_bytes", [None, 1])
def test_samples_of_predictions_are_delivered_with_their_rule(
    tmp_path: Path, authority: Path, doubled_package: Path, shared_memory_above_bytes: int | None
) -> None:
    """With the values that went in and out, although the client's memory is given back at once (section 4)."""
    settings = {"lightkeeper_capture_rules": json.dumps(RULES)}
    agent = AgentProcess(tmp_path, authority / "certs", settings=settings).wait_until_started()
    with Client(agent.address, shared_memory_above_bytes=shared_memory_above_bytes) as client:
        client.load_model(str(doubled_package), "net")
        predict(client, 1, 2, 3, 60, 4, 5, 6)
    assert agent.stop() == 0
    agent = AgentProcess(tmp_path, authority / "certs").wait_until_started()  # what waited is delivered by the next
    third, high, sixth = _delivered(tmp_path / "captures", 3)
    assert agent.stop() == 0
    assert (third.rule, high.rule, sixth.rule) == ("third", "high", "third")
    assert third.inputs == sixth.inputs == ()
    assert third.outputs[0].array().tolist() == [[6] * 4]
    assert sixth.outputs[0].array().tolist() == [[12] * 4]
    assert (high.inputs[0].name, high.inputs[0].array().tolist()) == ("x", [[60] * 4])
    assert (high.outputs[0].name, high.outputs[0].array().tolist()) == ("y", [[120] * 4])
    assert (high.model, high.version) == ("doubled", "1.0")


def test_predictions_do_not_notice_that_samples_are_lost(
    tmp_path: Path, authority: Path, doubled_package: Path
) -> None:
    """A full buffer is said once (clause 4.8)."""
    settings = {
        "lightkeeper_capture_rules": [{"name": "all", "model": "*", "every": 1}],
        "sagemaker_edge_core_capture_data_buffer_size": 4,
        "sagemaker_edge_core_capture_data_batch_size": 4,
        "lightkeeper_spool_free_floor_bytes": 2**40,
    }
    agent = AgentProcess(tmp_path, authority / "certs", settings=settings).wait_until_started()
    with Client(agent.address) as client:
        client.load_model(str(doubled_package), "net")
        predict(client, *range(20))
    assert agent.stop() == 0
    (said,) = agent.events("samples_lost")
    assert (said["rule"], said["reason"]) == ("all", "SPOOL_FULL")


def _delivered(folder: Path, count: int) -> list[Record]:
    """Wait for a number of captures and return them in the order of their time."""
    deadline = time.monotonic() + DELIVERY_SECONDS
    while True:
        try:
            records = list(open_captures(folder).records())
        except CapturesMissing:
            records = []
        if len(records) >= count:
            return sorted(records, key=lambda record: record.time)
        assert time.monotonic() < deadline
        time.sleep(0.05)
