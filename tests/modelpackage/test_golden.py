"""Golden inputs and outputs: kept, read, compared."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightkeeper.errors import GoldenMismatch, ManifestInvalid, SourceUnusable
from lightkeeper.modelpackage import golden
from lightkeeper.modelpackage.golden import GoldenArrays
from lightkeeper.modelpackage.manifest import Golden, GoldenTensor, Manifest
from lightkeeper.tensor import DataType, TensorMetadata

Y = TensorMetadata("y", DataType.FLOAT32, (-1, 2))
X = TensorMetadata("x", DataType.INT64, ())
MANIFEST = Manifest(
    "m", "1", "onnx", "m.onnx", (X,), (Y,), golden=Golden((GoldenTensor("x", "x.npy"),), (GoldenTensor("y", "y.npy"),))
)


def arrays(expected: Any, relative: float = 0.0, absolute: float = 0.0) -> GoldenArrays:
    """Golden arrays with one output."""
    return GoldenArrays({}, {"y": np.asarray(expected)}, relative, absolute)


def test_arrays_are_read_little_endian_and_whole(tmp_path: Path) -> None:
    """What numpy wrote in whatever order is read as the wire has it, scalars and empty arrays too (clause 2.7)."""
    np.save(tmp_path / "x.npy", np.array(7, ">i8"))
    np.save(tmp_path / "y.npy", np.zeros((0, 2), np.float32))
    read = golden.read(tmp_path, MANIFEST)
    assert read is not None
    assert read.inputs["x"].shape == ()
    assert read.inputs["x"].tobytes() == b"\x07" + bytes(7)
    assert read.outputs["y"].shape == (0, 2)
    assert golden.read(tmp_path, replace(MANIFEST, golden=None)) is None


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (np.zeros((1, 3), np.float32), "its shape"),
        (np.zeros((2,), np.float32), "its shape"),
        (np.zeros((1, 2), np.float64), "its elements"),
        (np.zeros((1, 2), bool), "its elements"),
        (b"", "no"),
        (b"no array", "not an .npy array"),
        (np.array([[{}, 1]], dtype=object), "not an .npy array"),
    ],
    ids=["other size", "other rank", "other type", "bool", "empty", "noise", "pickled"],
)
def test_file_that_does_not_fit_is_refused(tmp_path: Path, content: Any, why: str) -> None:
    """A golden file is an array of its tensor's type and shape, and is never unpickled (clause 2.7)."""
    np.save(tmp_path / "x.npy", np.array(1, np.int64))
    if isinstance(content, bytes):
        (tmp_path / "y.npy").write_bytes(content)
    else:
        np.save(tmp_path / "y.npy", content, allow_pickle=True)
    with pytest.raises(ManifestInvalid, match=why) as refused:
        golden.read(tmp_path, MANIFEST)
    assert refused.value.facts["file"] == "y.npy"


@pytest.mark.parametrize(
    ("expected", "fits", "misses", "relative", "absolute"),
    [
        ([1.0, 2.0], [1.0, 2.0], [1.0, 2.0000001], 0, 0),
        ([100.0], [100.9], [101.1], 0.01, 0),
        ([-100.0], [-99.1], [-98.9], 0.01, 0),
        ([0.0], [0.001], [0.0011], 0, 0.001),
        ([10.0], [11.4], [11.6], 0.1, 0.5),
        ([math.nan, math.inf, -math.inf], [math.nan, math.inf, -math.inf], [math.nan, math.inf, 1e300], 1, 1),
        ([], [], [1.0], 0, 0),
        (5, 5, 6, 0, 0),
        ([2**62 + 1], [2**62 + 1], [2**62], 0, 0),
    ],
)
def test_output_fits_up_to_the_tolerance(
    expected: Any, fits: Any, misses: Any, relative: float, absolute: float
) -> None:
    """An output fits where no element is farther off than both tolerances together (clause 2.7)."""
    golden.compare(arrays(expected, relative, absolute), {"y": np.asarray(fits)})
    with pytest.raises(GoldenMismatch):
        golden.compare(arrays(expected, relative, absolute), {"y": np.asarray(misses)})


@pytest.mark.parametrize(
    ("expected", "given", "difference", "position"),
    [
        (np.array([1, 2, 3], np.float32), np.array([1, 2.5, 3.25], np.float32), "0.5", "[1]"),
        (np.array([[1, 2]], np.float32), np.array([[1, math.nan]], np.float32), "inf", "[0, 1]"),
        (np.array([math.inf], np.float32), np.array([-math.inf], np.float32), "inf", "[0]"),
        (np.array(5.0), np.array(7.0), "2.0", "[]"),
        (np.array([0], np.uint8), np.array([255], np.uint8), "255.0", "[0]"),
        (np.array([2**62], np.int64), np.array([2**62 + 1], np.int64), "0.0", "[0]"),
        (np.array([65504], np.float16), np.array([-65504], np.float16), "131008.0", "[0]"),
    ],
)
def test_output_off_is_refused_with_the_worst_element(
    expected: Any, given: Any, difference: str, position: str
) -> None:
    """The refusal names tensor, position, both values, and the largest difference (clause 2.7)."""
    with pytest.raises(GoldenMismatch) as refused:
        golden.compare(arrays(expected), {"y": given})
    assert refused.value.facts["tensor"] == "y"
    assert refused.value.facts["largest_difference"] == difference
    assert refused.value.facts["position"] == position


def test_output_of_another_shape_is_refused() -> None:
    """An output of another shape, or none, is not broadcast into fitting (clause 2.7)."""
    for given in ({"y": np.zeros((1, 2))}, {}):
        with pytest.raises(GoldenMismatch):
            golden.compare(arrays(np.zeros(2)), given)


def test_npz_is_read_by_tensor_name(tmp_path: Path) -> None:
    """Arrays for a new package are found by their tensors' names."""
    np.savez(tmp_path / "x.npz", x=np.array(3, ">i8"), y=np.ones((4, 2), np.float32))
    read = golden.load_npz(tmp_path / "x.npz", (X, Y), every=True)
    assert read["x"].dtype == np.dtype("<i8")
    assert read["y"].shape == (4, 2)


@pytest.mark.parametrize(
    "given",
    [
        {"y": np.ones((1, 2), np.float32)},
        {"x": np.array(1), "z": np.array(1)},
        {"x": np.array(1.5)},
        {"x": np.array({})},
    ],
    ids=["missing", "unknown", "other type", "pickled"],
)
def test_npz_that_does_not_fit_is_refused(tmp_path: Path, given: dict[str, Any]) -> None:
    """An array that is missing, unknown or of another type is named."""
    np.savez(tmp_path / "x.npz", **given)
    with pytest.raises(SourceUnusable):
        golden.load_npz(tmp_path / "x.npz", (X,), every=True)


def test_file_that_is_no_npz_is_refused(tmp_path: Path) -> None:
    """Neither noise nor a single array passes for an .npz file."""
    np.save(tmp_path / "single.npy", np.array(1))
    (tmp_path / "noise.npz").write_bytes(b"noise")
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04")
    for name in ("single.npy", "noise.npz", "cut.npz", "missing.npz"):
        with pytest.raises(SourceUnusable):
            golden.load_npz(tmp_path / name, (X,), every=True)
