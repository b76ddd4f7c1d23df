"""A new version beside the old one: both answer the same inputs, and limits say how much they may differ.

What is compared, for every input: whether the new version answers where the old one does; how long each takes; and for
each output the largest absolute difference, the largest relative one (as a part of the largest magnitude in the old
output), and the share of rows whose largest element is another one, where the output has rows of floating-point
numbers. NaN equals NaN, and an infinity the same infinity; anything else beside them differs infinitely.

Nothing here knows where inputs come from, or what happens to the versions afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lightkeeper.errors import AgentError, SwapDisagrees, SwapInterfaceMismatch, SwapRunFailed, SwapTooSlow
from lightkeeper.modelpackage.manifest import SwapLimits
from lightkeeper.models.report import Comparison, OutputComparison
from lightkeeper.recent import Inputs
from lightkeeper.runtimes.base import Session
from lightkeeper.tensor import DYNAMIC, TensorMetadata

Array = npt.NDArray[Any]

TIMED_RUNS_LEAST = 5
"""How often each version runs at least, so that its time is a median; few inputs are then answered more than once."""

MOST_SECONDS = 30.0
"""After so long no further input is compared."""

LATENCY_GRACE_SECONDS = 0.001
"""A version that takes no longer than this beyond the old one is not slow, whatever the ratio."""


def check_interface(old: Session, new: Session) -> None:
    """Raise `SwapInterfaceMismatch` unless every call that fits the old version fits the new one, and so its answer."""
    takes = {tensor.name: tensor for tensor in (*new.inputs, *new.optional_inputs)}
    for tensor in (*old.inputs, *old.optional_inputs):
        if tensor.name not in takes or not _fits(tensor, takes[tensor.name]):
            raise _mismatch("input", tensor, takes.get(tensor.name))
    known = {tensor.name for tensor in old.inputs}
    for tensor in new.inputs:
        if tensor.name not in known:
            raise _mismatch("input", None, tensor)
    # Callers may bind inputs by position, and outputs come by position.
    if [tensor.name for tensor in old.inputs] != [tensor.name for tensor in new.inputs]:
        raise SwapInterfaceMismatch(
            "the new version's inputs come in another order",
            old=", ".join(tensor.name for tensor in old.inputs),
            new=", ".join(tensor.name for tensor in new.inputs),
        )
    gives = [*new.outputs, *[None] * len(old.outputs)]
    for tensor, given in zip(old.outputs, gives, strict=False):
        if given is None or given.name != tensor.name or not _fits(given, tensor):
            raise _mismatch("output", tensor, given)
    if len(new.outputs) > len(old.outputs):
        raise _mismatch("output", None, new.outputs[len(old.outputs)])


def compare(
    old: Session,
    new: Session,
    inputs: Sequence[Inputs],
    source: str,
    advance: Callable[[int, int], None] = lambda _done, _all: None,
) -> Comparison:
    """Run both versions on each input, in turns, and return how they did.

    `advance` is told how many of how many runs are done. An input on which the old version fails is passed over.
    Raises `SwapRunFailed` where the new version fails and the old one does not.
    """
    columns = [_Column(tensor.name) for tensor in old.outputs]
    times: tuple[list[float], list[float]] = ([], [])
    answered = 0
    runs = max(len(inputs), TIMED_RUNS_LEAST) if inputs else 0
    started = time.monotonic()
    for run in range(runs):
        given = inputs[-1 - run % len(inputs)]  # the newest first
        if run and time.monotonic() - started > MOST_SECONDS:
            break
        pair = _both(old, new, given, new_first=bool(run % 2))
        advance(run + 1, runs)
        if pair is None:
            continue
        for took, seconds in zip(times, (pair.old_seconds, pair.new_seconds), strict=True):
            took.append(seconds)
        if run < len(inputs):
            answered += 1
            for column, expected, actual in zip(columns, pair.old, pair.new, strict=True):
                column.add(expected, actual)
    old_seconds, new_seconds = (float(np.median(took)) if took else 0.0 for took in times)
    return Comparison(source, answered, old_seconds, new_seconds, tuple(column.result() for column in columns))


def faults(comparison: Comparison, limits: SwapLimits) -> Iterator[AgentError]:
    """Yield each limit that a comparison passes."""
    slower_seconds = comparison.new_seconds - comparison.old_seconds
    ratio = limits.latency_ratio
    if ratio is not None and slower_seconds > LATENCY_GRACE_SECONDS and comparison.latency_ratio > ratio:
        yield SwapTooSlow(
            f"the new version takes {comparison.new_seconds * 1000:.3g} ms where the old one takes "
            f"{comparison.old_seconds * 1000:.3g} ms",
            latency_ratio=f"{comparison.latency_ratio:.3g}",
            limit=ratio,
            inputs=comparison.inputs,
        )
    for output in comparison.outputs:
        for name in ("absolute_difference", "relative_difference", "argmax_disagreement"):
            limit: float | None = getattr(limits, name)
            given: float | None = getattr(output, name)
            if limit is None or given is None:
                continue
            if output.shapes_differ:
                yield SwapDisagrees(
                    f"the output {output.name!r} has another shape for {output.shapes_differ} of "
                    f"{comparison.inputs} inputs",
                    output=output.name,
                    limit=f"{name} {limit:g}",
                )
                break
            if given > limit:
                yield SwapDisagrees(
                    f"the output {output.name!r} differs too much: {name.replace('_', ' ')} {given:.3g}",
                    output=output.name,
                    given=f"{name} {given:.6g}",
                    limit=f"{name} {limit:g}",
                    inputs=comparison.inputs,
                )


@dataclass(frozen=True, slots=True)
class _Pair:
    old: list[Array]
    new: list[Array]
    old_seconds: float
    new_seconds: float


def _both(old: Session, new: Session, given: Inputs, *, new_first: bool) -> _Pair | None:
    """Run both versions; None where the old one fails as well."""
    order = (new, old) if new_first else (old, new)
    answers: dict[int, list[Array] | AgentError] = {}
    seconds: dict[int, float] = {}
    for session in order:
        started = time.perf_counter()
        try:
            answers[id(session)] = session.run(given)
        except AgentError as error:
            answers[id(session)] = error
        seconds[id(session)] = time.perf_counter() - started
    expected, actual = answers[id(old)], answers[id(new)]
    if isinstance(expected, AgentError):
        return None
    if isinstance(actual, AgentError):
        raise SwapRunFailed(
            f"the new version fails on an input that the old one answers: {actual.message}", cause=actual.reason
        ) from actual
    return _Pair(expected, actual, seconds[id(old)], seconds[id(new)])


class _Column:
    """One output while inputs are being compared."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._absolute = self._relative = 0.0
        self._rows = self._rows_off = self._shapes_differ = 0

    def add(self, expected: Array, actual: Array) -> None:
        if expected.shape != actual.shape:
            self._shapes_differ += 1
            return
        if not expected.size:
            return
        wide_expected, wide_actual = np.asarray(expected, np.float64), np.asarray(actual, np.float64)
        with np.errstate(all="ignore"):  # infinities and NaN may be there: that is judged here
            off = np.abs(wide_actual - wide_expected)
            same = (wide_actual == wide_expected) | (np.isnan(wide_actual) & np.isnan(wide_expected))
            off = np.where(same, 0.0, np.nan_to_num(off, nan=np.inf, posinf=np.inf))
            largest, magnitude = float(off.max()), float(np.nan_to_num(np.abs(wide_expected)).max())
        self._absolute = max(self._absolute, largest)
        relative = largest / magnitude if magnitude else (np.inf if largest else 0.0)
        self._relative = max(self._relative, relative)
        if expected.dtype.kind == "f" and expected.ndim and expected.shape[-1] > 1:
            rows = wide_expected.reshape(-1, expected.shape[-1]), wide_actual.reshape(-1, expected.shape[-1])
            picked, given = (row.argmax(axis=1) for row in rows)
            self._rows += picked.size
            self._rows_off += int(np.count_nonzero(picked != given))

    def result(self) -> OutputComparison:
        share = self._rows_off / self._rows if self._rows else None
        return OutputComparison(self._name, self._absolute, self._relative, share, self._shapes_differ)


def _fits(narrow: TensorMetadata, wide: TensorMetadata) -> bool:
    return (
        narrow.data_type is wide.data_type
        and len(narrow.shape) == len(wide.shape)
        and all(into in (size, DYNAMIC) for size, into in zip(narrow.shape, wide.shape, strict=True))
    )


def _mismatch(kind: str, old: TensorMetadata | None, new: TensorMetadata | None) -> SwapInterfaceMismatch:
    return SwapInterfaceMismatch(
        f"the new version's {kind}s do not fit the callers of the old one", old=old or "none", new=new or "none"
    )
