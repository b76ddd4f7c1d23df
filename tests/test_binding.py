"""Which tensors go to which inputs, and what is refused."""

from __future__ import annotations

from contextlib import suppress
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightkeeper.binding import Binding
from lightkeeper.errors import (
    InvalidTensor,
    TensorDuplicate,
    TensorMissing,
    TensorShapeMismatch,
    TensorShapeUnknown,
    TensorSizeMismatch,
    TensorTypeMismatch,
    TensorUnknown,
)
from lightkeeper.tensor import DataType, Tensor, TensorMetadata

IMAGE = TensorMetadata("image", DataType.FLOAT32, (1, 2))
ROWS = TensorMetadata("rows", DataType.INT16, (-1, 3))
FREE = TensorMetadata("free", DataType.UINT8, (-1, -1))
SCALAR = TensorMetadata("scalar", DataType.UINT8, ())
BYTES_OF_IMAGE = np.array([[1.5, -2.5]], "<f4").tobytes()


def bind_one(metadata: TensorMetadata, tensor: Tensor) -> np.ndarray:
    """Return the array that a single tensor becomes."""
    (array,) = Binding([metadata]).bind([tensor]).values()
    return array


def test_a_tensor_described_in_full_is_taken_as_it_is() -> None:
    """Clients send back the name, type and shape that DescribeModel told them."""
    array = bind_one(IMAGE, Tensor("image", DataType.FLOAT32, (1, 2), BYTES_OF_IMAGE))
    assert array.dtype == np.float32
    assert array.tolist() == [[1.5, -2.5]]


def test_the_data_are_not_copied() -> None:
    """The array lies where the caller's bytes lie, and cannot be written."""
    data = bytes(8)
    array = bind_one(IMAGE, Tensor("image", DataType.FLOAT32, (1, 2), data))
    assert array.ctypes.data == np.frombuffer(data, np.uint8).ctypes.data
    assert not array.flags.writeable


@pytest.mark.parametrize("name", ["image", ""])
def test_type_and_shape_left_out_are_the_models(name: str) -> None:
    """Metadata may be absent, or carry a name alone."""
    assert bind_one(IMAGE, Tensor(name, None, None, BYTES_OF_IMAGE)).tolist() == [[1.5, -2.5]]


def test_tensors_without_names_go_by_position() -> None:
    """The first tensor is the first input's."""
    bound = Binding([IMAGE, ROWS]).bind(
        [Tensor("", None, None, BYTES_OF_IMAGE), Tensor("", DataType.INT16, (1, 3), bytes(6))]
    )
    assert list(bound) == ["image", "rows"]


def test_named_and_unnamed_tensors_mix() -> None:
    """A name wins over the position; the position counts named tensors too."""
    bound = Binding([IMAGE, ROWS]).bind([Tensor("image", None, None, BYTES_OF_IMAGE), Tensor("", None, None, bytes(6))])
    assert bound["rows"].shape == (1, 3)


@pytest.mark.parametrize("shape", [None, (-1, 3)])
def test_one_dynamic_dimension_is_worked_out_from_the_bytes(shape: tuple[int, ...] | None) -> None:
    """A client may leave the shape out, or send back the -1 that DescribeModel told it."""
    data_type = None if shape is None else DataType.INT16
    assert bind_one(ROWS, Tensor("rows", data_type, shape, bytes(4 * 6))).shape == (4, 3)


def test_a_dynamic_dimension_that_no_byte_count_gives_is_refused() -> None:
    """7 bytes are no whole number of rows of 6."""
    with pytest.raises(TensorSizeMismatch) as caught:
        bind_one(ROWS, Tensor("rows", None, None, bytes(7)))
    assert caught.value.facts["given"] == "7"


def test_two_dynamic_dimensions_cannot_be_worked_out() -> None:
    """The caller must then say the shape."""
    with pytest.raises(TensorShapeUnknown):
        bind_one(FREE, Tensor("free", None, None, bytes(6)))
    assert bind_one(FREE, Tensor("free", DataType.UINT8, (2, 3), bytes(6))).shape == (2, 3)


def test_minus_one_for_a_fixed_dimension_is_the_fixed_size() -> None:
    """What the model says already needs no saying."""
    assert bind_one(IMAGE, Tensor("image", DataType.FLOAT32, (-1, 2), BYTES_OF_IMAGE)).shape == (1, 2)


def test_scalars_and_empty_tensors_are_tensors() -> None:
    """A scalar has one element and no dimension; a dimension of zero makes an empty tensor."""
    assert bind_one(SCALAR, Tensor("scalar", None, None, b"\x07")).item() == 7
    assert bind_one(ROWS, Tensor("rows", DataType.INT16, (0, 3), b"")).shape == (0, 3)


def test_open_ended_data_are_cut_to_type_and_shape() -> None:
    """A shared segment may be larger than the tensor in it."""
    tensor = Tensor("image", None, None, memoryview(BYTES_OF_IMAGE + bytes(100)), open_ended=True)
    assert bind_one(IMAGE, tensor).tolist() == [[1.5, -2.5]]


@pytest.mark.parametrize("size_bytes", [0, 7])
def test_open_ended_data_must_still_be_enough(size_bytes: int) -> None:
    """A segment that is too small for the tensor is refused."""
    with pytest.raises(TensorSizeMismatch):
        bind_one(IMAGE, Tensor("image", None, None, memoryview(bytes(size_bytes)), open_ended=True))


def test_open_ended_data_say_nothing_of_a_dynamic_shape() -> None:
    """How far the tensor goes would be a guess."""
    with pytest.raises(TensorShapeUnknown):
        bind_one(ROWS, Tensor("rows", None, None, memoryview(bytes(60)), open_ended=True))


@pytest.mark.parametrize("shape", [(2,), (2, 1), (1, 2, 1), (1, -2), (), (1, 2**31 - 1)])
def test_another_shape_is_refused_with_both_shapes(shape: tuple[int, ...]) -> None:
    """The facts tell what is expected and what came."""
    with pytest.raises(TensorShapeMismatch) as caught:
        bind_one(IMAGE, Tensor("image", DataType.FLOAT32, shape, BYTES_OF_IMAGE))
    assert caught.value.facts == {"tensor": "image", "expected": "[1, 2]", "given": str(list(shape))}


@pytest.mark.parametrize("shape", [(-2, 3), (1, 3, 0), (2**31 - 1, 3)])
def test_a_dynamic_dimension_takes_no_nonsense(shape: tuple[int, ...]) -> None:
    """Negative sizes, extra dimensions and sizes far beyond the bytes are refused, and allocate nothing."""
    with pytest.raises(InvalidTensor):
        bind_one(ROWS, Tensor("rows", DataType.INT16, shape, bytes(6)))


def test_another_type_is_refused_with_both_types() -> None:
    """Nothing is converted silently."""
    with pytest.raises(TensorTypeMismatch) as caught:
        bind_one(IMAGE, Tensor("image", DataType.FLOAT64, (1, 2), bytes(16)))
    assert caught.value.facts == {"tensor": "image", "expected": "FLOAT32", "given": "FLOAT64"}


@pytest.mark.parametrize("size_bytes", [0, 7, 9, 16])
def test_another_number_of_bytes_is_refused(size_bytes: int) -> None:
    """The facts tell how many there must be."""
    with pytest.raises(TensorSizeMismatch) as caught:
        bind_one(IMAGE, Tensor("image", DataType.FLOAT32, (1, 2), bytes(size_bytes)))
    assert caught.value.facts["expected"] == "8"
    assert caught.value.facts["given"] == str(size_bytes)


def test_a_missing_input_is_named() -> None:
    """The refusal says which one."""
    with pytest.raises(TensorMissing) as caught:
        Binding([IMAGE, ROWS]).bind([Tensor("image", None, None, BYTES_OF_IMAGE)])
    assert caught.value.facts["tensor"] == "rows"


@pytest.mark.parametrize(("name", "position"), [("picture", 0), ("", 1)])
def test_a_tensor_for_no_input_is_refused(name: str, position: int) -> None:
    """Neither an unknown name nor a position past the last input has one."""
    tensors = [Tensor("image", None, None, BYTES_OF_IMAGE)] * position + [Tensor(name, None, None, BYTES_OF_IMAGE)]
    with pytest.raises(TensorUnknown) as caught:
        Binding([IMAGE]).bind(tensors)
    assert caught.value.facts["expected"] == "image"


def test_an_input_given_twice_is_refused() -> None:
    """By name and by position is twice, too."""
    tensors = [Tensor("", None, None, BYTES_OF_IMAGE), Tensor("image", None, None, BYTES_OF_IMAGE)]
    with pytest.raises(TensorDuplicate):
        Binding([IMAGE, ROWS]).bind(tensors)


def test_optional_inputs_may_be_left_out_and_are_never_given_by_position() -> None:
    """Only a name reaches an input that has a default."""
    binding = Binding([IMAGE], [ROWS])
    image = Tensor("image", None, None, BYTES_OF_IMAGE)
    assert list(binding.bind([image])) == ["image"]
    assert list(binding.bind([image, Tensor("rows", None, None, bytes(6))])) == ["image", "rows"]
    with pytest.raises(TensorUnknown):
        binding.bind([image, Tensor("", None, None, bytes(6))])


dimensions = st.integers(-3, 5) | st.sampled_from([2**31 - 1, -(2**31)])


@given(
    expected=st.lists(st.integers(-1, 4), max_size=4).map(tuple),
    shape=st.none() | st.lists(dimensions, max_size=4).map(tuple),
    data_type=st.sampled_from(DataType),
    size_bytes=st.integers(0, 200),
    open_ended=st.booleans(),
)
def test_whatever_is_sent_fits_the_model_or_is_refused(
    expected: tuple[int, ...],
    shape: tuple[int, ...] | None,
    data_type: DataType,
    size_bytes: int,
    open_ended: bool,
) -> None:
    """No request reaches a model with another type or shape than its own, and none fails in another way."""
    metadata = TensorMetadata("x", DataType.INT16, expected)
    given_type = None if shape is None else data_type
    tensor = Tensor("x", given_type, shape, memoryview(bytes(size_bytes)), open_ended=open_ended)
    array = None
    with suppress(InvalidTensor):
        array = bind_one(metadata, tensor)
    if array is None:
        return
    assert array.dtype == np.int16
    assert len(array.shape) == len(expected)
    assert all(wanted in (-1, size) for size, wanted in zip(array.shape, expected, strict=True))
    assert prod(array.shape) * 2 == size_bytes or (open_ended and prod(array.shape) * 2 < size_bytes)
