"""Wire messages to frozen values and back. Nothing above or below this file touches a field of a message.

On the wire a tensor's metadata may be absent or carry a name alone. A name alone is a metadata whose type is 0 (which
is also UINT8) and whose shape is empty (which is also a scalar's): the model's own type and shape then count, which
for a UINT8 scalar is the same.

Names are bytes on the wire; here they are text in which a byte that is no UTF-8 becomes a surrogate, so that every
name comes back as it went.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar, cast

from google.protobuf.message import DecodeError, Message

from lightkeeper.capture.request import AuxiliaryData, CaptureRequest
from lightkeeper.errors import AuxiliaryDataInvalid, MessageMalformed, TensorDataMissing, TensorTypeMismatch
from lightkeeper.model import ModelDescription
from lightkeeper.tensor import DataType, Tensor, TensorMetadata
from lightkeeper.transport import agent_pb2 as wire
from lightkeeper.transport.shared_memory import Attachments

MessageType = TypeVar("MessageType", bound=Message)
_DATA_TYPES = tuple(DataType)


def parse(message: type[MessageType], body: bytes) -> MessageType:
    """Return the message in a request's bytes, or raise `MessageMalformed`."""
    try:
        return message.FromString(body)
    except DecodeError as error:
        raise MessageMalformed(
            f"the request is not a {message.DESCRIPTOR.full_name}",
            message_type=message.DESCRIPTOR.full_name,
            size_bytes=len(body),
        ) from error


Views = Mapping[tuple[int, int], memoryview]
"""Data that were taken out of a message, by the number of the field that carries them and its position among those."""


def tensor_from_wire(
    message: wire.Tensor, position: int, attachments: Attachments, taken: memoryview | None = None
) -> Tensor:
    """Return a request's tensor; its data are the message's bytes or lie in shared memory (see `Attachments`).

    `taken` is what was taken out of the message where it has an empty `byte_data`.
    """
    name, data_type, shape = "", None, None
    if message.HasField("tensor_metadata"):
        metadata = message.tensor_metadata
        name = name_from_wire(metadata.name)
        if metadata.data_type or metadata.shape:
            data_type, shape = _data_type(metadata.data_type, name or f"at position {position}"), tuple(metadata.shape)
    source = message.WhichOneof("data")
    if source == "byte_data":
        return Tensor(name, data_type, shape, message.byte_data if taken is None else taken)
    if source == "shared_memory_handle":
        handle = message.shared_memory_handle
        view = attachments.view(handle.segment_id, handle.offset, handle.size)
        return Tensor(name, data_type, shape, view, open_ended=not handle.size)
    raise TensorDataMissing(
        f"tensor {name or f'at position {position}'} has neither byte_data nor a shared_memory_handle",
        tensor=name,
        position=position,
    )


def capture_from_wire(message: wire.CaptureDataRequest, attachments: Attachments, taken: Views) -> CaptureRequest:
    """Return what an application asks to keep; `taken` are the data that were taken out of the message."""

    def tensors(number: int, messages: Iterable[wire.Tensor]) -> list[Tensor]:
        return [
            tensor_from_wire(item, position, attachments, taken.get((number, position)))
            for position, item in enumerate(messages)
        ]

    def auxiliary(number: int, messages: Iterable[wire.AuxilaryData]) -> list[AuxiliaryData]:
        return [
            _auxiliary_from_wire(item, position, attachments, taken.get((number, position)))
            for position, item in enumerate(messages)
        ]

    field = wire.CaptureDataRequest

    time = None
    if message.HasField("inference_timestamp"):
        time = (message.inference_timestamp.seconds, message.inference_timestamp.nanos)
    return CaptureRequest(
        message.model_name,
        message.capture_id,
        time,
        tensors(field.INPUT_TENSORS_FIELD_NUMBER, message.input_tensors),
        tensors(field.OUTPUT_TENSORS_FIELD_NUMBER, message.output_tensors),
        auxiliary(field.INPUTS_FIELD_NUMBER, message.inputs),
        auxiliary(field.OUTPUTS_FIELD_NUMBER, message.outputs),
    )


def capture_to_wire(request: CaptureRequest) -> wire.CaptureDataRequest:
    """Return the message of what an application asks to keep."""
    message = wire.CaptureDataRequest(model_name=request.model, capture_id=request.id)
    if request.time is not None:
        message.inference_timestamp.seconds, message.inference_timestamp.nanos = request.time
    for tensors, messages in ((request.inputs, message.input_tensors), (request.outputs, message.output_tensors)):
        for tensor in tensors:
            tensor_to_wire(tensor, messages.add())
    for pieces, additions in ((request.auxiliary_inputs, message.inputs), (request.auxiliary_outputs, message.outputs)):
        for piece in pieces:
            additions.add(name=piece.name, encoding=wire.NONE, byte_data=bytes(piece.data))
    return message


def tensor_to_wire(tensor: Tensor, into: wire.Tensor) -> None:
    """Fill a tensor of a message; the bytes are copied."""
    if tensor.data_type is not None and tensor.shape is not None:
        describe(tensor.name, tensor.data_type, tensor.shape, into.tensor_metadata)
    into.byte_data = tensor.data.tobytes() if isinstance(tensor.data, memoryview) else tensor.data


def describe(name: str, data_type: DataType, shape: Sequence[int], into: wire.TensorMetadata) -> None:
    """Fill a tensor's metadata; an empty name is left out."""
    if name:
        into.name = name_to_wire(name)
    into.data_type = cast("wire.DataType", data_type)  # the numbers are the same
    into.shape.extend(shape)


def model_to_wire(model: ModelDescription, into: wire.Model) -> None:
    """Fill a response's model."""
    into.url = model.url
    into.name = model.name
    for metadata in model.inputs:
        describe(metadata.name, metadata.data_type, metadata.shape, into.input_tensor_metadatas.add())
    for metadata in model.outputs:
        describe(metadata.name, metadata.data_type, metadata.shape, into.output_tensor_metadatas.add())


def model_from_wire(message: wire.Model) -> ModelDescription:
    """Return the model of a response."""
    return ModelDescription(
        name=message.name,
        url=message.url,
        inputs=tuple(map(_metadata_from_wire, message.input_tensor_metadatas)),
        outputs=tuple(map(_metadata_from_wire, message.output_tensor_metadatas)),
    )


def name_from_wire(name: bytes) -> str:
    """Return a tensor's name as text."""
    return name.decode("utf-8", "surrogateescape")


def name_to_wire(name: str) -> bytes:
    """Return a tensor's name as the bytes it came as."""
    return name.encode("utf-8", "surrogateescape")


def _auxiliary_from_wire(
    message: wire.AuxilaryData, position: int, attachments: Attachments, taken: memoryview | None
) -> AuxiliaryData:
    source = message.WhichOneof("data")
    if source == "byte_data":
        return AuxiliaryData(message.name, message.byte_data if taken is None else taken)
    if source == "shared_memory_handle":
        handle = message.shared_memory_handle
        return AuxiliaryData(message.name, attachments.view(handle.segment_id, handle.offset, handle.size))
    raise AuxiliaryDataInvalid(
        f"auxiliary data {message.name or f'at position {position}'} have neither byte_data nor a shared_memory_handle",
        name=message.name,
        position=position,
    )


def _metadata_from_wire(message: wire.TensorMetadata) -> TensorMetadata:
    return TensorMetadata(name_from_wire(message.name), DataType(message.data_type), tuple(message.shape))


def _data_type(number: int, tensor: str) -> DataType:
    if 0 <= number < len(_DATA_TYPES):  # open enums: any number may arrive
        return _DATA_TYPES[number]
    raise TensorTypeMismatch(f"tensor {tensor} has the unknown data type {number}", tensor=tensor, given=number)
