"""Sampling: captures that the device makes by itself around Predict, without ever harming it.

A sample is a capture like any other, with an id of its own and the name of the rule that chose it. One that is refused
(no room, a broken disk, a destination that cannot be used) is lost: it is counted by reason, and a WARNING says when
that begins, an INFO how many it were when samples are kept again. Predict never sees a refusal.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy.typing as npt

from lightkeeper.capture.record import flat
from lightkeeper.capture.recorder import CaptureRequest
from lightkeeper.capture.sampler import Sampler
from lightkeeper.errors import AgentError, MemoryShort
from lightkeeper.model import PackageIdentity
from lightkeeper.tensor import DataType, Tensor, TensorMetadata

Array = npt.NDArray[Any]

log = logging.getLogger(__name__)


class Keeper(Protocol):
    """Takes captures in (see `Recorder.record`)."""

    def record(self, request: CaptureRequest, package: PackageIdentity, *, rule: str = "") -> None:
        """Keep a capture, or raise an `AgentError`."""


class Sampling:
    """Chooses and keeps samples. Any number of threads may use it."""

    def __init__(
        self, sampler: Sampler, keeper: Keeper, *, new_id: Callable[[], str] = lambda: str(uuid.uuid4())
    ) -> None:
        self._sampler = sampler
        self._keeper = keeper
        self._new_id = new_id
        self._lock = threading.Lock()
        self._losing = 0
        self.kept: Counter[str] = Counter()
        """How many samples were kept, by rule."""
        self.lost: Counter[str] = Counter()
        """How many samples were lost, by reason code."""

    def consider(
        self,
        alias: str,
        package: PackageIdentity,
        inputs: Mapping[str, Array],
        outputs: Sequence[TensorMetadata],
        arrays: Sequence[Array],
    ) -> None:
        """Keep an inference where a rule chooses it; whatever becomes of that, the inference is as it was.

        All data have been copied or written when this returns.
        """
        rule = self._sampler.choose(alias, package.name, outputs, arrays)
        if rule is None:
            return
        answers = {output.name: array for output, array in zip(outputs, arrays, strict=True)}
        try:
            kept_inputs = _tensors(inputs) if rule.inputs else ()
            kept_outputs = _tensors(answers) if rule.outputs else ()
            request = CaptureRequest(alias, self._new_id(), None, kept_inputs, kept_outputs)
            self._keeper.record(request, package, rule=rule.name)
        except AgentError as error:
            self._count_lost(rule.name, error)
        except MemoryError:  # the copy of a large input found no room; the inference itself had it
            self._count_lost(rule.name, MemoryShort("there is no memory for a sample", rule=rule.name))
        else:
            self._count_kept(rule.name)

    def _count_kept(self, rule: str) -> None:
        with self._lock:
            self.kept[rule] += 1
            lost, self._losing = self._losing, 0
        if lost:
            log.info("samples_kept_again", extra={"rule": rule, "lost_meanwhile": lost})

    def _count_lost(self, rule: str, error: AgentError) -> None:
        with self._lock:
            self.lost[error.reason] += 1
            first = not self._losing
            self._losing += 1
        if first:
            log.warning("samples_lost", extra={"rule": rule, "reason": error.reason, "detail": error.message})


def _tensors(arrays: Mapping[str, Array]) -> list[Tensor]:
    """Return arrays as tensors over their bytes; one of a type that the local API does not have keeps bytes alone."""
    tensors = []
    for name, array in arrays.items():
        data_type = DataType.from_dtype(array.dtype)
        shape = None if data_type is None else array.shape
        tensors.append(Tensor(name, data_type, shape, flat(array.data)))
    return tensors
