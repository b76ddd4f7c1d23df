"""Messages to values and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightkeeper.errors import MessageMalformed, TensorDataMissing, TensorTypeMismatch
from lightkeeper.model import ModelDescription
from lightkeeper.tensor import DataType, Tensor, TensorMetadata
from lightkeeper.transport import agent_pb2 as wire
from lightkeeper.transport import codec
from lightkeeper.transport.kept_segments import KeptSegments
from lightkeeper.transport.shared_memory import Attachments

names = st.binary(max_size=20).map(codec.name_from_wire)
shapes = st.lists(st.integers(-1, 2**31 - 1), max_size=5).map(tuple)
metadatas = st.builds(TensorMetadata, names, st.sampled_from(DataType), shapes)


def decode(message: wire.Tensor) -> Tensor:
    """Return the tensor of a message that has no shared memory handle."""
    return codec.tensor_from_wire(message, 0, Attachments(None, KeptSegments()))


@given(names, st.sampled_from(DataType), shapes, st.binary(max_size=40))
def test_a_tensor_comes_back_as_it_went(name: str, data_type: DataType, shape: tuple[int, ...], data: bytes) -> None:
    """But for a UINT8 scalar: its metadata look like none, and mean the model's own."""
    message = wire.Tensor()
    codec.tensor_to_wire(Tensor(name, data_type, shape, data), message)
    tensor = decode(wire.Tensor.FromString(message.SerializeToString()))
    if data_type is DataType.UINT8 and not shape:
        assert tensor == Tensor(name, None, None, data)
    else:
        assert tensor == Tensor(name, data_type, shape, data)


@given(
    st.builds(
        ModelDescription,
        name=st.text(st.characters(codec="utf-8"), max_size=10),
        url=st.text(st.characters(codec="utf-8"), max_size=10),
        inputs=st.lists(metadatas, max_size=3).map(tuple),
        outputs=st.lists(metadatas, max_size=3).map(tuple),
    )
)
def test_a_model_comes_back_as_it_went(model: ModelDescription) -> None:
    """Names of any bytes and dynamic dimensions included."""
    message = wire.Model()
    codec.model_to_wire(model, message)
    assert codec.model_from_wire(wire.Model.FromString(message.SerializeToString())) == model


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_malformed(body: bytes) -> None:
    """Nothing else happens, whatever arrives."""
    try:
        request = codec.parse(wire.PredictRequest, body)
    except MessageMalformed as error:
        request = None
        size = error.facts["size_bytes"]
    assert isinstance(request, wire.PredictRequest) or size == str(len(body))


def test_absent_metadata_leave_all_to_the_model() -> None:
    """The position then tells the input."""
    assert decode(wire.Tensor(byte_data=b"ab")) == Tensor("", None, None, b"ab")


def test_a_name_alone_leaves_type_and_shape_to_the_model() -> None:
    """The enum's zero and the empty list are what a client sends that sets neither."""
    message = wire.Tensor(tensor_metadata=wire.TensorMetadata(name=b"x"), byte_data=b"ab")
    assert decode(message) == Tensor("x", None, None, b"ab")


@pytest.mark.parametrize("number", [7, 99, -1, 2**31 - 1, -(2**31)])
def test_a_data_type_nobody_knows_is_refused(number: int) -> None:
    """An open enum lets any number through the parser."""
    body = wire.Tensor(byte_data=b"").SerializeToString()
    body += b"\x0a" + _delimited(b"\x10" + _varint(number) + b"\x1a\x01\x01")
    with pytest.raises(TensorTypeMismatch) as caught:
        decode(wire.Tensor.FromString(body))
    assert caught.value.facts["given"] == str(number)


def test_a_tensor_without_data_is_refused() -> None:
    """Neither of the two kinds is set; an empty byte_data would be."""
    with pytest.raises(TensorDataMissing) as caught:
        decode(wire.Tensor(tensor_metadata=wire.TensorMetadata(name=b"x")))
    assert caught.value.facts["tensor"] == "x"
    assert decode(wire.Tensor(byte_data=b"")).data == b""


def _varint(number: int) -> bytes:
    number &= 2**64 - 1
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def _delimited(body: bytes) -> bytes:
    return _varint(len(body)) + body
