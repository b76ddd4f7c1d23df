"""The manifest: read strictly, written so that it reads back."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightkeeper.cli.package import SWAP_LIMITS
from lightkeeper.errors import AgentError, AgentTooOld, ManifestInvalid
from lightkeeper.modelpackage.manifest import FORMAT_VERSION, Golden, GoldenTensor, Manifest, SwapLimits
from lightkeeper.modelpackage.target import Host, Target, architecture
from lightkeeper.tensor import DataType, TensorMetadata
from tests.support.packages import MANIFEST

GOLDEN = replace(
    MANIFEST, golden=Golden((GoldenTensor("x", "golden/x.npy"),), (GoldenTensor("y", "golden/y.npy"),), 1e-3, 0.0)
)

# --- generators ------------------------------------------------------------------------------------------------------

_letters = st.sampled_from("abcXYZ019")
model_names = st.builds("{}{}".format, _letters, st.from_regex(r"\A[a-z0-9-]{0,20}[a-z0-9]\Z"))
words = st.from_regex(r"\A[a-z][a-z0-9_]{0,10}\Z").map(architecture)
texts = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1, max_size=12)
parts = st.from_regex(r"\A[a-z0-9_-][a-z0-9._-]{0,10}\Z")
paths = st.lists(parts, min_size=1, max_size=4).map("/".join)
tensors = st.builds(
    TensorMetadata,
    texts,
    st.sampled_from(DataType),
    st.lists(st.integers(-1, 2**31 - 1), max_size=6).map(tuple),
)
tolerances = st.floats(0, 1e6)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    """Any manifest that makes sense."""
    inputs = tuple(draw(st.lists(tensors, max_size=3, unique_by=lambda tensor: tensor.name)))
    outputs = tuple(draw(st.lists(tensors, min_size=1, max_size=3, unique_by=lambda tensor: tensor.name)))
    golden = None
    if draw(st.booleans()):
        golden = Golden(
            tuple(GoldenTensor(tensor.name, draw(paths)) for tensor in inputs),
            tuple(GoldenTensor(tensor.name, draw(paths)) for tensor in outputs[: draw(st.integers(1, len(outputs)))]),
            draw(tolerances),
            draw(tolerances),
        )
    return Manifest(
        draw(model_names),
        draw(st.from_regex(r"\A[0-9]{1,3}(\.[0-9]{1,3}){0,3}\Z")),
        draw(st.from_regex(r"\A[a-z][a-z0-9_-]{0,10}\Z")),
        draw(paths),
        inputs,
        outputs,
        Target(draw(words), draw(words), draw(words)),
        draw(st.from_regex(r"\A[0-9]{1,8}(\.[0-9]{1,8}){0,2}\Z")),
        golden,
    )


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(manifests())
def test_written_manifest_reads_back_equal(manifest: Manifest) -> None:
    """Whatever a builder can say, a device reads just so (clause 2)."""
    assert Manifest.parse(manifest.to_json()) == manifest


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_refused_cleanly(data: bytes) -> None:
    """No bytes make the reader fail in another way than by refusing (clause 2)."""
    with pytest.raises(ManifestInvalid):
        Manifest.parse(data)


@given(st.data())
def test_any_field_replaced_by_any_value_is_read_or_refused(data: st.DataObject) -> None:
    """Whatever stands in whatever field, the manifest is either understood in full or refused (clause 2)."""
    document = json.loads(GOLDEN.to_json())
    place: Any = document
    while True:
        key = data.draw(st.sampled_from(list(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(json_values)
    try:
        manifest = Manifest.parse(json.dumps(document).encode())
    except AgentError as error:
        assert isinstance(error, ManifestInvalid | AgentTooOld)  # noqa: PT017  # either is right
    else:
        assert Manifest.parse(manifest.to_json()) == manifest


def _edit(path: str, value: Any = None) -> Callable[[Any], object]:
    def edit(document: Any) -> None:
        *way, last = [int(key) if key.isdecimal() else key for key in path.split(".")]
        for key in way:
            document = document[key]
        if value is None:
            del document[last]
        else:
            document[last] = value

    return edit


FAULTS: dict[str, tuple[Callable[[Any], object], str]] = {
    "no format version": (_edit("format_version"), "format_version"),
    "a format version of text": (_edit("format_version", "1"), "format_version"),
    "an unknown field": (_edit("extra", 1), "extra"),
    "no name": (_edit("name"), "name"),
    "a name with a slash": (_edit("name", "a/b"), "name"),
    "a name that ends in a hyphen": (_edit("name", "a-"), "name"),
    "a name of 64": (_edit("name", "a" * 64), "name"),
    "a version with a slash": (_edit("version", "../1"), "version"),
    "a version of numbers": (_edit("version", 1.0), "version"),
    "a format in capitals": (_edit("format", "ONNX"), "format"),
    "a main file above": (_edit("model", "../model.onnx"), "model"),
    "an absolute main file": (_edit("model", "/model.onnx"), "model"),
    "no outputs": (_edit("outputs", []), "outputs"),
    "a tensor twice": (_edit("inputs.0.name", "twin"), "inputs[1].name"),
    "a tensor without name": (_edit("inputs.0.name", ""), "inputs[0].name"),
    "an unknown data type": (_edit("inputs.0.data_type", "BOOL"), "inputs[0].data_type"),
    "a dimension of -2": (_edit("inputs.0.shape.0", -2), "inputs[0].shape[0]"),
    "a dimension of text": (_edit("inputs.0.shape.0", "n"), "inputs[0].shape[0]"),
    "a dimension that is true": (_edit("inputs.0.shape.0", True), "inputs[0].shape[0]"),
    "a dimension too large": (_edit("inputs.0.shape.0", 2**31), "inputs[0].shape[0]"),
    "a rank of 33": (_edit("inputs.0.shape", [1] * 33), "inputs[0].shape"),
    "an unknown word of target": (_edit("target.os", "Linux"), "target.os"),
    "an architecture by another name": (_edit("target.architecture", "amd64"), "target.architecture"),
    "an unknown field of target": (_edit("target.kernel", "6"), "target.kernel"),
    "a minimum version of text": (_edit("minimum_agent_version", "1.x"), "minimum_agent_version"),
    "no golden array for an input": (_edit("golden.inputs", []), "golden.inputs"),
    "no golden output": (_edit("golden.outputs", []), "golden.outputs"),
    "a golden array for no tensor": (_edit("golden.outputs.0.name", "z"), "golden.outputs[0].name"),
    "a golden file above": (_edit("golden.inputs.0.file", "../x.npy"), "golden.inputs[0].file"),
    "a negative tolerance": (_edit("golden.relative_tolerance", -1), "golden.relative_tolerance"),
    "no tolerance": (_edit("golden.absolute_tolerance"), "golden.absolute_tolerance"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_manifest_is_refused_with(fault: str) -> None:
    """Each field that is wrong is named (clause 2)."""
    edit, field = FAULTS[fault]
    document = json.loads(GOLDEN.to_json())
    document["inputs"].append({"name": "twin", "data_type": "INT64", "shape": []})
    document["golden"]["inputs"].append({"name": "twin", "file": "golden/twin.npy"})
    assert Manifest.parse(json.dumps(document).encode()).inputs[1].shape == ()
    edit(document)
    with pytest.raises(ManifestInvalid) as refused:
        Manifest.parse(json.dumps(document).encode())
    assert refused.value.facts["field"] == field
    assert refused.value.facts["file"] == "manifest.json"


@pytest.mark.parametrize(
    "text", [b'{"name": 1, "name": 2}', b'{"format_version": NaN}', b"\xef\xbb\xbf{}", b"[" * 99999]
)
def test_document_that_readers_differ_on_is_refused(text: bytes) -> None:
    """Twin keys, NaN, a byte order mark and bottomless nesting are no JSON here (clause 2.1)."""
    with pytest.raises(ManifestInvalid):
        Manifest.parse(text)


def test_later_format_version_says_that_the_agent_is_too_old() -> None:
    """A manifest of a later version is not called wrong, whatever else it has (clause 2.2)."""
    with pytest.raises(AgentTooOld) as refused:
        Manifest.parse(json.dumps({"format_version": FORMAT_VERSION + 1, "new": {}}).encode())
    assert refused.value.facts == {"expected": "3", "given": "2"}


def test_limits_of_a_swap_are_read_back_and_need_their_format_version() -> None:
    """A manifest without them is what it was before there were any (clause 2.8)."""
    said = replace(MANIFEST, swap=SwapLimits(latency_ratio=2.0, argmax_disagreement=0.0))
    document = json.loads(said.to_json())
    assert (document["format_version"], document["swap"]) == (2, {"latency_ratio": 2.0, "argmax_disagreement": 0.0})
    assert Manifest.parse(said.to_json()) == said
    assert json.loads(MANIFEST.to_json())["format_version"] == 1
    with pytest.raises(ManifestInvalid) as refused:
        Manifest.parse(json.dumps(document | {"format_version": 1}).encode())
    assert refused.value.facts["field"] == "swap"


@pytest.mark.parametrize("limits", [{"latency_ratio": -1}, {"latency": 1}, {"latency_ratio": "1"}, []])
def test_a_wrong_limit_of_a_swap_is_refused(limits: object) -> None:
    """As any other field that is not understood."""
    document = json.loads(MANIFEST.to_json()) | {"format_version": 2, "swap": limits}
    with pytest.raises(ManifestInvalid):
        Manifest.parse(json.dumps(document).encode())


def test_the_command_knows_every_limit_of_a_swap() -> None:
    """`--swap-limit` takes what a manifest has a field for."""
    assert tuple(SwapLimits.__dataclass_fields__) == SWAP_LIMITS


@pytest.mark.parametrize(
    ("agent", "minimum", "runs"),
    [
        ("1.0.0", "1", True),
        ("1.0.0", "1.0.0", True),
        ("1.0.0", "1.0.1", False),
        ("1.0.0", "2", False),
        ("1.10.0", "1.9.9", True),
        ("1.20261122.81f481f", "1.20261122", True),
        ("1.20261122.81f481f", "1.20261123", False),
        ("1.20261122.8148111", "1.0.0", True),
        ("2.0.0.dev1", "1.99", True),
    ],
)
def test_agent_version_is_compared_by_numbers(agent: str, minimum: str, runs: bool) -> None:
    """Versions are compared number by number; a release's commit does not count (clause 2.6)."""
    host = Host("linux", "x86_64", frozenset({"cpu"}), agent)
    if runs:
        host.check_runs(Target(), minimum)
    else:
        with pytest.raises(AgentTooOld):
            host.check_runs(Target(), minimum)


def test_this_host_runs_what_is_built_for_it() -> None:
    """The words for this device are those a target may have (clause 2.5)."""
    host = Host.this()
    target = Target(host.os, host.architecture, "cpu")
    host.check_runs(target, "1")
    assert Manifest.parse(replace(MANIFEST, target=target).to_json()).target == target
