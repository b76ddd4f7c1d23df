"""Preparing ONNX models away from the device: check, fix input shapes, optimise. The home of the package `onnx`.

What comes out is plain ONNX again, which any machine runs: ONNX Runtime's higher levels write operators of its own and
layouts for the processor at hand, so those are left to the device that opens the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightkeeper.errors import ModelShapesMismatch, ModelUnreadable
from lightkeeper.runtimes.onnx import LOG_FATAL, LONGEST_REASON, faults, library
from lightkeeper.tensor import DYNAMIC

EXTERNAL_FROM_BYTES = 1024
"""An initializer of a model with external data goes there from this size on."""

DATA_SUFFIX = ".data"


def check(model: Path) -> None:
    """Raise `ModelUnreadable` unless the file is a valid ONNX model whose external data lie beside it."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        onnx.checker.check_model(str(model))
    except (onnx.checker.ValidationError, DecodeError, ValueError, RuntimeError, TypeError) as error:
        raise ModelUnreadable(f"{model.name} is not a valid ONNX model: {_words(error)}", file=model.name) from error


def input_shapes(model: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each input a call must give, in the model's order; `DYNAMIC` stands for an open dimension."""
    graph = _load(model).graph
    given = {each.name for each in graph.initializer} | {each.values.name for each in graph.sparse_initializer}
    return {each.name: _shape(each) for each in graph.input if each.name not in given}


def fix_shapes(model: Path, shapes: Mapping[str, Sequence[int]], output: Path) -> None:
    """Write the model with these input shapes beside the model, whose external data it shares.

    A dimension that is `DYNAMIC` in `shapes` stays as it is. Raises `ModelShapesMismatch`, naming the input.
    """
    import onnx
    from onnxruntime.tools.onnx_model_utils import fix_output_shapes, make_input_shape_fixed

    known = input_shapes(model)
    loaded = _load(model)
    for name, wanted in shapes.items():
        if name not in known:
            raise ModelShapesMismatch(
                f"the model has no input {name!r}", tensor=name, expected=", ".join(known) or "(none)"
            )
        given = known[name]
        if len(given) != len(wanted) or not all(map(_fits, given, wanted)):
            raise ModelShapesMismatch(
                f"the model's input {name!r} has the shape {list(given)}, not {list(wanted)}",
                tensor=name,
                expected=list(given),
                given=list(wanted),
            )
        if DYNAMIC in wanted:
            _fix_some(loaded.graph, name, wanted)
            continue
        try:
            make_input_shape_fixed(loaded.graph, name, list(wanted))
        except ValueError as error:  # two inputs share a dimension, and are given two sizes of it
            raise ModelShapesMismatch(f"input {name!r}: {_words(error)}", tensor=name, given=list(wanted)) from error
    with suppress(onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        fix_output_shapes(loaded)  # else they stay as they were said; the runtime judges the model itself
    onnx.save_model(loaded, str(output))


def optimise(model: Path, output: Path) -> str:
    """Write a model that gives the same with less work; return "", or why there is none.

    Constants are folded and needless operators left out. The result has no operator sets that the model had not, and
    is a valid model. Its external data, where the model has some, lie beside it.
    """
    import onnx

    onnxruntime = library()
    refusals: tuple[type[Exception], ...] = (ModelUnreadable, *faults(onnxruntime))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(output)
    options.log_severity_level = LOG_FATAL
    options.intra_op_num_threads = 1
    before = _load(model)
    if any(each.data_location == onnx.TensorProto.EXTERNAL for each in before.graph.initializer):
        name = output.name + DATA_SUFFIX
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", name)
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_min_size_in_bytes", str(EXTERNAL_FROM_BYTES)
        )
    try:
        onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        after = _load(output)
    except refusals as error:
        return f"ONNX Runtime cannot write it: {_words(error)}"
    added = _domains(after) - _domains(before)
    if added:
        return f"it needs operators of {', '.join(sorted(added))}"
    used = [each for each in after.opset_import if each.domain in _domains(after)]
    del after.opset_import[:]
    after.opset_import.extend(used)
    onnx.save_model(after, str(output))
    try:
        check(output)
    except ModelUnreadable as error:
        return error.message
    return ""


def _fix_some(graph: Any, name: str, wanted: Sequence[int]) -> None:
    """Fix the dimensions of an input that are given, and leave the others open."""
    from onnxruntime.tools.onnx_model_utils import make_dim_param_fixed

    (tensor,) = (each for each in graph.input if each.name == name)
    for dimension, size in zip(tensor.type.tensor_type.shape.dim, wanted, strict=True):
        if size == DYNAMIC or dimension.HasField("dim_value"):
            continue
        if dimension.HasField("dim_param"):
            make_dim_param_fixed(graph, dimension.dim_param, size)
        else:
            dimension.dim_value = size


def _load(model: Path) -> Any:
    """Return the model without its external data."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return onnx.load_model(str(model), load_external_data=False)
    except (DecodeError, OSError, ValueError) as error:
        raise ModelUnreadable(f"{model.name} is not an ONNX model: {_words(error)}", file=model.name) from error


def _shape(tensor: Any) -> tuple[int, ...]:
    sizes = [each.dim_value if each.HasField("dim_value") else DYNAMIC for each in tensor.type.tensor_type.shape.dim]
    return tuple(size if size >= 0 else DYNAMIC for size in sizes)


def _fits(given: int, wanted: int) -> bool:
    return DYNAMIC in (given, wanted) or given == wanted


def _domains(model: Any) -> set[str]:
    """Return the operator sets that a model uses; functions of its own count by what they use."""
    own = {(each.domain, each.name) for each in model.functions}
    nodes = [node for graph in (model.graph, *model.functions) for node in _nodes(graph)]
    return {"" if node.domain == "ai.onnx" else node.domain for node in nodes if (node.domain, node.op_type) not in own}


def _nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _nodes(inner)


def _words(error: Exception) -> str:
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= LONGEST_REASON else f"{words[:LONGEST_REASON]}…"
