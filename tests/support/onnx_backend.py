"""ONNX's own backend node tests: which cases the local API can carry, and how one is run and judged."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, numpy_helper

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

REASON_CHARACTERS = 40
"""So much of two errors' ends must be the same for them to be one reason."""


@dataclass(frozen=True)
class Case:
    """One case: a model, and arrays that it must turn into others within a tolerance."""

    name: str
    model: bytes
    inputs: dict[str, Array]
    outputs: dict[str, Array]
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
        assert found.model is not None
        graph = found.model.graph
        for inputs, outputs in found.data_sets or ():
            obstacle = _obstacle(graph)
            yield Case(
                name=found.name,
                model=found.model.SerializeToString(),
                inputs={} if obstacle else _arrays(graph.input, inputs),
                outputs={} if obstacle else _arrays(graph.output, outputs),
                rtol=found.rtol,
                atol=found.atol,
                obstacle=obstacle,
            )


def _arrays(described: Sequence[onnx.ValueInfoProto], values: Sequence[Any]) -> dict[str, Array]:
    """Return the arrays that a case's values stand for; None stands for an optional input left out."""
    return {
        value.name: numpy_helper.to_array(given) if isinstance(given, onnx.TensorProto) else np.asarray(given)
        for value, given in zip(described, values, strict=True)
        if given is not None
    }


def _obstacle(graph: onnx.GraphProto) -> str:
    """Return the first thing that the local API cannot carry; an optional input, which can be left out, comes last."""
    optional = [("input", value) for value in graph.input if value.type.HasField("optional_type")]
    required = [("input", value) for value in graph.input if not value.type.HasField("optional_type")]
    for kind, value in (*required, *(("output", value) for value in graph.output), *optional):
        described = value.type.optional_type.elem_type if (kind, value) in optional else value.type
        word = str(described.WhichOneof("value")).removesuffix("_type")
        if word != "tensor":
            return f"{kind} {value.name} is of kind {word}"
        if described.tensor_type.elem_type not in CARRIED:
            return f"{kind} {value.name} is {TensorProto.DataType.Name(described.tensor_type.elem_type)}"
    return ""


@dataclass(frozen=True)
class Outcome:
    """What came of running a case: its outputs, or the error that ended it."""

    outputs: Mapping[str, Array] | None
    error: str

    def fault(self, case: Case) -> str:
        """Return what is wrong in one line; empty where the case passes."""
        return self.error or self._differences(case.outputs, case)

    def same_as(self, other: Outcome, case: Case) -> bool:
        """Tell whether another way to run the case ended in the same way: in both one reason, or the same outputs."""
        if self.outputs is None or other.outputs is None:
            # The agent tells ONNX Runtime's reason without what comes before it.
            return self.outputs is other.outputs and self.error[-REASON_CHARACTERS:] in other.error
        return not self._differences(other.outputs, case)

    def _differences(self, expected: Mapping[str, Array], case: Case) -> str:
        assert self.outputs is not None
        for name, array in expected.items():
            given = self.outputs[name]
            try:
                np.testing.assert_equal((given.dtype, given.shape), (array.dtype, array.shape))
                np.testing.assert_allclose(given, array, rtol=case.rtol, atol=case.atol)
            except AssertionError as error:
                return f"output {name} differs: {_one_line(error)}"
        return ""


def attempt(case: Case, run: Run) -> Outcome:
    """Run a case."""
    try:
        return Outcome(run(case.model, case.inputs), "")
    except Exception as error:  # noqa: BLE001 -- whatever it is, it is this case's fault and not the end of the others
        return Outcome(None, f"{type(error).__name__}: {_one_line(error)}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def in_process(model: bytes, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Run a model with nothing of Lightkeeper between: what this build of ONNX Runtime does by itself."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))
