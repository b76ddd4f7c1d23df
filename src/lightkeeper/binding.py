"""Which of a call's tensors goes to which of a model's inputs, and whether it fits.

Rules, in order, for the tensor at position `i` of a call:

1. A tensor with a name goes to the input of that name; one without goes to the model's input `i`.
2. Type and shape left out mean the model's own. A dimension of -1, in the call's shape or in the model's own when that
   stands in for it, is worked out from the number of bytes where it is the only one.
3. Type, number of dimensions and every dimension that the model fixes must be the model's.
4. The number of bytes is exactly what type and shape say (open-ended data are cut to it).
5. Each input is given once; every required input is given.

The arrays are views of the caller's bytes: nothing is copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from lightkeeper.errors import (
    TensorDuplicate,
    TensorMissing,
    TensorShapeMismatch,
    TensorShapeUnknown,
    TensorSizeMismatch,
    TensorTypeMismatch,
    TensorUnknown,
)
from lightkeeper.tensor import DYNAMIC, DataType, Tensor, TensorMetadata

Array = npt.NDArray[Any]


class Binding:
    """A model's inputs, ready to take calls. Immutable, so any number of threads may use it."""

    __slots__ = ("_by_name", "_required")

    def __init__(self, required: Sequence[TensorMetadata], optional: Sequence[TensorMetadata] = ()) -> None:
        """Take the inputs that every call gives, in the model's order, and those that a call may give."""
        self._required = tuple(required)
        self._by_name = {metadata.name: metadata for metadata in (*required, *optional)}

    def bind(self, tensors: Sequence[Tensor]) -> dict[str, Array]:
        """Return the array of each input that the call gives, or raise an `InvalidTensor`."""
        arrays: dict[str, Array] = {}
        for position, tensor in enumerate(tensors):
            expected = self._input_for(tensor, position)
            if expected.name in arrays:
                raise TensorDuplicate(f"input {expected.name} is given twice", tensor=expected.name, position=position)
            arrays[expected.name] = _array(tensor, expected)
        for expected in self._required:
            if expected.name not in arrays:
                raise TensorMissing(
                    f"input {expected.name} is missing",
                    tensor=expected.name,
                    expected=_describe(expected.data_type, expected.shape),
                    given=", ".join(arrays) or "no tensor",
                )
        return arrays

    def _input_for(self, tensor: Tensor, position: int) -> TensorMetadata:
        if tensor.name:
            found = self._by_name.get(tensor.name)
            if found:
                return found
        elif position < len(self._required):
            return self._required[position]
        raise TensorUnknown(
            f"the model has no input {tensor.name or f'at position {position}'}",
            tensor=tensor.name,
            position=position,
            expected=", ".join(self._by_name) or "no tensor",
        )


def _array(tensor: Tensor, expected: TensorMetadata) -> Array:
    data, shape = tensor.data, tensor.shape
    if shape is None or tensor.data_type is None:
        shape = expected.shape
    else:
        if tensor.data_type is not expected.data_type:
            raise TensorTypeMismatch(
                f"input {expected.name} is {expected.data_type.name}, not {tensor.data_type.name}",
                tensor=expected.name,
                expected=expected.data_type.name,
                given=tensor.data_type.name,
            )
        if shape != expected.shape:
            _check_shape(shape, expected)
    if DYNAMIC in shape:
        shape = _complete(shape, tensor, expected)
    dtype = expected.data_type.dtype
    size_bytes = prod(shape) * dtype.itemsize
    if len(data) != size_bytes and not (tensor.open_ended and len(data) > size_bytes):
        raise TensorSizeMismatch(
            f"input {expected.name} of {_describe(expected.data_type, shape)} has {size_bytes} bytes, not {len(data)}",
            tensor=expected.name,
            expected=size_bytes,
            given=len(data),
            shape=list(shape),
        )
    return np.ndarray(shape, dtype, data)


def _check_shape(shape: tuple[int, ...], expected: TensorMetadata) -> None:
    fits = len(shape) == len(expected.shape) and all(
        given in (wanted, DYNAMIC) or (wanted == DYNAMIC and given >= 0)
        for given, wanted in zip(shape, expected.shape, strict=True)
    )
    if not fits:
        raise TensorShapeMismatch(
            f"input {expected.name} has the shape {list(expected.shape)}, not {list(shape)}",
            tensor=expected.name,
            expected=list(expected.shape),
            given=list(shape),
        )


def _complete(shape: tuple[int, ...], tensor: Tensor, expected: TensorMetadata) -> tuple[int, ...]:
    """Return the shape with its one open dimension worked out from the number of bytes."""
    shape = tuple(wanted if given == DYNAMIC else given for given, wanted in zip(shape, expected.shape, strict=True))
    known = prod(size for size in shape if size != DYNAMIC) * expected.data_type.dtype.itemsize
    if shape.count(DYNAMIC) == 0:
        return shape
    if shape.count(DYNAMIC) > 1 or not known or tensor.open_ended:
        raise TensorShapeUnknown(
            f"the shape {list(shape)} of input {expected.name} cannot be worked out from {len(tensor.data)} bytes",
            tensor=expected.name,
            expected=_describe(expected.data_type, expected.shape),
            given=f"{len(tensor.data)} bytes",
        )
    size, rest = divmod(len(tensor.data), known)
    if rest:
        raise TensorSizeMismatch(
            f"{len(tensor.data)} bytes are no whole number of rows of input {expected.name}, {known} bytes each",
            tensor=expected.name,
            expected=f"a multiple of {known}",
            given=len(tensor.data),
            shape=list(shape),
        )
    return tuple(size if dimension == DYNAMIC else dimension for dimension in shape)


def _describe(data_type: DataType, shape: Sequence[int]) -> str:
    return f"{data_type.name}{list(shape)}"
