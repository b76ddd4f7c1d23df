"""The sampler: which inferences a rule chooses, and what a model without rules pays."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightkeeper.capture.sampler import MAX_MODELS_REMEMBERED, Sampler
from lightkeeper.config.rules import Band, CaptureRule, Measure
from lightkeeper.tensor import DataType, TensorMetadata

OUTPUTS = (TensorMetadata("score", DataType.FLOAT32, (1, 3)), TensorMetadata("count", DataType.INT64, (-1,)))
NOTHING = (np.zeros((1, 3), np.float32), np.zeros(0, np.int64))


class Clock:
    """A clock that a test moves."""

    seconds = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.seconds


def chosen(sampler: Sampler, times: int, *, alias: str = "m", package: str = "p") -> list[str | None]:
    """Return which rule chose each of some inferences."""
    found = (sampler.choose(alias, package, OUTPUTS, NOTHING) for _ in range(times))
    return [None if rule is None else rule.name for rule in found]


def in_band(band: Band, *values: float, count: tuple[int, ...] = ()) -> bool:
    """Whether an inference with these scores and counts is chosen."""
    sampler = Sampler([CaptureRule("band", "*", band=band)])
    outputs = (TensorMetadata("score", DataType.FLOAT32, (len(values),)), OUTPUTS[1])
    arrays = (np.array(values, np.float32), np.array(count, np.int64))
    return sampler.choose("m", "p", outputs, arrays) is not None


def test_every_nth_inference_of_a_model_is_chosen() -> None:
    """Counted for each model apart (clause 4.3)."""
    sampler = Sampler([CaptureRule("third", "*", every=3)])
    assert chosen(sampler, 2) == [None, None]
    assert chosen(sampler, 2, alias="other") == [None, None]
    assert chosen(sampler, 4) == ["third", None, None, "third"]


def test_a_rule_is_about_the_alias_the_package_or_every_model() -> None:
    """And about no other (clause 4.3)."""
    rules = [CaptureRule("alias", "a", every=1), CaptureRule("package", "b", every=1), CaptureRule("any", "*", every=2)]
    sampler = Sampler(rules)
    assert chosen(sampler, 1, alias="a", package="b") == ["alias"]
    assert chosen(sampler, 1, alias="x", package="b") == ["package"]
    assert chosen(sampler, 2, alias="b", package="a") == ["alias", "alias"]
    assert chosen(sampler, 2, alias="x", package="y") == [None, "any"]


def test_the_first_rule_that_chooses_counts_and_the_later_do_not_see_the_inference() -> None:
    """The order is the configuration's (clause 4.3)."""
    sampler = Sampler([CaptureRule("second", "*", every=2), CaptureRule("all", "*", every=2)])
    assert chosen(sampler, 6) == [None, "second", "all", "second", None, "second"]


def test_a_share_is_drawn_for_each_inference() -> None:
    """The same seed draws the same sample (clause 4.3)."""

    def sample(seed: int) -> list[str | None]:
        rule = CaptureRule("some", "*", share=0.1)
        return chosen(Sampler([rule], draw=random.Random(seed).random), 5000)  # noqa: S311 - a sample, no secret

    assert sample(1) == sample(1) != sample(2)
    assert 400 < sample(1).count("some") < 600
    assert chosen(Sampler([CaptureRule("all", "*", share=1.0)]), 100) == ["all"] * 100


@pytest.mark.parametrize(
    ("band", "values", "expected"),
    [
        (Band("score", Measure.ANY, 0.4, 0.6), (0.1, 0.5), True),
        (Band("score", Measure.ANY, 0.4, 0.6), (0.1, 0.9), False),
        (Band("score", Measure.MAX, 0.4, 0.6), (0.1, 0.5), True),
        (Band("score", Measure.MAX, 0.4, 0.6), (0.5, 0.9), False),
        (Band("score", Measure.MIN, 0.4, 0.6), (0.5, 0.9), True),
        (Band("score", Measure.MAX, 0.4, 0.6), (0.6,), True),
        (Band("score", Measure.MAX, 0.4, 1e300), (0.6,), True),
        (Band("score", 1, 0.5, 0.75), (9, 0.5), True),
        (Band("score", 1, 0.5, 0.75), (0.5, 0.875), False),
        (Band("", 0, 0.5, 0.75), (0.75,), True),
        (Band("score", Measure.MARGIN, 0, 0.125), (0.5, 0.0, 0.375), True),
        (Band("score", Measure.MARGIN, 0, 0.125), (0.75, 0.25, 0.0), False),
        (Band("score", Measure.MARGIN, 0, 1), (0.5,), False),
        (Band("score", Measure.MAX, -1, 1), (), False),
        (Band("score", Measure.ANY, -1, 1), (float("nan"),), False),
        (Band("score", Measure.ANY, -1, 1), (float("nan"), 0.5), True),
        (Band("score", Measure.MAX, -1, 1), (float("nan"), 0.5), False),
        (Band("score", Measure.MARGIN, 0, 1), (float("inf"), float("inf")), False),
        (Band("score", Measure.MIN, float("-inf"), 0), (float("-inf"),), True),
    ],
)
def test_a_band_holds_the_values_between_its_ends(band: Band, values: tuple[float, ...], expected: object) -> None:
    """Both ends count, in the output's own type, and what is no number lies in none (clause 4.4)."""
    assert in_band(band, *values) is expected


def test_a_band_may_be_about_another_output_and_an_element_that_is_not_always_there() -> None:
    """An open shape may lack the element (clause 4.4)."""
    band = Band("count", 2, 1, 5)
    assert in_band(band, 0.0, count=(0, 0, 3))
    assert not in_band(band, 0.0, count=(3, 3))
    assert in_band(Band("count", Measure.ANY, 2**53 + 1, 2**53 + 3), 0.0, count=(2**53 + 2,))


@pytest.mark.parametrize("band", [Band("missing", 0, 0, 1), Band("score", 3, 0, 1)])
def test_a_band_that_can_never_hold_is_said_once_and_chooses_nothing(
    band: Band, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody waits for samples that cannot come (clause 4.4)."""
    sampler = Sampler([CaptureRule("never", "*", band=band), CaptureRule("all", "*", every=1)])
    with caplog.at_level(logging.WARNING, "lightkeeper"):
        assert chosen(sampler, 3) == ["all"] * 3
    (record,) = caplog.records
    assert record.getMessage() == "capture_rule_without_output"
    assert vars(record)["outputs"] == ["score", "count"]


@given(st.lists(st.floats(width=32), max_size=20), st.sampled_from(Measure), st.floats(-5, 5), st.floats(-5, 5))
def test_a_band_never_fails_on_values(values: list[float], measure: Measure, one: float, two: float) -> None:
    """Infinities and numbers that are none are values too, and raise no warning."""
    low, high = sorted((one, two))
    expected = [np.float32(low) <= np.float32(value) <= np.float32(high) for value in values]
    found = in_band(Band("score", measure, low, high), *values)
    assert found is any(expected) if measure is Measure.ANY else found in {True, False}


def test_a_minute_and_a_day_have_limits() -> None:
    """Both count for the rule over all its models, and begin anew (clause 4.6)."""
    clock = Clock()
    sampler = Sampler([CaptureRule("limited", "*", every=1, per_minute=2, per_day=3)], monotonic=clock)
    assert chosen(sampler, 1) + chosen(sampler, 2, alias="other") == ["limited", "limited", None]
    clock.seconds += 59
    assert chosen(sampler, 1) == [None]
    clock.seconds += 1
    assert chosen(sampler, 2) == ["limited", None]
    clock.seconds += 86_400 - 61
    assert chosen(sampler, 1) == [None]
    clock.seconds += 1
    assert chosen(sampler, 3) == ["limited", "limited", None]


def test_what_a_limit_turns_away_the_next_rule_may_choose() -> None:
    """A rule that is used up is as if it were not there (clause 4.6)."""
    rules = [CaptureRule("first", "*", every=1, per_day=1), CaptureRule("second", "*", every=1)]
    assert chosen(Sampler(rules), 3) == ["first", "second", "second"]


def test_threads_together_choose_exactly_what_one_would() -> None:
    """No count is lost between them."""
    sampler = Sampler([CaptureRule("tenth", "*", every=10, per_day=350)])

    def run(_: int) -> int:
        return chosen(sampler, 1000).count("tenth")

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(run, range(4))) == 350


def test_models_without_end_do_not_fill_the_memory() -> None:
    """Names may come and go for years."""
    sampler = Sampler([CaptureRule("all", "*", every=1)])
    for number in range(2 * MAX_MODELS_REMEMBERED):
        assert chosen(sampler, 1, alias=f"m{number}") == ["all"]
    assert len(sampler._of_model) <= MAX_MODELS_REMEMBERED


@pytest.mark.parametrize("make", [lambda: Sampler([]), lambda: Sampler([CaptureRule("few", "other", every=2)])])
def test_a_model_without_rules_costs_one_look_up(make: Callable[[], Sampler]) -> None:
    """After the first inference nothing is searched: the model's entry is empty."""
    sampler = make()
    assert chosen(sampler, 2) == [None, None]
    assert sampler._of_model == {("m", "p"): ()}
