"""Every batch of captures that was ever released stays readable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lightkeeper.captures import open_captures
from tests.support.consumer import consume

FIXTURES = Path(__file__).parents[1] / "fixtures" / "captures"


@pytest.mark.parametrize("folder", sorted(FIXTURES.glob("version-*")), ids=lambda path: path.name)
def test_released_captures_are_read(folder: Path) -> None:
    """A folder that was copied from its device gives every value, file and time (section 1)."""
    asked, sampled, thinned = open_captures(folder).records()
    assert (asked.id, asked.device, asked.fleet) == ("5f0c1b6e-4a38-4c1e-9f43-0d5c2b1a7e90", "cam-1", "yard")
    assert (asked.model, asked.version, asked.package_digest) == ("turbine", "1.0", "ab" * 32)
    assert asked.time == np.datetime64("2023-11-14T22:13:20.123456789")
    assert asked.rule == ""
    assert asked.inputs[0].array().tolist() == [[0, 1, 2, 3, 4, 5]]
    np.testing.assert_array_equal(asked.outputs[0].array(), np.linspace(-1, 1, 6, dtype=np.float32).reshape(1, 6))
    assert [(entry.name, entry.content_type) for entry in asked.auxiliary_inputs] == [("frame.jpg", "jpg")]
    assert asked.auxiliary_inputs[0].data() == bytes(range(256)) * 13
    assert asked.auxiliary_outputs[0].data() == b'{"boxes":[[1,2,3,4]]}'
    assert (sampled.rule, sampled.weight) == ("doubtful", 1)
    assert sampled.inputs[0].array().shape == (1, 64, 64)
    assert (sampled.outputs[0].name, sampled.outputs[0].array().tolist()) == ("caf\ufffd", 0.5)
    assert (thinned.weight, thinned.line, thinned.time) == (4, 1, np.datetime64("2023-11-14T23:13:20"))


@pytest.mark.parametrize("folder", sorted(FIXTURES.glob("version-*")), ids=lambda path: path.name)
def test_released_captures_are_what_consumers_parse(folder: Path) -> None:
    """As far as they are in the lines themselves."""
    (batch,) = folder.rglob("*-00000002.jsonl")
    (found,) = consume(batch)
    assert found.floats("deviceFleetOutputs", 6) == tuple(np.linspace(-1, 1, 6, dtype=np.float32).tolist())


def test_there_are_released_captures() -> None:
    """The shelf is not empty."""
    assert len(list(FIXTURES.glob("version-*/**/*.jsonl"))) == 2
