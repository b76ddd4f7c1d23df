"""Messages whose large tensors stay where they lie: out of a request's bytes, and into an answer's parts.

protobuf copies a field of bytes twice on its way in (into the message, and out of it) and twice on its way out. Here
the large ones are taken out of the bytes before protobuf reads the rest, with an empty field in their place, so that
whatever else the message says means what protobuf takes it to mean; and they are put behind the rest as parts of
their own.

Invariants: bytes that are anything but plain fields are left to protobuf as they are; so is a message of more than
`FIELDS_LIMIT` fields, which nobody sends who has tensors to send.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from lightkeeper.tensor import Tensor
from lightkeeper.transport import agent_pb2 as wire
from lightkeeper.transport import codec
from lightkeeper.transport.method import Reply

LARGE_BYTES = 64 * 1024
"""From here on a field is worth the trouble."""

FIELDS_LIMIT = 256

Carriers = Mapping[int, int]
"""The fields of a message that carry data, by number, and the number of the data's own field in each."""

PREDICT: Carriers = {wire.PredictRequest.TENSORS_FIELD_NUMBER: wire.Tensor.BYTE_DATA_FIELD_NUMBER}
CAPTURE: Carriers = {
    wire.CaptureDataRequest.INPUT_TENSORS_FIELD_NUMBER: wire.Tensor.BYTE_DATA_FIELD_NUMBER,
    wire.CaptureDataRequest.OUTPUT_TENSORS_FIELD_NUMBER: wire.Tensor.BYTE_DATA_FIELD_NUMBER,
    wire.CaptureDataRequest.INPUTS_FIELD_NUMBER: wire.AuxilaryData.BYTE_DATA_FIELD_NUMBER,
    wire.CaptureDataRequest.OUTPUTS_FIELD_NUMBER: wire.AuxilaryData.BYTE_DATA_FIELD_NUMBER,
}

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_VARINT_BYTES = 10


class _NotPlain(Exception):  # noqa: N818  # never leaves this file
    """The bytes are for protobuf to judge."""


class _Field(NamedTuple):
    number: int
    begin: int
    """Where the field begins, with its tag."""
    data: int
    """Where its content begins, in a field of bytes."""
    end: int
    has_length: bool


def lifted(body: bytes, carriers: Carriers) -> tuple[bytes, codec.Views]:
    """Return a message's bytes without its large data, and the data."""
    if len(body) < LARGE_BYTES:
        return body, {}
    memory = memoryview(body)
    rest: list[bytes | memoryview] = []
    views: dict[tuple[int, int], memoryview] = {}
    positions = dict.fromkeys(carriers, 0)
    fields_left = FIELDS_LIMIT
    try:
        for field in _fields(memory, 0, len(body), fields_left):
            fields_left -= 1
            data_number = carriers.get(field.number)
            if data_number is None or not field.has_length:
                rest.append(memory[field.begin : field.end])
                continue
            key = (field.number, positions[field.number])
            positions[field.number] += 1
            inner, view, fields_left = _without_data(memory, field, data_number, fields_left)
            rest += (_tag(field.number), _varint(len(inner)), inner)
            if view is not None:
                views[key] = view
    except _NotPlain:
        return body, {}
    return b"".join(rest), views


def _without_data(
    memory: memoryview, field: _Field, data_number: int, fields_left: int
) -> tuple[bytes, memoryview | None, int]:
    """Return a carrier's bytes with an empty field for large data, the data, and how many fields may still come."""
    rest: list[bytes | memoryview] = []
    view = None
    for inner in _fields(memory, field.data, field.end, fields_left):
        fields_left -= 1
        if inner.number == data_number and inner.has_length:
            # of several the last counts
            view = memory[inner.data : inner.end] if inner.end - inner.data >= LARGE_BYTES else None
            if view is not None:
                rest += (_tag(data_number), b"\0")
                continue
        rest.append(memory[inner.begin : inner.end])
    return b"".join(rest), view, fields_left


def _fields(memory: memoryview, position: int, end: int, most: int) -> Iterable[_Field]:
    while position < end:
        most -= 1
        if most < 0:
            raise _NotPlain
        begin = position
        tag, position = _read_varint(memory, position, end)
        number, kind = tag >> 3, tag & 7
        data = position
        if kind == _LENGTH:
            length, data = _read_varint(memory, position, end)
            position = data + length
        elif kind == _VARINT:
            _, position = _read_varint(memory, position, end)
        elif kind == _FIXED64:
            position += 8
        elif kind == _FIXED32:
            position += 4
        else:
            raise _NotPlain
        if position > end or not number or number >= 1 << 29:
            raise _NotPlain
        yield _Field(number, begin, data, position, kind == _LENGTH)


def _read_varint(memory: memoryview, position: int, end: int) -> tuple[int, int]:
    value = shift = 0
    for byte in memory[position : min(end, position + _VARINT_BYTES)]:
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004  # the bit that says whether more follows
            return value, position
        shift += 7
    raise _NotPlain


def predict_reply(outputs: Iterable[Tensor]) -> bytes | Reply:
    """Return the bytes of a `PredictResponse`, in parts where an output is large."""
    parts: list[bytes | memoryview] = []
    response = wire.PredictResponse()
    for tensor in outputs:
        if memoryview(tensor.data).nbytes >= LARGE_BYTES:
            parts.append(response.SerializeToString())
            parts += _tensor_parts(tensor)
            response = wire.PredictResponse()
        else:
            codec.tensor_to_wire(tensor, response.tensors.add())
    last = response.SerializeToString()
    return Reply([*parts, last]) if parts else last


def _tensor_parts(tensor: Tensor) -> tuple[bytes, memoryview]:
    view = memoryview(tensor.data)
    if not view.c_contiguous:
        view = memoryview(view.tobytes())
    message = wire.Tensor()
    if tensor.data_type is not None and tensor.shape is not None:
        codec.describe(tensor.name, tensor.data_type, tensor.shape, message.tensor_metadata)
    head = message.SerializeToString() + _tag(wire.Tensor.BYTE_DATA_FIELD_NUMBER) + _varint(view.nbytes)
    return _tag(wire.PredictResponse.TENSORS_FIELD_NUMBER) + _varint(len(head) + view.nbytes) + head, view


def _tag(number: int) -> bytes:
    return _varint(number << 3 | _LENGTH)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:  # noqa: PLR2004  # what seven bits hold
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
