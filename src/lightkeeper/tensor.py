"""Tensors as the agent sees them, apart from any wire format: their types, their metadata, their bytes.

Bytes are little-endian and C-contiguous everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

DYNAMIC = -1
"""A dimension whose size each call chooses."""


class DataType(IntEnum):
    """The element types the local API can carry; the numbers are the wire's."""

    UINT8 = 0
    INT16 = 1
    INT32 = 2
    INT64 = 3
    FLOAT16 = 4
    FLOAT32 = 5
    FLOAT64 = 6

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """The little-endian numpy type of one element."""
        return _DTYPES[self]

    @classmethod
    def from_dtype(cls, dtype: np.dtype[np.generic]) -> DataType | None:
        """Return the data type of a numpy type, in either byte order, or None where the wire has none."""
        return _FROM_NAME.get(dtype.name)


_DTYPES: tuple[np.dtype[np.generic], ...] = tuple(
    np.dtype(code) for code in ("<u1", "<i2", "<i4", "<i8", "<f2", "<f4", "<f8")
)
_FROM_NAME = {_DTYPES[data_type].name: data_type for data_type in DataType}


@dataclass(frozen=True, slots=True)
class TensorMetadata:
    """What a model says of one input or output. `shape` is in elements; -1 stands for a dynamic dimension."""

    name: str
    data_type: DataType
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.data_type.name}{list(self.shape)}"


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a call, as its sender describes it.

    `name` is empty where the sender left it out: the position then tells the input. `data_type` and `shape` are both
    None where the sender left them to the model. `open_ended` data may go on past the tensor's end (a shared segment
    whose size the sender left open): type and shape then say how much of it counts.
    """

    name: str
    data_type: DataType | None
    shape: tuple[int, ...] | None
    data: bytes | memoryview
    open_ended: bool = False
