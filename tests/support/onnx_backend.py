"""ONNX's own backend node tests: which cases the local API can carry, and how one is run and judged."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto

Array = npt.NDArray[Any]
Run = Callable[[bytes, Mapping[str, Array]], Mapping[str, Array]]
"""Runs a model's bytes once: arrays by input name in, arrays by output name out."""

CARRIED = {
    TensorProto.UINT8,
    TensorProto.INT16,
    TensorProto.INT32,
    TensorProto.INT64,
    TensorProto.FLOAT16,
    TensorProto.FLOAT,
    TensorProto.DOUBLE,
}


@dataclass(frozen=True)
class Case:
    """One case: a model, and arrays that it must turn into others within a tolerance."""

    name: str
    model: bytes
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    rtol: float
    atol: float
    obstacle: str
    """Why the local API cannot carry the case; empty where it can."""


def cases() -> Iterator[Case]:
    """Yield every case of the installed `onnx` package."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, on the overflows that some cases are about
        from onnx.backend.test.case.node import collect_testcases

        collected = collect_testcases(None)
    for found in collected:
        graph = found.model.graph
        for inputs, outputs in found.data_sets:
            given = dict(zip((value.name for value in graph.input), inputs, strict=True))
            expected = dict(zip((value.name for value in graph.output), outputs, strict=True))
            obstacle = _obstacle(graph, given)
            yield Case(
                found.name, found.model.SerializeToString(), given, expected, found.rtol, found.atol, obstacle
            )


def _obstacle(graph: onnx.GraphProto, given: Mapping[str, Any]) -> str:
    for kind, values in (("input", graph.input), ("output", graph.output)):
        for value in values:
            described = value.type
            if kind == "input" and described.WhichOneof("value") == "optional_type":
                described = described.optional_type.elem_type
            word = described.WhichOneof("value").removesuffix("_type")
            if word != "tensor":
                return f"{kind} {value.name} is of kind {word}"
            if described.tensor_type.elem_type not in CARRIED:
                return f"{kind} {value.name} is {TensorProto.DataType.Name(described.tensor_type.elem_type)}"
    return ""


def fault(case: Case, run: Run) -> str:
    """Return what is wrong with a case's outputs in one line, or nothing."""
    inputs = {name: value for name, value in case.inputs.items() if value is not None}
    try:
        outputs = run(case.model, inputs)
    except Exception as error:  # noqa: BLE001 -- whatever it is, it is this case's fault and not the end of the others
        return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    for name, expected in case.outputs.items():
        try:
            np.testing.assert_equal(outputs[name].dtype, expected.dtype)
            np.testing.assert_allclose(outputs[name], expected, rtol=case.rtol, atol=case.atol)
        except AssertionError as error:
            return f"output {name} differs: {' '.join(str(error).split())[:160]}"
    return ""


def in_process(model: bytes, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Run a model with nothing of Lightkeeper between: what this build of ONNX Runtime does by itself."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))
