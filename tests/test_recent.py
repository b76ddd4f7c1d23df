"""The last inputs of a model: which are kept, and that they are the agent's own."""

from __future__ import annotations

import numpy as np

from lightkeeper import recent
from lightkeeper.recent import EVERY_NS, RecentInputs


def kept(inputs: RecentInputs) -> list[float]:
    """Return the first element of each call that is kept."""
    return [float(call["x"].reshape(-1)[0]) for call in inputs.all()]


def test_the_newest_are_kept_and_the_oldest_go() -> None:
    """At most as many as asked for."""
    inputs = RecentInputs(3)
    for number in range(5):
        inputs.keep({"x": np.full(2, number, np.float32)}, number)
    assert kept(inputs) == [2, 3, 4]


def test_inputs_are_copied() -> None:
    """They may lie in memory that the caller takes back."""
    inputs, given = RecentInputs(1), np.zeros(2, np.float32)
    inputs.keep({"x": given}, 0)
    given[:] = 9
    assert kept(inputs) == [0]


def test_the_next_ones_are_wanted_after_a_while() -> None:
    """Predict's path compares one number, and copies once in that while."""
    inputs = RecentInputs(1)
    assert inputs.due_ns == 0
    inputs.keep({"x": np.zeros(1)}, 5)
    assert inputs.due_ns == 5 + EVERY_NS


def test_none_are_wanted_where_none_may_be_kept() -> None:
    """The time for them never comes."""
    assert RecentInputs(0).due_ns == recent.NEVER_NS


def test_their_bytes_are_bounded() -> None:
    """Large inputs push older ones out before their number does, and one beyond all bounds is not kept."""
    inputs = RecentInputs(16)
    half = np.zeros(recent.MOST_BYTES // 2, np.uint8)
    for number in range(3):
        half[0] = number
        inputs.keep({"x": half}, number)
    assert kept(inputs) == [1, 2]
    inputs.keep({"x": np.zeros(recent.MOST_BYTES + 1, np.uint8)}, 9)
    assert kept(inputs) == [1, 2]
