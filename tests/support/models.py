"""Small ONNX models for tests, each the smallest that shows one behaviour. Every builder returns the file's bytes."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import TensorProto, helper

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
