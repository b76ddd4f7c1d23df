"""The models that are measured, and the requests that are sent to them, byte for byte the same to every contestant.

`small` (64 floats in, 64 out) shows what a call costs; `image` (1x3x224x224 floats in, 1000 out) shows what carrying a
picture costs. Both compute little, so that the way there and back is what is measured. `large` (16 MiB of weights) is
loaded and unloaded with them where memory is measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto, helper, numpy_helper, save

from lightkeeper.transport import agent_pb2 as wire
from lightkeeper.transport.segments import Segment

OPSET = 17
IR_VERSION = 8


@dataclass(frozen=True, slots=True)
class Model:
    """A model under its name, with one input `x` and one output `y` of floats."""

    name: str
    path: Path
    shape: tuple[int, ...]
    output_shape: tuple[int, ...]

    def input(self) -> npt.NDArray[np.float32]:
        """Return the input that every contestant gets."""
        return np.random.default_rng(0).random(self.shape, np.float32)

    def request(self) -> bytes:
        """Return a Predict request that carries the input as bytes."""
        return self._message(byte_data=self.input().tobytes()).SerializeToString()

    @contextmanager
    def shared_memory_request(self) -> Iterator[bytes]:
        """Give a Predict request whose input lies in shared memory."""
        array = self.input()
        segment = Segment(array.nbytes)
        try:
            handle = wire.SharedMemoryHandle(segment_id=segment.id, offset=segment.write(array), size=array.nbytes)
            yield self._message(shared_memory_handle=handle).SerializeToString()
        finally:
            segment.close()

    def response_bytes(self) -> int:
        """Return the size of the answer on the wire, before gRPC's own five bytes."""
        output = np.zeros(self.output_shape, np.float32)
        return wire.PredictResponse(tensors=[self._tensor("y", output.shape, byte_data=output.tobytes())]).ByteSize()

    def _message(self, **data: Any) -> wire.PredictRequest:
        return wire.PredictRequest(name=self.name, tensors=[self._tensor("x", self.shape, **data)])

    @staticmethod
    def _tensor(name: str, shape: tuple[int, ...], **data: Any) -> wire.Tensor:
        metadata = wire.TensorMetadata(name=name.encode(), data_type=wire.FLOAT32, shape=shape)
        return wire.Tensor(tensor_metadata=metadata, **data)


def make(folder: Path) -> dict[str, Model]:
    """Write the models into a folder and return them by name."""
    made = {}
    for name, proto in (("small", _add(64)), ("image", _classifier()), ("large", _product(2048))):
        path = folder / f"{name}.onnx"
        save(proto, path)
        shapes = (_shape(proto.graph.input[0]), _shape(proto.graph.output[0]))
        made[name] = Model(name, path, *shapes)
    return made


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)


def _add(floats: int) -> ModelProto:
    one = numpy_helper.from_array(np.ones(floats, np.float32), "one")
    return _model([helper.make_node("Add", ["x", "one"], ["y"])], [floats], [floats], [one])


def _product(side: int) -> ModelProto:
    weights = numpy_helper.from_array(np.full((side, side), 1 / side, np.float32), "weights")
    return _model([helper.make_node("MatMul", ["x", "weights"], ["y"])], [1, side], [1, side], [weights])


def _classifier() -> ModelProto:
    """Return one convolution over the picture, its mean, and a score for each of 1000 classes."""
    generator = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(generator.random((8, 3, 4, 4), np.float32), "kernel"),
        numpy_helper.from_array(generator.random((8, 1000), np.float32), "classes"),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["features"], strides=[4, 4]),
        helper.make_node("GlobalAveragePool", ["features"], ["means"]),
        helper.make_node("Flatten", ["means"], ["row"]),
        helper.make_node("MatMul", ["row", "classes"], ["y"]),
    ]
    return _model(nodes, [1, 3, 224, 224], [1, 1000], weights)


def _model(nodes: list[Any], shape: list[int], output_shape: list[int], weights: list[TensorProto]) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        "measured",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output_shape)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
