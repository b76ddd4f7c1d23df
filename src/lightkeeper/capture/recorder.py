"""Admission: what CaptureData is given becomes a capture in the spool, or a refusal that says why.

Checks, in order: the id, the time, each tensor and each piece of auxiliary data, the destination; buffer, room and
the id's uniqueness are the spool's. Refusals for want of room are counted by reason, and a WARNING says so at the first
one and then at most once in `WARNING_INTERVAL_SECONDS`, with the count.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from math import prod

from lightkeeper.capture.record import NANOSECONDS, Capture, Part, Payload, content_type_of, store, tensor_payload
from lightkeeper.capture.request import AuxiliaryData, CaptureRequest
from lightkeeper.capture.spool import Batch, Spool
from lightkeeper.errors import (
    AuxiliaryDataInvalid,
    CaptureDestinationUnusable,
    ResourcesExhausted,
    TensorShapeMismatch,
    TensorSizeMismatch,
    TimestampInFuture,
    TimestampInvalid,
)
from lightkeeper.model import PackageIdentity
from lightkeeper.names import check_capture_id
from lightkeeper.tensor import Tensor

FUTURE_SLACK_SECONDS = 1
"""How far ahead of the device's clock a capture's time may be: readings of one clock differ by less."""

LATEST_SECONDS = 253_402_300_799
"""The last second of the year 9999, the last that the line's time can say."""

WARNING_INTERVAL_SECONDS = 60.0

log = logging.getLogger(__name__)


class Recorder:
    """Takes captures in. Any number of threads may use it."""

    def __init__(  # noqa: PLR0913  # neighbours and clocks, each of which a test replaces
        self,
        spool: Spool,
        *,
        embed_limit_bytes: int,
        destination_fault: Callable[[], str | None],
        accepted: Callable[[Batch | None], None],
        now_ns: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the spool, and its neighbours.

        `destination_fault` tells why captures could never be delivered, or None while they can; `accepted` is told of
        each capture that is in, with the batch that it closed.
        """
        self._accepted = accepted
        self._spool = spool
        self._embed_limit_bytes = embed_limit_bytes
        self._destination_fault = destination_fault
        self._now_ns = now_ns
        self._monotonic = monotonic
        self._warned_at: dict[str, float] = {}
        self.refused: Counter[str] = Counter()
        """How many captures found no room, by reason code."""
        self.latest_ns: dict[str, int] = {}
        """When a capture of a model was last kept, an application's or a rule's, by the name it is loaded under."""

    def record(self, request: CaptureRequest, package: PackageIdentity, *, rule: str = "") -> None:
        """Keep a capture; it is durable, as configured, when this returns.

        Raises an `InvalidRequest`, `TimestampInFuture`, `CaptureDestinationUnusable`, `CaptureIdTaken`,
        `CaptureBufferFull`, `SpoolFull`, `SpoolDiskFull` or `SpoolBroken`.
        """
        check_capture_id(request.id)
        time_ns = self._time_ns(request.time)
        payloads = (
            *_tensors(Part.INPUT, request.inputs),
            *_tensors(Part.OUTPUT, request.outputs),
            *_auxiliary(Part.AUXILIARY_INPUT, request.auxiliary_inputs),
            *_auxiliary(Part.AUXILIARY_OUTPUT, request.auxiliary_outputs),
        )
        fault = self._destination_fault()
        if fault is not None:
            raise CaptureDestinationUnusable(f"captures cannot be delivered as configured: {fault}", cause=fault)
        capture = Capture(request.id, package.name, package.version, package.digest, time_ns, payloads, rule)
        try:
            batch = self._spool.accept(store(capture, embed_limit_bytes=self._embed_limit_bytes))
        except ResourcesExhausted as error:
            self._count(error)
            raise
        self.latest_ns[request.model] = self._now_ns()
        self._accepted(batch)

    def _time_ns(self, given: tuple[int, int] | None) -> int:
        now_ns = self._now_ns()
        if given is None or given == (0, 0):
            return now_ns
        seconds, nanoseconds = given
        if not 0 <= nanoseconds < NANOSECONDS or not 0 <= seconds <= LATEST_SECONDS:
            raise TimestampInvalid(
                f"{seconds} seconds and {nanoseconds} nanoseconds are no time", seconds=seconds, nanos=nanoseconds
            )
        time_ns = seconds * NANOSECONDS + nanoseconds
        if time_ns > now_ns + FUTURE_SLACK_SECONDS * NANOSECONDS:
            ahead_seconds = (time_ns - now_ns) // NANOSECONDS
            raise TimestampInFuture(
                f"the inference time lies {ahead_seconds} s in the future", given=seconds, now=now_ns // NANOSECONDS
            )
        return time_ns

    def _count(self, error: ResourcesExhausted) -> None:
        self.refused[error.reason] += 1
        now = self._monotonic()
        if now - self._warned_at.get(error.reason, -WARNING_INTERVAL_SECONDS) >= WARNING_INTERVAL_SECONDS:
            self._warned_at[error.reason] = now
            log.warning(
                "captures_refused",
                extra={"reason": error.reason, "detail": error.message, "refused": self.refused[error.reason]},
            )


def _tensors(part: Part, tensors: Sequence[Tensor]) -> list[Payload]:
    return [tensor_payload(part, _checked(tensor, position), position) for position, tensor in enumerate(tensors)]


def _checked(tensor: Tensor, position: int) -> Tensor:
    """Return the tensor with exactly the bytes that its type and shape say, where it has them.

    A capture's tensor need not be one of the model's: only the sender's own words are held against the bytes.
    """
    if tensor.data_type is None or tensor.shape is None:
        return tensor
    name = tensor.name or f"at position {position}"
    if any(size < 0 for size in tensor.shape):
        raise TensorShapeMismatch(
            f"tensor {name} has the shape {list(tensor.shape)}", tensor=name, given=list(tensor.shape)
        )
    size_bytes = prod(tensor.shape) * tensor.data_type.dtype.itemsize
    if len(tensor.data) == size_bytes:
        return tensor
    if tensor.open_ended and len(tensor.data) > size_bytes:
        return Tensor(tensor.name, tensor.data_type, tensor.shape, memoryview(tensor.data)[:size_bytes])
    raise TensorSizeMismatch(
        f"tensor {name} of {tensor.data_type.name}{list(tensor.shape)} has {size_bytes} bytes, not {len(tensor.data)}",
        tensor=name,
        expected=size_bytes,
        given=len(tensor.data),
    )


def _auxiliary(part: Part, pieces: Sequence[AuxiliaryData]) -> list[Payload]:
    payloads = []
    for position, piece in enumerate(pieces):
        if not piece.name:
            raise AuxiliaryDataInvalid(f"auxiliary data at position {position} has no name", position=position)
        payloads.append(Payload(part, piece.name, content_type_of(piece.name), piece.data))
    return payloads
