"""The models that are measured, and the requests that are sent to them, byte for byte the same to every contestant.

`small` (64 floats in, 64 out) shows what a call costs; `image` (1x3x224x224 floats in, 1000 out) shows what carrying a
picture costs. Both compute little, so that the way there and back is what is measured. `network` takes the same picture
and computes as much as a real classifier: MobileNetV2's layers, with random weights (14 MB). `large` (16 MiB of
weights) is loaded and unloaded where memory is measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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


def make(folder: Path, names: Sequence[str]) -> dict[str, Model]:
    """Write the models of these names into a folder and return them by name."""
    made = {}
    for name in names:
        proto = _MAKERS[name]()
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


BLOCKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""MobileNetV2's inverted residuals: how much wider inside, channels out, how many, stride of the first."""


class _Layers:
    """A chain of layers under construction."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[TensorProto] = [
            numpy_helper.from_array(np.array(0, np.float32), "zero"),
            numpy_helper.from_array(np.array(6, np.float32), "six"),
        ]
        self._generator = np.random.default_rng(0)

    def add(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        """Add a node and return its output's name."""
        output = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def weight(self, *shape: int, inputs: int) -> str:
        """Add random weights that keep the size of what passes through them, and return their name."""
        name = f"weight{len(self.weights)}"
        values = self._generator.normal(0, (2 / inputs) ** 0.5, shape).astype(np.float32)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def convolution(
        self, x: str, channels: tuple[int, int], *, kernel: int = 1, stride: int = 1, groups: int = 1
    ) -> str:
        """Add a convolution with a bias, which a trained network's normalisation becomes."""
        before, after = channels
        inputs = before // groups * kernel * kernel
        weights = self.weight(after, before // groups, kernel, kernel, inputs=inputs)
        bias = self.weight(after, inputs=1000)
        pads = [kernel // 2] * 4
        return self.add("Conv", [x, weights, bias], strides=[stride, stride], pads=pads, group=groups)

    def clipped(self, x: str) -> str:
        """Add the network's activation, ReLU6."""
        return self.add("Clip", [x, "zero", "six"])


def _network() -> ModelProto:
    """Return MobileNetV2 with random weights."""
    layers = _Layers()
    x, channels = layers.clipped(layers.convolution("x", (3, 32), kernel=3, stride=2)), 32
    for wider, after, count, first_stride in BLOCKS:
        for number in range(count):
            stride = first_stride if number == 0 else 1
            inside = channels * wider
            y = layers.clipped(layers.convolution(x, (channels, inside))) if wider > 1 else x
            y = layers.clipped(layers.convolution(y, (inside, inside), kernel=3, stride=stride, groups=inside))
            y = layers.convolution(y, (inside, after))
            x = layers.add("Add", [x, y]) if stride == 1 and channels == after else y
            channels = after
    x = layers.clipped(layers.convolution(x, (channels, 1280)))
    row = layers.add("Flatten", [layers.add("GlobalAveragePool", [x])])
    layers.nodes.append(helper.make_node("MatMul", [row, layers.weight(1280, 1000, inputs=1280)], ["y"]))
    return _model(layers.nodes, [1, 3, 224, 224], [1, 1000], layers.weights)


def _model(nodes: list[Any], shape: list[int], output_shape: list[int], weights: list[TensorProto]) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        "measured",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output_shape)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


_MAKERS = {
    "small": lambda: _add(64),
    "image": _classifier,
    "network": _network,
    "large": lambda: _product(2048),
}
