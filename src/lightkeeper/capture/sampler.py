"""The sampler: which inferences the device captures by itself, by the rules of the configuration.

It sits on Predict's path. A model that no rule is about costs one dictionary look-up; a rule costs a counter, a random
number or a look at one output. Nothing here writes, waits or fails: what becomes of a chosen inference is
`lightkeeper.capture.sampling`'s. Clauses cited here are those of docs/spec/capture.md.

Invariants: of the rules about a model, in the order of the configuration, the first that chooses an inference counts,
and the later ones do not see it (4.3). Every n-th is counted for each rule and model apart; limits for each rule over
all its models, in whole minutes and days since the sampler was made (4.6).
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from itertools import count
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from lightkeeper.config.rules import ANY_MODEL, Band, CaptureRule, Measure
from lightkeeper.tensor import DYNAMIC, TensorMetadata

Array = npt.NDArray[Any]

MINUTE_SECONDS = 60
DAY_SECONDS = 86_400
MAX_MODELS_REMEMBERED = 1024
"""Of how many models the rules are kept ready; beyond that all are found again."""

log = logging.getLogger(__name__)


class Sampler:
    """Chooses inferences. Any number of threads may use it."""

    def __init__(
        self,
        rules: Sequence[CaptureRule],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] | None = None,
    ) -> None:
        """Take the rules, a clock in seconds, and what draws random numbers from 0 to below 1."""
        self._rules = tuple((rule, _Limits(rule, monotonic)) for rule in rules)
        self._draw = draw or random.Random().random  # noqa: S311 - a sample, no secret
        self._of_model: dict[tuple[str, str], tuple[_Test, ...]] = {}

    def choose(
        self, alias: str, package: str, outputs: Sequence[TensorMetadata], arrays: Sequence[Array]
    ) -> CaptureRule | None:
        """Return the rule that chooses an inference, or None.

        `alias` is the name the model is loaded under, `package` its package's; `arrays` are the values of `outputs`.
        """
        tests = self._of_model.get((alias, package))
        if tests is None:
            tests = self._find(alias, package, outputs)
        for test in tests:
            if test.chooses(arrays):
                return test.rule
        return None

    def _find(self, alias: str, package: str, outputs: Sequence[TensorMetadata]) -> tuple[_Test, ...]:
        """Make the tests of a model that is seen for the first time; a band that can never hold is said once."""
        tests = []
        for rule, limits in self._rules:
            if rule.model not in {ANY_MODEL, alias, package}:
                continue
            place = _place(rule.band, outputs)
            if place is None:
                log.warning(
                    "capture_rule_without_output",
                    extra={"rule": rule.name, "model": alias, "outputs": [output.name for output in outputs]},
                )
                continue
            tests.append(_Test(rule, limits, place, self._draw))
        if len(self._of_model) >= MAX_MODELS_REMEMBERED:
            self._of_model.clear()
        return self._of_model.setdefault((alias, package), tuple(tests))


class _Test:
    """One rule about one model."""

    __slots__ = ("_draw", "_limits", "_place", "_seen", "rule")

    def __init__(self, rule: CaptureRule, limits: _Limits, place: int, draw: Callable[[], float]) -> None:
        self.rule = rule
        self._limits = limits
        self._place = place
        self._draw = draw
        self._seen = count(1)  # counts in one step, which no other thread can come into

    def chooses(self, arrays: Sequence[Array]) -> bool:
        rule = self.rule
        if rule.every is not None:
            fits = next(self._seen) % rule.every == 0
        elif rule.share is not None:
            fits = self._draw() < rule.share
        else:
            fits = rule.band is not None and _holds(rule.band, arrays[self._place])
        return fits and self._limits.admit()


class _Limits:
    """How many captures a rule may still make in this minute and this day."""

    __slots__ = ("_lock", "_monotonic", "_started", "_windows")

    def __init__(self, rule: CaptureRule, monotonic: Callable[[], float]) -> None:
        limits = ((MINUTE_SECONDS, rule.per_minute), (DAY_SECONDS, rule.per_day))
        self._windows = [[seconds, limit, 0, 0] for seconds, limit in limits if limit is not None]
        self._monotonic = monotonic
        self._started = monotonic()
        self._lock = threading.Lock()

    def admit(self) -> bool:
        """Count one in, where every limit has room for it."""
        if not self._windows:
            return True
        with self._lock:
            passed = self._monotonic() - self._started
            for window in self._windows:
                number = int(passed // window[0])
                if number != window[2]:
                    window[2:] = number, 0
            if any(used >= limit for _, limit, _, used in self._windows):
                return False
            for window in self._windows:
                window[3] += 1
            return True


def _place(band: Band | None, outputs: Sequence[TensorMetadata]) -> int | None:
    """Return which output a band is about, or None where the model has no such output or element."""
    if band is None:
        return 0
    for position, output in enumerate(outputs):
        if band.output in {"", output.name}:
            size = None if DYNAMIC in output.shape else prod(output.shape)
            beyond = isinstance(band.index, int) and size is not None and band.index >= size
            return None if beyond else position
    return None


def _holds(band: Band, array: Array) -> bool:
    """Whether the value that the band is about lies in it; an array without such a value has none that does."""
    values = array.reshape(-1)
    if band.index is Measure.ANY:
        return bool(((values >= band.low) & (values <= band.high)).any())
    if isinstance(band.index, int):
        return band.index < values.size and bool(band.low <= values[band.index] <= band.high)
    if values.size < (2 if band.index is Measure.MARGIN else 1):
        return False
    if band.index is Measure.MAX:
        value = values.max()
    elif band.index is Measure.MIN:
        value = values.min()
    else:
        second, largest = np.partition(values, -2)[-2:]
        value = float(largest) - float(second)
    return bool(band.low <= value <= band.high)
