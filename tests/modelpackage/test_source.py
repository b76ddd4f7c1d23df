"""Finding a model's files: external data as the `onnx` package writes it, folders, and what cannot be packaged."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

from lightkeeper.errors import SourceUnusable
from lightkeeper.modelpackage import onnxfile, source
from tests.support.systems import posix_only
from tests.support.users import ordinary_user


def external(name: str, location: str) -> TensorProto:
    """A tensor whose data lies in another file."""
    tensor = numpy_helper.from_array(np.arange(4, dtype=np.float32), name)
    set_external_data(tensor, location, offset=0, length=16)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    return tensor


def model(*initializers: TensorProto) -> onnx.ModelProto:
    """A model with these weights, and one within a subgraph, an attribute and a function."""
    inner = helper.make_graph([], "inner", [], [], [external("inner", "sub/graph.bin")])
    attribute = helper.make_node("Constant", [], ["c"], value=external("constant", "constant.bin"))
    branch = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
    graph = helper.make_graph([attribute, branch], "outer", [], [], list(initializers))
    function = helper.make_function("local", "F", [], [], [attribute], [helper.make_opsetid("", 17)])
    return helper.make_model(graph, functions=[function])


def test_external_data_is_found_wherever_it_may_lie(tmp_path: Path) -> None:
    """Locations in the graph, in subgraphs, attributes and functions are all found, and each once."""
    path = tmp_path / "model.onnx"
    inside = numpy_helper.from_array(np.zeros(1000, np.float32), "inside")
    path.write_bytes(model(external("a", "weights.bin"), external("b", "weights.bin"), inside).SerializeToString())
    assert onnxfile.external_data(path) == ["constant.bin", "sub/graph.bin", "weights.bin"]


def test_model_as_onnx_saves_it_is_packaged_with_its_data(tmp_path: Path) -> None:
    """What `onnx.save_model` writes with external data is found as its own reader finds it."""
    weights = numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64])],
        [weights],
    )
    path = tmp_path / "big.onnx"
    onnx.save_model(
        helper.make_model(graph), path, save_as_external_data=True, location="big.onnx.data", size_threshold=0
    )
    (tmp_path / "unrelated").touch()
    found = source.find(path)
    assert found.model == "big.onnx"
    assert found.files == {"big.onnx": path, "big.onnx.data": tmp_path / "big.onnx.data"}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_damaged_model_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    """Whatever bytes a model file has, reading it ends, with locations or a refusal."""
    content = bytearray(model(external("a", "weights.bin")).SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "model.onnx"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(SourceUnusable):
        assert isinstance(onnxfile.external_data(path), list)


def test_nesting_without_end_is_refused(tmp_path: Path) -> None:
    """A file that nests graphs thousands deep does not exhaust the stack."""
    content = b""
    for _ in range(2000):
        for tag in (0x32, 0x2A, 0x0A):  # attribute.graph, node.attribute, graph.node
            content = bytes([tag]) + _varint(len(content)) + content
    path = tmp_path / "deep.onnx"
    path.write_bytes(b"\x3a" + _varint(len(content)) + content)
    with pytest.raises(SourceUnusable, match="nested too deep"):
        onnxfile.external_data(path)


def _varint(value: int) -> bytes:
    encoded = b""
    while value > 0x7F:
        encoded += bytes([value & 0x7F | 0x80])
        value >>= 7
    return encoded + bytes([value])


def plain(path: Path) -> Path:
    """Write a model without external data."""
    path.parent.mkdir(parents=True, exist_ok=True)
    graph = helper.make_graph([], "g", [], [])
    path.write_bytes(helper.make_model(graph).SerializeToString())
    return path


@posix_only
def test_folder_is_taken_whole_but_for_version_control(tmp_path: Path) -> None:
    """All files of a folder go along, links by their content; the files of git stay (clause 1.3)."""
    folder = tmp_path / "folder"
    plain(folder / "model.onnx")
    (folder / "labels.txt").write_text("cat")
    (tmp_path / "blob").write_text("linked")
    (folder / "linked.txt").symlink_to(tmp_path / "blob")
    (folder / ".gitattributes").touch()
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").touch()
    assert sorted(source.find(folder).files) == ["labels.txt", "linked.txt", "model.onnx"]


def test_main_file_of_a_folder_is_the_only_one_or_the_one_named(tmp_path: Path) -> None:
    """With several models in a folder, one must be named; those below the top do not compete."""
    plain(tmp_path / "a.onnx")
    plain(tmp_path / "below" / "c.onnx")
    assert source.find(tmp_path).model == "a.onnx"
    plain(tmp_path / "b.onnx")
    with pytest.raises(SourceUnusable, match=r"a\.onnx, b\.onnx"):
        source.find(tmp_path)
    assert source.find(tmp_path, "below/c.onnx").model == "below/c.onnx"
    with pytest.raises(SourceUnusable):
        source.find(tmp_path, "d.onnx")


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "a/../../b", "gone.bin"])
def test_external_data_out_of_reach_is_refused(tmp_path: Path, location: str) -> None:
    """Data outside the model's folder, or not there, cannot be packaged, and is named."""
    path = tmp_path / "m" / "model.onnx"
    path.parent.mkdir()
    (tmp_path / "weights.bin").touch()
    graph = helper.make_graph([], "g", [], [], [external("a", location)])
    path.write_bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(SourceUnusable) as refused:
        source.find(path)
    assert refused.value.facts["needs"] == location


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    """Missing paths, other formats, empty files and reserved names are each refused."""
    (tmp_path / "model.pt").write_bytes(b"x")
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "text.onnx").write_text("not a model")
    for name in ("gone", "model.pt", "empty.onnx", "text.onnx"):
        with pytest.raises(SourceUnusable):
            source.find(tmp_path / name)
    for reserved in ("manifest.json", "model.sig"):
        folder = tmp_path / f"with {reserved}"
        plain(folder / "model.onnx")
        (folder / reserved).touch()
        with pytest.raises(SourceUnusable, match=reserved):
            source.find(folder)


@posix_only
def test_links_that_cannot_be_followed_are_refused(tmp_path: Path) -> None:
    """A link to a folder and one that leads nowhere are refused by name."""
    plain(tmp_path / "a" / "model.onnx")
    (tmp_path / "a" / "folder").symlink_to(tmp_path)
    plain(tmp_path / "b" / "model.onnx")
    (tmp_path / "b" / "gone").symlink_to("nowhere")
    for name, link in (("a", "folder"), ("b", "gone")):
        with pytest.raises(SourceUnusable) as refused:
            source.find(tmp_path / name)
        assert refused.value.facts["file"] == link


@posix_only
def test_a_folder_that_may_not_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than left out of the package."""
    plain(tmp_path / "m" / "model.onnx")
    (tmp_path / "m" / "labels").mkdir(0o700)
    for folder in (tmp_path, tmp_path / "m"):
        folder.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    with ordinary_user(), pytest.raises(SourceUnusable, match="m/labels cannot be listed: Permission denied"):
        source.find(Path("m"))
