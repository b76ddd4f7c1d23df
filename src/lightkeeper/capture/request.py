"""What an application asks of capture, and what it is told: the values that client, wire and recorder share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from lightkeeper.tensor import Tensor


class CaptureStatus(IntEnum):
    """What became of a capture, as applications are told; the numbers are the wire's."""

    FAILURE = 0
    SUCCESS = 1
    IN_PROGRESS = 2
    NOT_FOUND = 3


@dataclass(frozen=True, slots=True)
class AuxiliaryData:
    """A piece of data beside the tensors, such as the camera's picture."""

    name: str
    data: bytes | memoryview


@dataclass(frozen=True, slots=True)
class CaptureRequest:
    """What an application asks to keep. `time` is seconds and nanoseconds since 1970, or None for now."""

    model: str
    id: str
    time: tuple[int, int] | None
    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]
    auxiliary_inputs: Sequence[AuxiliaryData] = ()
    auxiliary_outputs: Sequence[AuxiliaryData] = ()
