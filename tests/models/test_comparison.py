"""A new version beside the old one: what is measured, and which limits are passed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightkeeper.errors import (
    InputRejected,
    ModelRunFailed,
    SwapDisagrees,
    SwapInterfaceMismatch,
    SwapRunFailed,
    SwapTooSlow,
)
from lightkeeper.modelpackage.manifest import SwapLimits
from lightkeeper.models.comparison import TIMED_RUNS_LEAST, check_interface, compare, faults
from lightkeeper.models.report import RECENT, Comparison, OutputComparison
from lightkeeper.runtimes.base import Array
from lightkeeper.tensor import DataType, TensorMetadata

X = TensorMetadata("x", DataType.FLOAT32, (-1, 3))
Y = TensorMetadata("y", DataType.FLOAT32, (-1, 3))


class Answering:
    """A session that answers by a function."""

    def __init__(
        self,
        answer: Callable[[Array], Array] = lambda x: x,
        *,
        inputs: tuple[TensorMetadata, ...] = (X,),
        optional_inputs: tuple[TensorMetadata, ...] = (),
        outputs: tuple[TensorMetadata, ...] = (Y,),
    ) -> None:
        self.inputs, self.optional_inputs, self.outputs = inputs, optional_inputs, outputs
        self._answer = answer
        self.runs = 0

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """Answer, and count it."""
        self.runs += 1
        return [self._answer(inputs["x"])]

    def close(self) -> None:
        """Nothing to give back."""


def outputs_of(old: Answering, new: Answering, *inputs: list[list[float]]) -> OutputComparison:
    """Compare on these inputs, and return what there is to say of the one output."""
    arrays = [{"x": np.array(values, np.float32)} for values in inputs]
    return compare(old, new, arrays, RECENT).outputs[0]


def raising(error: Exception) -> Callable[[Array], Array]:
    """Return an answer that is none."""

    def answer(_: Array) -> Array:
        raise error

    return answer


def test_equal_versions_do_not_differ() -> None:
    """Not even in NaN and infinities."""
    values = [[np.nan, np.inf, -np.inf], [1.0, 2.0, 3.0]]
    assert outputs_of(Answering(), Answering(), values) == OutputComparison("y", 0.0, 0.0, 0.0, 0)


def test_the_largest_difference_of_all_inputs_counts() -> None:
    """Absolute, and as a part of the old output's largest magnitude; rows whose largest element moved are counted."""
    new = Answering(lambda x: np.where(x > 5, x - 4, x))
    found = outputs_of(Answering(), new, [[1, 2, 3]], [[8, 7, 1], [0, 0, 4]])
    assert (found.absolute_difference, found.relative_difference) == (4.0, 0.5)
    assert found.argmax_disagreement == 0
    moved = outputs_of(Answering(), Answering(lambda x: x[..., ::-1]), [[1, 2, 3]], [[8, 7, 1], [0, 4, 0]])
    assert moved.argmax_disagreement == pytest.approx(2 / 3)


def test_what_is_no_number_any_more_differs_infinitely() -> None:
    """A version that gives NaN where there was a number is found out."""
    found = outputs_of(Answering(), Answering(lambda x: x * np.nan), [[1, 2, 3]])
    assert found.absolute_difference == np.inf


def test_another_shape_is_counted_and_not_compared() -> None:
    """A detector may rightly find another number of boxes."""
    found = outputs_of(Answering(), Answering(lambda x: x[:1]), [[1, 2, 3], [4, 5, 6]], [[1, 2, 3]])
    assert (found.shapes_differ, found.absolute_difference) == (1, 0.0)


def test_integers_have_no_argmax() -> None:
    """Class numbers are no scores."""
    integers = Answering(lambda x: x.astype(np.int64))
    assert outputs_of(integers, integers, [[1, 2, 3]]).argmax_disagreement is None


def test_few_inputs_are_run_often_enough_for_a_median() -> None:
    """Both run as often as the other."""
    old, new = Answering(), Answering()
    compared = compare(old, new, [{"x": np.zeros((1, 3), np.float32)}], RECENT)
    assert (old.runs, new.runs) == (TIMED_RUNS_LEAST, TIMED_RUNS_LEAST)
    assert compared.inputs == 1


def test_an_input_that_only_the_new_version_fails_on_is_refused() -> None:
    """One that the old one fails on as well says nothing."""
    inputs = [{"x": np.zeros((1, 3), np.float32)}]
    for error in (ModelRunFailed("no"), InputRejected("no")):
        with pytest.raises(SwapRunFailed):
            compare(Answering(), Answering(raising(error)), inputs, RECENT)
        assert compare(Answering(raising(error)), Answering(raising(error)), inputs, RECENT).inputs == 0


OUTPUT = OutputComparison("y", absolute_difference=2.0, relative_difference=0.5, argmax_disagreement=0.25)


@pytest.mark.parametrize(
    ("limits", "found"),
    [
        (SwapLimits(), []),
        (SwapLimits(latency_ratio=10), []),
        (SwapLimits(latency_ratio=3.9), [SwapTooSlow]),
        (SwapLimits(absolute_difference=2, relative_difference=0.5, argmax_disagreement=0.25), []),
        (SwapLimits(absolute_difference=1.9), [SwapDisagrees]),
        (SwapLimits(relative_difference=0.4), [SwapDisagrees]),
        (SwapLimits(argmax_disagreement=0.2), [SwapDisagrees]),
    ],
)
def test_a_limit_that_is_passed_is_a_fault(limits: SwapLimits, found: list[type[Exception]]) -> None:
    """A limit is the most that may be; without one everything may."""
    compared = Comparison(RECENT, 3, old_seconds=0.01, new_seconds=0.04, outputs=(OUTPUT,))
    assert [type(fault) for fault in faults(compared, limits)] == found


def test_a_difference_below_what_can_be_felt_is_not_slow() -> None:
    """Ten times nothing is nothing."""
    compared = Comparison(RECENT, 3, old_seconds=0.00005, new_seconds=0.0005, outputs=())
    assert list(faults(compared, SwapLimits(latency_ratio=2))) == []


def test_another_shape_passes_any_limit_on_differences() -> None:
    """What cannot be compared cannot be within a limit."""
    compared = Comparison(RECENT, 3, 0.01, 0.01, (OutputComparison("y", shapes_differ=1),))
    (fault,) = faults(compared, SwapLimits(relative_difference=100))
    assert isinstance(fault, SwapDisagrees)
    assert fault.facts["output"] == "y"


def metadata(name: str, *shape: int, data_type: DataType = DataType.FLOAT32) -> TensorMetadata:
    """Describe a tensor."""
    return TensorMetadata(name, data_type, shape)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (Answering(), Answering()),
        (Answering(inputs=(metadata("x", 1, 3),)), Answering()),
        (Answering(), Answering(outputs=(metadata("y", 1, 3),))),
        (Answering(), Answering(optional_inputs=(metadata("extra", 1),))),
    ],
    ids=["same", "takes more shapes", "gives fewer shapes", "may be given more"],
)
def test_a_version_that_serves_every_old_caller_fits(old: Answering, new: Answering) -> None:
    """It may take more than the old one, and give less."""
    check_interface(old, new)
    assert [tensor.name for tensor in old.inputs] == [tensor.name for tensor in new.inputs]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (Answering(), Answering(inputs=(metadata("x", 1, 3),))),
        (Answering(), Answering(inputs=(metadata("z", -1, 3),))),
        (Answering(), Answering(inputs=(X, metadata("more", 1)))),
        (Answering(), Answering(inputs=(metadata("x", -1, 3, data_type=DataType.UINT8),))),
        (Answering(outputs=(metadata("y", 1, 3),)), Answering()),
        (Answering(), Answering(outputs=(Y, metadata("z", 1)))),
        (Answering(outputs=(Y, metadata("z", 1))), Answering()),
        (Answering(optional_inputs=(metadata("extra", 1),)), Answering()),
        (Answering(inputs=(X, metadata("b", 1))), Answering(inputs=(metadata("b", 1), X))),
    ],
    ids=[
        "fewer shapes",
        "other name",
        "one more input",
        "other type",
        "more shapes out",
        "one more output",
        "one output fewer",
        "one optional input fewer",
        "other order",
    ],
)
def test_a_version_that_would_break_a_caller_is_refused(old: Answering, new: Answering) -> None:
    """Whoever calls today must be able to call tomorrow."""
    with pytest.raises(SwapInterfaceMismatch):
        check_interface(old, new)


LIMITS = st.builds(SwapLimits, *[st.none() | st.floats(0, 1e6) for _ in SwapLimits.__dataclass_fields__])


@given(LIMITS, LIMITS)
def test_a_packages_limits_stand_above_the_configurations(package: SwapLimits, configuration: SwapLimits) -> None:
    """And where the package says nothing, the configuration's count."""
    both = package.over(configuration)
    for name in SwapLimits.__dataclass_fields__:
        own = getattr(package, name)
        assert getattr(both, name) == (getattr(configuration, name) if own is None else own)
