"""Preparing ONNX models: what is refused, which shapes are fixed, and that an optimised model is plain ONNX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from lightkeeper.errors import ModelShapesMismatch, ModelUnreadable
from lightkeeper.runtimes import onnxprepare
from lightkeeper.runtimes.base import RuntimeOptions, zeros
from lightkeeper.runtimes.onnx import OnnxRuntime
from tests.support import models


def written(folder: Path, data: bytes, name: str = "model.onnx") -> Path:
    """Write a file, and return its path."""
    path = folder / name
    path.write_bytes(data)
    return path


def folding(rows: int = 4) -> bytes:
    """Compute y = x + (table + table), where the sum in brackets can be worked out beforehand."""
    table = helper.make_tensor("table", TensorProto.FLOAT, [rows], [float(row) for row in range(rows)])
    return models.model(
        [helper.make_node("Add", ["table", "table"], ["twice"]), helper.make_node("Add", ["x", "twice"], ["y"])],
        [models.tensor("x", TensorProto.FLOAT, ("n", rows))],
        [models.tensor("y", TensorProto.FLOAT, ("n", rows))],
        [table],
    )


def shared_dimension() -> bytes:
    """Compute y = a + b, whose one dimension has one name."""
    return models.model(
        [helper.make_node("Add", ["a", "b"], ["y"])],
        [models.tensor(name, TensorProto.FLOAT, ("n",)) for name in ("a", "b")],
        [models.tensor("y", TensorProto.FLOAT, ("n",))],
    )


def unknown_operator() -> bytes:
    """Have an operator that ONNX has not."""
    graph = helper.make_graph(
        [helper.make_node("Conjure", ["x"], ["y"])],
        "test",
        [models.tensor("x", TensorProto.FLOAT, (1,))],
        [models.tensor("y", TensorProto.FLOAT, (1,))],
    )
    data: bytes = helper.make_model(graph).SerializeToString()
    return data


@pytest.mark.parametrize(
    "data", [b"", b"no model", models.doubled()[:40], unknown_operator()], ids=["empty", "text", "cut", "operator"]
)
def test_what_is_no_valid_model_is_refused(tmp_path: Path, data: bytes) -> None:
    """The file is named, and the checker is quoted."""
    with pytest.raises(ModelUnreadable, match=r"model\.onnx"):
        onnxprepare.check(written(tmp_path, data))


def test_a_valid_model_passes(tmp_path: Path) -> None:
    """It may have external data."""
    path = tmp_path / "model.onnx"
    models.save_with_external_data(models.weighty(4, 4), path)
    onnxprepare.check(path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelUnreadable, match=r"weights\.bin"):
        onnxprepare.check(path)


def test_constants_are_no_inputs(tmp_path: Path) -> None:
    """A call need not give them."""
    assert onnxprepare.input_shapes(written(tmp_path, folding())) == {"x": (-1, 4)}


def test_shapes_are_fixed_and_the_outputs_follow(tmp_path: Path) -> None:
    """The fixed model takes this shape alone."""
    fixed = tmp_path / "fixed.onnx"
    onnxprepare.fix_shapes(written(tmp_path, folding()), {"x": [3, 4]}, fixed)
    assert onnxprepare.input_shapes(fixed) == {"x": (3, 4)}
    session = OnnxRuntime(RuntimeOptions(1)).open(fixed)
    assert session.outputs[0].shape == (3, 4)
    session.close()


def test_a_dimension_that_is_not_given_stays_open(tmp_path: Path) -> None:
    """Others of the same input are fixed."""
    path = written(tmp_path, models.doubled(("n", "m")))
    fixed = tmp_path / "fixed.onnx"
    onnxprepare.fix_shapes(path, {"x": [-1, 7]}, fixed)
    assert onnxprepare.input_shapes(fixed) == {"x": (-1, 7)}


@pytest.mark.parametrize(
    ("model", "shapes", "words"),
    [
        (folding(), {"z": [1, 4]}, "no input 'z'"),
        (folding(), {"x": [1]}, r"\[-1, 4\], not \[1\]"),
        (folding(), {"x": [1, 5]}, r"\[-1, 4\], not \[1, 5\]"),
        (folding(), {"table": [4]}, "no input 'table'"),
        (shared_dimension(), {"a": [2], "b": [3]}, "'b'"),
    ],
    ids=["name", "rank", "size", "constant", "shared"],
)
def test_shapes_that_are_not_the_models_are_refused(
    tmp_path: Path, model: bytes, shapes: dict[str, list[int]], words: str
) -> None:
    """The message has the model's own."""
    with pytest.raises(ModelShapesMismatch, match=words):
        onnxprepare.fix_shapes(written(tmp_path, model), shapes, tmp_path / "fixed.onnx")


def test_an_optimised_model_does_the_same_with_less(tmp_path: Path) -> None:
    """The sum of constants is one constant, and the model needs the operator set of before alone."""
    path, better = written(tmp_path, folding()), tmp_path / "better.onnx"
    assert onnxprepare.optimise(path, better) == ""
    optimised = onnx.load(better)
    assert [node.op_type for node in optimised.graph.node] == ["Add"]
    assert [(each.domain, each.version) for each in optimised.opset_import] == [("", models.OPSET)]
    given = np.ones((2, 4), np.float32)
    outputs = []
    for model in (path, better):
        session = OnnxRuntime(RuntimeOptions(1)).open(model)
        outputs.append(session.run({"x": given})[0])
        session.close()
    np.testing.assert_array_equal(*outputs)


def test_external_data_stay_external(tmp_path: Path) -> None:
    """They lie beside the optimised model, under its name."""
    path, folder = tmp_path / "model.onnx", tmp_path / "out"
    folder.mkdir()
    models.save_with_external_data(models.weighty(64, 64), path)
    assert onnxprepare.optimise(path, folder / "model.onnx") == ""
    assert sorted(each.name for each in folder.iterdir()) == ["model.onnx", "model.onnx.data"]
    outputs = []
    for model in (path, folder / "model.onnx"):
        session = OnnxRuntime(RuntimeOptions(1)).open(model)
        outputs.append(session.run({each.name: zeros(each) for each in session.inputs}))
        session.close()
    for before, after in zip(*outputs, strict=True):
        np.testing.assert_array_equal(before, after)


def test_what_cannot_be_opened_is_not_optimised(tmp_path: Path) -> None:
    """The reason is said."""
    assert "cannot" in onnxprepare.optimise(written(tmp_path, unknown_operator()), tmp_path / "better.onnx")
