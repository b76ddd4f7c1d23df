"""Models in several versions, for tests that swap one for another."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.support.models import Shape, model, tensor


def scaled(factor: float, shape: Shape = (1, 4)) -> bytes:
    """Compute y = factor * x, in FLOAT: each version has a factor of its own."""
    return model(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        [tensor("x", TensorProto.FLOAT, shape)],
        [tensor("y", TensorProto.FLOAT, shape)],
        [helper.make_tensor("factor", TensorProto.FLOAT, [], [factor])],
    )


def laden(size: int) -> bytes:
    """Compute y = x times the first of `size` weights, which is 1: memory shows whether such a model is open."""
    return model(
        [helper.make_node("Gather", ["weights", "first"], ["factor"]), helper.make_node("Mul", ["x", "factor"], ["y"])],
        [tensor("x", TensorProto.FLOAT, (4,))],
        [tensor("y", TensorProto.FLOAT, (4,))],
        [
            numpy_helper.from_array(np.ones(size, np.float32), "weights"),
            helper.make_tensor("first", TensorProto.INT64, [1], [0]),
        ],
    )


def failing_above(limit: float, factor: float = 1.0) -> bytes:
    """Compute y = factor * x, but fail where the first element of x is above a limit: a Gather past its table."""
    return model(
        [
            helper.make_node("Slice", ["x", "zero", "one", "zero"], ["first"]),
            helper.make_node("Greater", ["first", "limit"], ["above"]),
            helper.make_node("Cast", ["above"], ["index"], to=TensorProto.INT64),
            helper.make_node("Gather", ["table", "index"], ["factor"]),
            helper.make_node("Mul", ["x", "factor"], ["y"]),
        ],
        [tensor("x", TensorProto.FLOAT, (4,))],
        [tensor("y", TensorProto.FLOAT, (4,))],
        [
            helper.make_tensor("zero", TensorProto.INT64, [1], [0]),
            helper.make_tensor("one", TensorProto.INT64, [1], [1]),
            helper.make_tensor("limit", TensorProto.FLOAT, [1], [limit]),
            helper.make_tensor("table", TensorProto.FLOAT, [1], [factor]),
        ],
    )


def heavy(turns: int, size: int = 256) -> bytes:
    """Compute y = x, after multiplying a matrix by itself as often as `turns` says: the time of a run follows it."""
    matrix = np.eye(size, dtype=np.float32)
    steps = [helper.make_node("MatMul", [f"m{turn}", "matrix"], [f"m{turn + 1}"]) for turn in range(turns)]
    return model(
        [
            helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
            helper.make_node("Mul", ["matrix", "total"], ["m0"]),
            *steps,
            helper.make_node("ReduceMean", [f"m{turns}"], ["mean"], keepdims=0),
            helper.make_node("Mul", ["mean", "nothing"], ["rest"]),
            helper.make_node("Add", ["x", "rest"], ["y"]),
        ],
        [tensor("x", TensorProto.FLOAT, (4,))],
        [tensor("y", TensorProto.FLOAT, (4,))],
        [
            numpy_helper.from_array(matrix, "matrix"),
            helper.make_tensor("nothing", TensorProto.FLOAT, [], [0.0]),
        ],
    )
