"""Small ONNX models for tests, each the smallest that shows one behaviour. Every builder returns the file's bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8

Shape = Sequence[int | str]


def tensor(name: str, element: int, shape: Shape) -> onnx.ValueInfoProto:
    """Describe an input or output; a word in the shape is a dynamic dimension."""
    return helper.make_tensor_value_info(name, element, shape)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    initializers: Sequence[onnx.TensorProto] = (),
) -> bytes:
    """Return a whole model."""
    graph = helper.make_graph(nodes, "test", inputs, outputs, initializers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(made)
    return made.SerializeToString()


def identity(element: int = TensorProto.FLOAT, shape: Shape = ("n",)) -> bytes:
    """Compute y = x, of any element type."""
    return model(
        [helper.make_node("Identity", ["x"], ["y"])], [tensor("x", element, shape)], [tensor("y", element, shape)]
    )


def doubled(shape: Shape = (1, 4)) -> bytes:
    """Compute y = x + x, in FLOAT."""
    return model(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        [tensor("x", TensorProto.FLOAT, shape)],
        [tensor("y", TensorProto.FLOAT, shape)],
    )


def sum_and_difference(shape: Shape = (2,)) -> bytes:
    """Two inputs and two outputs: sum = a + b, difference = a - b."""
    return model(
        [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])],
        [tensor("a", TensorProto.FLOAT, shape), tensor("b", TensorProto.FLOAT, shape)],
        [tensor("sum", TensorProto.FLOAT, shape), tensor("difference", TensorProto.FLOAT, shape)],
    )


def gather(rows: int = 4) -> bytes:
    """Compute y = table[index]: an index past the table fails while running."""
    table = helper.make_tensor("table", TensorProto.FLOAT, [rows], [float(row) for row in range(rows)])
    return model(
        [helper.make_node("Gather", ["table", "index"], ["y"])],
        [tensor("index", TensorProto.INT64, ("n",))],
        [tensor("y", TensorProto.FLOAT, ("n",))],
        [table],
    )


def slow() -> bytes:
    """Compute y = x after as many turns of a loop as `turns` says; a hundred thousand take about 0.2 s."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going_in"], ["going_out"]),
            helper.make_node("Add", ["value_in", "one"], ["value_out"]),
        ],
        "body",
        [
            tensor("turn", TensorProto.INT64, ()),
            tensor("going_in", TensorProto.BOOL, ()),
            tensor("value_in", TensorProto.FLOAT, ()),
        ],
        [tensor("going_out", TensorProto.BOOL, ()), tensor("value_out", TensorProto.FLOAT, ())],
        [helper.make_tensor("one", TensorProto.FLOAT, [], [1.0])],
    )
    return model(
        [helper.make_node("Loop", ["turns", "", "x"], ["y"], body=body)],
        [tensor("turns", TensorProto.INT64, ()), tensor("x", TensorProto.FLOAT, ())],
        [tensor("y", TensorProto.FLOAT, ())],
    )


def with_default(default: float = 10.0, element: int = TensorProto.FLOAT) -> bytes:
    """Compute y = x + bias, where a call may leave the bias to its default."""
    return model(
        [helper.make_node("Add", ["x", "bias"], ["y"])],
        [tensor("x", element, ("n",)), tensor("bias", element, (1,))],
        [tensor("y", element, ("n",))],
        [helper.make_tensor("bias", element, [1], [default])],
    )


def with_optional(element: int = TensorProto.FLOAT) -> bytes:
    """Compute y = 1 where `maybe`, an input of an optional type, is given, else 0."""
    maybe = helper.make_optional_type_proto(helper.make_tensor_type_proto(element, ["n"]))
    return model(
        [
            helper.make_node("OptionalHasElement", ["maybe"], ["given"]),
            helper.make_node("Cast", ["given"], ["y"], to=TensorProto.INT32),
        ],
        [helper.make_value_info("maybe", maybe)],
        [tensor("y", TensorProto.INT32, ())],
    )


def sequence_output() -> bytes:
    """Cut x up into pieces: a sequence, which is no tensor."""
    pieces = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, ["n"]))
    return model(
        [helper.make_node("SplitToSequence", ["x"], ["pieces"])],
        [tensor("x", TensorProto.FLOAT, ("n",))],
        [helper.make_value_info("pieces", pieces)],
    )


def reshape() -> bytes:
    """Give y = x in the shape that `shape` says, which may not fit x."""
    return model(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        [tensor("x", TensorProto.FLOAT, ("n",)), tensor("shape", TensorProto.INT64, ("rank",))],
        [tensor("y", TensorProto.FLOAT, ("a", "b"))],
    )


def memory_hog() -> bytes:
    """Give y = x spread over as many elements as `shape` says."""
    return model(
        [helper.make_node("Expand", ["x", "shape"], ["y"])],
        [tensor("x", TensorProto.FLOAT, (1,)), tensor("shape", TensorProto.INT64, (1,))],
        [tensor("y", TensorProto.FLOAT, ("n",))],
    )


def weighty(rows: int, columns: int) -> onnx.ModelProto:
    """Read weights in two ways; `save_with_external_data` puts them beside the model.

    product = x @ weights, which ONNX Runtime packs for the processor; row = weights[index], which it reads in place.
    """
    values = np.arange(rows * columns, dtype=np.float32).reshape(rows, columns) % 251
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "packed"], ["product"]),
            helper.make_node("Gather", ["in_place", "index"], ["row"]),
        ],
        "test",
        [tensor("x", TensorProto.FLOAT, (1, rows)), tensor("index", TensorProto.INT64, (1,))],
        [tensor("product", TensorProto.FLOAT, (1, columns)), tensor("row", TensorProto.FLOAT, (1, columns))],
        [numpy_helper.from_array(values, "packed"), numpy_helper.from_array(values, "in_place")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def save_with_external_data(made: onnx.ModelProto, file: Path, weights: str = "weights.bin") -> None:
    """Write a model whose tensors lie in a second file beside it."""
    onnx.save(made, file, save_as_external_data=True, location=weights, size_threshold=0)


def from_the_end(rows: int = 4) -> bytes:
    """Compute y = table[rows - place]: a place of 0 lies past the table, and fails while running."""
    return model(
        [helper.make_node("Sub", ["rows", "place"], ["index"]), helper.make_node("Gather", ["table", "index"], ["y"])],
        [tensor("place", TensorProto.INT64, ())],
        [tensor("y", TensorProto.FLOAT, ())],
        [
            helper.make_tensor("rows", TensorProto.INT64, [], [rows]),
            helper.make_tensor("table", TensorProto.FLOAT, [rows], [float(row) for row in range(rows)]),
        ],
    )
