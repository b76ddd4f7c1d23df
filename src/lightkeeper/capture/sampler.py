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
            place = 0 if rule.band is None else _place(rule.band, outputs)
            if place is None:
                log.warning(
                    "capture_rule_without_output",
                    extra={"rule": rule.name, "model": alias, "outputs": [output.name for output in outputs]},
                )
                continue
            look = None if rule.band is None else _Look(rule.band, place, outputs[place].data_type.dtype)
            tests.append(_Test(rule, limits, look, self._draw))
        if len(self._of_model) >= MAX_MODELS_REMEMBERED:
            self._of_model.clear()
        return self._of_model.setdefault((alias, package), tuple(tests))


class _Test:
    """One rule about one model."""

    __slots__ = ("_draw", "_limits", "_look", "_seen", "rule")

    def __init__(self, rule: CaptureRule, limits: _Limits, look: _Look | None, draw: Callable[[], float]) -> None:
        self.rule = rule
        self._limits = limits
        self._look = look
        self._draw = draw
        self._seen = count(1)  # counts in one step, which no other thread can come into

    def chooses(self, arrays: Sequence[Array]) -> bool:
        """Whether the rule chooses this inference."""
        rule = self.rule
        if rule.every is not None:
            fits = next(self._seen) % rule.every == 0
        elif rule.share is not None:
            fits = self._draw() < rule.share
        else:
            fits = self._look is not None and self._look.holds(arrays)
        return fits and self._limits.admit()


class _Look:
    """A look at one output: whether the value that a band is about lies in it."""

    __slots__ = ("_high", "_index", "_low", "_place")

    def __init__(self, band: Band, place: int, dtype: np.dtype[np.generic]) -> None:
        self._place = place
        self._index = band.index
        # In the output's own type, so that a value of 0.6 is not above an end of 0.6.
        with np.errstate(over="ignore"):
            rounded = dtype.type if dtype.kind == "f" else float
            self._low, self._high = rounded(band.low), rounded(band.high)

    def holds(self, arrays: Sequence[Array]) -> bool:
        """Whether the value lies in the band; an array that has no such value has none that does."""
        values, index, low, high = arrays[self._place].reshape(-1), self._index, self._low, self._high
        if index is Measure.ANY:
            return bool(((values >= low) & (values <= high)).any())
        if isinstance(index, int):
            return index < values.size and bool(low <= values[index] <= high)
        if values.size < (2 if index is Measure.MARGIN else 1):
            return False
        if index is Measure.MARGIN:
            second, largest = np.partition(values, -2)[-2:].tolist()
            return bool(float(low) <= largest - second <= float(high))
        return bool(low <= (values.max() if index is Measure.MAX else values.min()) <= high)


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


def _place(band: Band, outputs: Sequence[TensorMetadata]) -> int | None:
    """Return which output a band is about, or None where the model has no such output or element."""
    for position, output in enumerate(outputs):
        if band.output in {"", output.name}:
            size = None if DYNAMIC in output.shape else prod(output.shape)
            beyond = isinstance(band.index, int) and size is not None and band.index >= size
            return None if beyond else position
    return None
