"""Sampling: captures that the device makes by itself around Predict, without ever harming it.

A sample is a capture like any other, with an id of its own and the name of the rule that chose it. Predict copies its
data and goes on; a thread of its own keeps it, so that a slow disk is not Predict's. At most `WAITING_LIMIT` samples
and `WAITING_LIMIT_BYTES` wait for that thread. One that finds no place there, or is refused (no room, a broken disk, a
destination that cannot be used), is lost: it is counted by reason, and a WARNING says when that begins, an INFO how
many it were when samples are kept again. Predict never sees a refusal.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from lightkeeper.capture.record import NANOSECONDS
from lightkeeper.capture.request import CaptureRequest
from lightkeeper.capture.sampler import Sampler
from lightkeeper.errors import AgentError, MemoryShort, SamplesBehind, Unexpected
from lightkeeper.model import PackageIdentity
from lightkeeper.tensor import DataType, Tensor, TensorMetadata

Array = npt.NDArray[Any]

WAITING_LIMIT = 64
WAITING_LIMIT_BYTES = 64 * 1024 * 1024

log = logging.getLogger(__name__)


class Keeper(Protocol):
    """Takes captures in (see `Recorder.record`)."""

    def record(self, request: CaptureRequest, package: PackageIdentity, *, rule: str = "") -> None:
        """Keep a capture, or raise an `AgentError`."""


@dataclass(frozen=True, slots=True)
class _Sample:
    """A chosen inference, with copies of its data."""

    rule: str
    request: CaptureRequest
    package: PackageIdentity
    size_bytes: int


class Sampling:
    """Chooses samples on Predict's path, and keeps them in a thread of its own (`run`)."""

    def __init__(
        self,
        sampler: Sampler,
        keeper: Keeper,
        *,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._sampler = sampler
        self._keeper = keeper
        self._new_id = new_id
        self._now_ns = now_ns
        self._changed = threading.Condition()
        self._waiting: deque[_Sample] = deque()
        self._waiting_bytes = 0
        self._stopping = False
        self._lock = threading.Lock()
        self._losing = 0
        self.kept: Counter[str] = Counter()
        """How many samples were kept, by rule."""
        self.lost: Counter[str] = Counter()
        """How many samples were lost, by reason code."""

    # --- on Predict's path -------------------------------------------------------------------------------------------

    def consider(
        self,
        alias: str,
        package: PackageIdentity,
        inputs: Mapping[str, Array],
        outputs: Sequence[TensorMetadata],
        arrays: Sequence[Array],
    ) -> None:
        """Queue an inference where a rule chooses it; whatever becomes of that, the inference is as it was.

        Its data have been copied when this returns: they may lie in memory that the caller takes back.
        """
        rule = self._sampler.choose(alias, package.name, outputs, arrays)
        if rule is None:
            return
        answers = {output.name: array for output, array in zip(outputs, arrays, strict=True)}
        try:
            kept_inputs = _copies(inputs) if rule.inputs else []
            kept_outputs = _copies(answers) if rule.outputs else []
        except MemoryError:  # the copy of a large input found no room; the inference itself had it
            self._count_lost(rule.name, MemoryShort("there is no memory for a sample", rule=rule.name))
            return
        request = CaptureRequest(alias, self._new_id(), divmod(self._now_ns(), NANOSECONDS), kept_inputs, kept_outputs)
        size_bytes = sum(len(tensor.data) for tensor in (*kept_inputs, *kept_outputs))
        if not self._queue(_Sample(rule.name, request, package, size_bytes)):
            self._count_lost(
                rule.name, SamplesBehind(f"{len(self._waiting)} samples wait for the disk", waiting=len(self._waiting))
            )

    def _queue(self, sample: _Sample) -> bool:
        with self._changed:
            if len(self._waiting) >= WAITING_LIMIT or self._waiting_bytes + sample.size_bytes > WAITING_LIMIT_BYTES:
                return False
            self._waiting.append(sample)
            self._waiting_bytes += sample.size_bytes
            self._changed.notify()
        return True

    # --- in the thread -----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Keep samples until `stop`, and then those that wait."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopping)
                if not self._waiting:
                    return
            self.keep_waiting()

    def keep_waiting(self) -> None:
        """Keep every sample that waits now."""
        while self._waiting:
            sample = self._waiting.popleft()
            try:
                self._keeper.record(sample.request, sample.package, rule=sample.rule)
            except AgentError as error:
                self._count_lost(sample.rule, error)
            except MemoryError:
                self._count_lost(sample.rule, MemoryShort("there is no memory for a sample", rule=sample.rule))
            except Exception:
                log.exception("sample_failed", extra={"rule": sample.rule})
                self._count_lost(sample.rule, Unexpected("a sample could not be kept"))
            else:
                self._count_kept(sample.rule)
            with self._changed:
                self._waiting_bytes -= sample.size_bytes

    def stop(self) -> None:
        """Have `run` end once nothing waits."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

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


def _copies(arrays: Mapping[str, Array]) -> list[Tensor]:
    """Return arrays as tensors with bytes of their own; one of a type that the wire does not have keeps bytes alone."""
    tensors = []
    for name, array in arrays.items():
        data_type = DataType.from_dtype(array.dtype)
        shape = None if data_type is None else array.shape
        tensors.append(Tensor(name, data_type, shape, array.tobytes()))
    return tensors
