"""Compiling a model: what comes out of an upload, and what is refused."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from lightkeeper.errors import AgentError, ModelShapesMismatch, ModelUnreadable, SourceUnusable
from lightkeeper.hub.preparation import DOCUMENT_NAME, Prepared, Upload, prepare
from lightkeeper.modelpackage.limits import Limits
from lightkeeper.runtimes.base import RuntimeOptions
from lightkeeper.runtimes.onnx import OnnxRuntime
from tests.support import models
from tests.support.packages import add

BETTER = "constants folded, needless operators left out; the same on sample inputs"


def tar_gz(files: Mapping[str, bytes], link: str = "") -> bytes:
    """Return an archive of files, or of a symbolic link out of it under that name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in files.items():
            add(archive, name, data)
        if link:
            add(archive, link, kind=tarfile.SYMTYPE, link="/etc/passwd")
    return buffer.getvalue()


def compiled(folder: Path, data: bytes, file_name: str, shapes: Mapping[str, list[int]] | None = None) -> Prepared:
    """Compile an upload in a new folder."""
    place = folder / f"job-{len(list(folder.iterdir()))}"
    place.mkdir()
    (place / "input").write_bytes(data)
    return prepare(Upload(place / "input", file_name), shapes or {}, place, Limits(), {"target": "jetson_nano"})


def members(prepared: Prepared) -> dict[str, bytes]:
    """Return the files of an artefact."""
    with tarfile.open(prepared.archive) as archive:
        return {info.name: archive.extractfile(info).read() for info in archive}  # type: ignore[union-attr]  # all are files


def run(model: bytes, folder: Path, inputs: Mapping[str, Any]) -> list[Any]:
    """Run a model once."""
    path = folder / "run.onnx"
    path.write_bytes(model)
    session = OnnxRuntime(RuntimeOptions(1)).open(path)
    try:
        return session.run(inputs)
    finally:
        session.close()


def expanding(elements: int) -> bytes:
    """Compute y = x + zeros, where the zeros are made while running: folding would keep them all."""
    return models.model(
        [
            helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
            helper.make_node("Add", ["x", "zeros"], ["y"]),
        ],
        [models.tensor("x", TensorProto.FLOAT, (1,))],
        [models.tensor("y", TensorProto.FLOAT, (elements,))],
        [helper.make_tensor("shape", TensorProto.INT64, [1], [elements])],
    )


def random() -> bytes:
    """Compute y = x + noise, whose noise depends on where in the graph its operator stands."""
    return models.model(
        [
            helper.make_node("Add", ["one", "one"], ["two"]),
            helper.make_node("Add", ["x", "two"], ["more"]),
            helper.make_node("RandomNormal", [], ["noise"], shape=[4]),
            helper.make_node("Add", ["more", "noise"], ["y"]),
        ],
        [models.tensor("x", TensorProto.FLOAT, (4,))],
        [models.tensor("y", TensorProto.FLOAT, (4,))],
        [helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])],
    )


def test_a_single_model_file_is_compiled(tmp_path: Path) -> None:
    """The artefact has it under its own name, and a document that says what was done."""
    prepared = compiled(tmp_path, models.doubled(("n", 4)), "net.onnx", {"x": [2, 4]})
    files = members(prepared)
    assert sorted(files) == [DOCUMENT_NAME, "net.onnx"]
    document = json.loads(files[DOCUMENT_NAME])
    assert document["model"] == "net.onnx"
    assert document["inputs"] == {"x": [2, 4]}
    assert document["target"] == "jetson_nano"
    assert document["optimisation"] == prepared.optimisation == BETTER
    given = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(run(files["net.onnx"], tmp_path, {"x": given})[0], given + given)


def test_what_lies_beside_the_model_in_an_archive_is_kept(tmp_path: Path) -> None:
    """Labels go where the model goes."""
    data = tar_gz({"net/m.onnx": models.doubled(), "net/labels.txt": b"cat\ndog\n"})
    files = members(compiled(tmp_path, data, "m.tar.gz"))
    assert sorted(files) == [DOCUMENT_NAME, "net/labels.txt", "net/m.onnx"]
    assert files["net/labels.txt"] == b"cat\ndog\n"


def test_external_data_are_written_anew(tmp_path: Path) -> None:
    """Those of before are no longer needed, and are left out."""
    models.save_with_external_data(models.weighty(64, 64), tmp_path / "m.onnx")
    files = {name: (tmp_path / name).read_bytes() for name in ("m.onnx", "weights.bin")}
    prepared = compiled(tmp_path, tar_gz(files), "m.tar.gz")
    assert sorted(members(prepared)) == [DOCUMENT_NAME, "m.onnx", "m.onnx.data"]


def test_the_same_upload_gives_the_same_bytes(tmp_path: Path) -> None:
    """An attempt after a crash writes what the first one would have written."""
    one, two = (compiled(tmp_path, models.doubled(("n", 4)), "m.onnx", {"x": [1, 4]}) for _ in range(2))
    assert one.archive.read_bytes() == two.archive.read_bytes()


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (models.from_the_end(), "does not run on sample inputs"),
        (expanding(4_000_000), "it would make"),
        (random(), "does not do the same"),
    ],
    ids=["fails on samples", "grows", "differs"],
)
def test_a_model_is_optimised_only_where_that_is_proven_better(tmp_path: Path, model: bytes, why: str) -> None:
    """Else it goes out as it came, and the document says why."""
    prepared = compiled(tmp_path, model, "m.onnx")
    assert prepared.optimisation.startswith("none: ")
    assert why in prepared.optimisation
    assert members(prepared)["m.onnx"] == model


def test_a_model_that_is_not_optimised_has_its_shapes_fixed(tmp_path: Path) -> None:
    """Fixing is what the job asked for."""
    loaded = onnx.load_from_string(random())
    loaded.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    loaded.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "n"
    prepared = compiled(tmp_path, loaded.SerializeToString(), "m.onnx", {"x": [4]})
    assert prepared.inputs == {"x": (4,)}
    fixed = onnx.load_from_string(members(prepared)["m.onnx"])
    assert fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 4


@pytest.mark.parametrize(
    ("data", "file_name", "reason"),
    [
        (b"hello", "m.pb", "SOURCE_UNUSABLE"),
        (b"hello", "m.onnx", "SOURCE_UNUSABLE"),
        (tar_gz({"a.onnx": b"a", "b.onnx": b"b"}), "m.tar.gz", "SOURCE_UNUSABLE"),
        (tar_gz({"readme.txt": b"a"}), "m.tar.gz", "SOURCE_UNUSABLE"),
        (tar_gz({"../m.onnx": b"a"}), "m.tar.gz", "ARCHIVE_PATH_ESCAPE"),
        (tar_gz({}, link="m.onnx"), "m.tar.gz", "PACKAGE_MEMBER_FORBIDDEN"),
        (tar_gz({"m.onnx": bytes(70_000_000)}), "m.tar.gz", "ARCHIVE_TOO_LARGE"),
        (tar_gz({"m.onnx": models.doubled()})[:-20], "m.tar.gz", "PACKAGE_UNREADABLE"),
        (b"\x1f\x8bnonsense", "m.onnx", "PACKAGE_UNREADABLE"),
        (models.sequence_output(), "m.onnx", "MODEL_TYPE_UNSUPPORTED"),
    ],
    ids=["framework", "text", "two models", "no model", "escape", "link", "bomb", "cut", "no gzip", "types"],
)
def test_what_cannot_be_compiled_is_refused(tmp_path: Path, data: bytes, file_name: str, reason: str) -> None:
    """Each with its own reason, before anything is written."""
    with pytest.raises(AgentError) as refused:
        compiled(tmp_path, data, file_name)
    assert refused.value.reason == reason


def test_a_model_that_needs_a_file_outside_its_folder_is_refused(tmp_path: Path) -> None:
    """Its external data could be any file of the machine."""
    models.save_with_external_data(models.weighty(4, 4), tmp_path / "m.onnx")
    loaded = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    for initializer in loaded.graph.initializer:
        (location,) = (each for each in initializer.external_data if each.key == "location")
        location.value = "../../etc/hostname"
    with pytest.raises(SourceUnusable, match="outside its own folder"):
        compiled(tmp_path, loaded.SerializeToString(), "m.onnx")


def test_shapes_that_are_not_the_models_are_refused(tmp_path: Path) -> None:
    """The message has the model's own."""
    with pytest.raises(ModelShapesMismatch, match="no input 'data'"):
        compiled(tmp_path, models.doubled(), "m.onnx", {"data": [1, 4]})


def test_a_model_with_an_operator_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    """The checker is quoted."""
    graph = helper.make_graph(
        [helper.make_node("Conjure", ["x"], ["y"])],
        "test",
        [models.tensor("x", TensorProto.FLOAT, (1,))],
        [models.tensor("y", TensorProto.FLOAT, (1,))],
    )
    with pytest.raises(ModelUnreadable, match="Conjure"):
        compiled(tmp_path, helper.make_model(graph).SerializeToString(), "m.onnx")
