"""Which other files an ONNX model needs: the places of its external data, read without the `onnx` package.

An ONNX file is one protobuf message. This reader walks it as far as tensors can lie, subgraphs and functions included,
and steps over everything else, so that weights are never read. The file is memory-mapped: a large model costs no
memory. Field numbers are those of onnx.proto, which never change once released.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from lightkeeper.errors import SourceUnusable

_LOCATION = b"location"
_EXTERNAL = 1

_CHILDREN = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
}
"""Field number to message type, for each message on the way to a tensor."""
_TENSOR_EXTERNAL_DATA, _TENSOR_DATA_LOCATION = 13, 14
_ENTRY_KEY, _ENTRY_VALUE = 1, 2

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_VARINT_MAXIMUM_BYTES = 10
_DEPTH_MAXIMUM = 200
"""Deeper than any model; a hostile file must not exhaust the stack."""


def external_data(model: Path) -> list[str]:
    """Return the locations of a model's external data, relative to its folder, sorted.

    Raises `SourceUnusable` where the file is not an ONNX model.
    """
    try:
        with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return sorted({location.decode() for location in _locations(data, "Model", 0, len(data), 0)})
    except (OSError, ValueError) as error:  # mmap raises ValueError for an empty file
        raise SourceUnusable(f"{model} is not an ONNX model: {error}", file=model) from error


def _locations(data: mmap.mmap, message: str, start: int, end: int, depth: int) -> Iterator[bytes]:
    """Yield the location of each external tensor in a message that lies from `start` to `end`."""
    if depth > _DEPTH_MAXIMUM:
        raise ValueError("it is nested too deep")
    if message == "Tensor":
        yield from _tensor_location(data, start, end)
        return
    children = _CHILDREN[message]
    for number, begin, finish in _fields(data, start, end):
        if number in children and begin < finish:
            yield from _locations(data, children[number], begin, finish, depth + 1)


def _tensor_location(data: mmap.mmap, start: int, end: int) -> Iterator[bytes]:
    locations = []
    external = False
    for number, begin, finish in _fields(data, start, end):
        if number == _TENSOR_DATA_LOCATION:
            external = _varint(data, begin, finish)[0] == _EXTERNAL
        elif number == _TENSOR_EXTERNAL_DATA:
            entry = {key: data[first:last] for key, first, last in _fields(data, begin, finish)}
            if entry.get(_ENTRY_KEY) == _LOCATION:
                locations.append(entry.get(_ENTRY_VALUE, b""))
    if external:
        yield from locations


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield number, begin and end of each field's value in a message."""
    while start < end:
        tag, start = _varint(data, start, end)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            finish = _varint(data, start, end)[1]
        elif kind == _LENGTH:
            length, start = _varint(data, start, end)
            finish = start + length
        elif kind in (_FIXED64, _FIXED32):
            finish = start + (8 if kind == _FIXED64 else 4)
        else:
            raise ValueError(f"byte {start} is not protobuf")
        if finish > end:
            raise ValueError("it is cut short")
        yield number, start, finish
        start = finish


def _varint(data: mmap.mmap, start: int, end: int) -> tuple[int, int]:
    """Return the number that begins at `start`, and where it ends."""
    value = 0
    for position in range(start, min(start + _VARINT_MAXIMUM_BYTES, end)):
        value |= (data[position] & 0x7F) << (7 * (position - start))
        if data[position] < 0x80:  # noqa: PLR2004  # the bit that says that more bytes follow
            return value, position + 1
    raise ValueError("it is cut short")
