"""Large tensors in place: protobuf itself is the oracle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightkeeper.errors import AgentError
from lightkeeper.tensor import DataType, Tensor
from lightkeeper.transport import agent_pb2 as wire
from lightkeeper.transport import codec, inplace
from lightkeeper.transport.kept_segments import KeptSegments
from lightkeeper.transport.method import Reply
from lightkeeper.transport.shared_memory import Attachments

LARGE = inplace.LARGE_BYTES
sizes = st.sampled_from([0, 1, 100, LARGE - 1, LARGE, LARGE + 1, 3 * LARGE])


@st.composite
def tensors(draw: st.DrawFn) -> wire.Tensor:
    """A tensor with data of any size, a handle, or neither."""
    message = wire.Tensor()
    if draw(st.booleans()):
        codec.describe(draw(st.sampled_from(["", "x", "\udcff"])), DataType.UINT8, [3, -1], message.tensor_metadata)
    match draw(st.sampled_from(["bytes", "bytes", "handle", "none"])):
        case "bytes":
            message.byte_data = bytes([draw(st.integers(0, 255))]) * draw(sizes)
        case "handle":
            message.shared_memory_handle.segment_id = 7
    return message


captures = st.builds(
    wire.CaptureDataRequest,
    model_name=st.sampled_from(["", "m"]),
    input_tensors=st.lists(tensors(), max_size=3),
    output_tensors=st.lists(tensors(), max_size=2),
    inputs=st.lists(st.builds(wire.AuxilaryData, name=st.just("a.jpg"), byte_data=sizes.map(bytes)), max_size=2),
)


class NoMemory(Attachments):
    """Tells which handle was asked for instead of attaching it."""

    def view(self, segment_id: int, offset_bytes: int, size_bytes: int) -> memoryview:
        """Return the handle's numbers."""
        return memoryview(bytes([segment_id, offset_bytes, size_bytes]))


def read(body: bytes, *, in_place: bool) -> object:
    """Return what a capture's bytes mean, or how they are refused."""
    rest, taken = inplace.lifted(body, inplace.CAPTURE) if in_place else (body, {})
    try:
        return codec.capture_from_wire(
            codec.parse(wire.CaptureDataRequest, rest), NoMemory(None, KeptSegments()), taken
        )
    except AgentError as error:
        return type(error), {key: value for key, value in error.facts.items() if key != "size_bytes"}


@settings(suppress_health_check=[HealthCheck.large_base_example, HealthCheck.data_too_large])
@given(captures, captures)
def test_a_message_means_the_same_with_its_data_in_place(
    one: wire.CaptureDataRequest, other: wire.CaptureDataRequest
) -> None:
    """Two messages behind each other, which protobuf reads as one, included."""
    body = one.SerializeToString() + other.SerializeToString()
    assert read(body, in_place=True) == read(body, in_place=False)


@settings(max_examples=300)
@given(
    tensors().map(lambda message: message.SerializeToString()),
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 255)), max_size=4),
    st.lists(
        st.sampled_from([b"\x22\x00", b"\x22\x01z", b"\x2a\x02\x18\x09", b"\x08\x01", b"\x7b", b"\xff"]), max_size=3
    ),
    st.integers(0, 8),
)
def test_bytes_of_any_kind_mean_what_protobuf_takes_them_for(
    tensor: bytes, mutations: list[tuple[int, int]], more: list[bytes], cut: int
) -> None:
    """Changed, cut, and with fields that come twice, of other types, or that nobody knows."""
    inner = b"\x22" + inplace._varint(LARGE) + bytes(LARGE) + tensor + b"".join(more)
    body = bytearray(b"\x22" + inplace._varint(len(inner)) + inner)
    for position, value in mutations:
        body[position % len(body)] = value
    cut_body = bytes(body[: len(body) - cut])
    assert read(cut_body, in_place=True) == read(cut_body, in_place=False)


def test_large_data_are_views_of_the_request_and_small_ones_are_not() -> None:
    """In Predict's requests too."""
    request = wire.PredictRequest(name="m", tensors=[{"byte_data": bytes(LARGE)}, {"byte_data": b"small"}])
    body = request.SerializeToString()
    rest, taken = inplace.lifted(body, inplace.PREDICT)
    assert len(rest) < 100
    assert list(taken) == [(2, 0)]
    assert taken[2, 0].obj is body
    assert wire.PredictRequest.FromString(rest).tensors[1].byte_data == b"small"


def test_a_message_of_very_many_fields_is_left_to_protobuf() -> None:
    """The walk is bounded."""
    request = wire.PredictRequest(tensors=[{"byte_data": b"x"}] * inplace.FIELDS_LIMIT + [{"byte_data": bytes(LARGE)}])
    body = request.SerializeToString()
    assert inplace.lifted(body, inplace.PREDICT) == (body, {})


@pytest.mark.parametrize(
    "arrays",
    [
        [],
        [np.zeros(3, np.float32)],
        [np.zeros(0, np.float32)],
        [np.arange(LARGE, dtype=np.uint8)],
        [np.zeros(2, np.int64), np.arange(30_000, dtype=np.float32).reshape(3, 10_000), np.array(5, np.int16)],
        [np.arange(40_000, dtype=np.float64), np.arange(40_000, dtype=np.float64)],
        [np.arange(200_000, dtype=np.float32)[::2]],
    ],
)
def test_an_answer_in_parts_is_the_answer_protobuf_would_make(arrays: list[np.ndarray]) -> None:  # type: ignore[type-arg]  # of any type
    """Byte for byte; large outputs are sent from where they lie."""
    outputs = []
    for number, array in enumerate(arrays):
        data_type = DataType.from_dtype(array.dtype)
        outputs.append(Tensor(f"y{number}", data_type, array.shape, array.data))
    expected = wire.PredictResponse()
    for tensor in outputs:
        codec.tensor_to_wire(tensor, expected.tensors.add())
    reply = inplace.predict_reply(outputs)
    parts = reply.parts if isinstance(reply, Reply) else [reply]
    assert b"".join(parts) == expected.SerializeToString()
    in_place = [part.obj for part in parts if isinstance(part, memoryview) and part.nbytes]
    large = [array for array in arrays if array.nbytes >= LARGE and array.flags.c_contiguous]
    assert all(any(one is array for one in in_place) for array in large)
