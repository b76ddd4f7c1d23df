"""The golden input and output of a package: read from its files, and compared with what the model gives here."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lightkeeper.errors import GoldenMismatch, ManifestInvalid, SourceUnusable
from lightkeeper.modelpackage.manifest import GoldenTensor, Manifest
from lightkeeper.tensor import DYNAMIC, TensorMetadata

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class GoldenArrays:
    """Arrays by tensor name: every required input, and the outputs that are compared."""

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    relative_tolerance: float
    absolute_tolerance: float


def read(folder: Path, manifest: Manifest) -> GoldenArrays | None:
    """Read the golden arrays of a package in a folder, or return None where it has none.

    Raises `ManifestInvalid` where a file is not an array of its tensor's type and shape.
    """
    golden = manifest.golden
    if golden is None:
        return None
    inputs = {tensor.name: tensor for tensor in manifest.inputs}
    outputs = {tensor.name: tensor for tensor in manifest.outputs}
    return GoldenArrays(
        {kept.name: _array(folder, kept, inputs[kept.name]) for kept in golden.inputs},
        {kept.name: _array(folder, kept, outputs[kept.name]) for kept in golden.outputs},
        golden.relative_tolerance,
        golden.absolute_tolerance,
    )


def misfit(array: Array, tensor: TensorMetadata) -> str | None:
    """Return why an array is not one of this tensor's, or None."""
    if array.dtype.newbyteorder("=") != tensor.data_type.dtype.newbyteorder("="):
        return f"its elements are {array.dtype.name}, not {tensor.data_type.name}"
    fits = len(array.shape) == len(tensor.shape) and all(
        wanted in (DYNAMIC, size) for size, wanted in zip(array.shape, tensor.shape, strict=True)
    )
    return None if fits else f"its shape is {list(array.shape)}, not {list(tensor.shape)}"


def compare(golden: GoldenArrays, given: Mapping[str, Array]) -> None:
    """Raise `GoldenMismatch` for the first output that is not the golden one within the tolerance.

    An element fits where `|given - expected| <= absolute + relative * |expected|`; NaN fits NaN, and an infinity fits
    the same infinity. `given` has the model's outputs by name.
    """
    for name, expected in golden.outputs.items():
        actual = given.get(name)
        if actual is None or actual.shape != expected.shape:
            shape = None if actual is None else list(actual.shape)
            raise GoldenMismatch(
                f"the output {name!r} has the shape {shape}, the golden one {list(expected.shape)}",
                tensor=name,
                expected=list(expected.shape),
                given=shape,
            )
        wide_actual, wide_expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
        fits = np.isclose(
            wide_actual, wide_expected, golden.relative_tolerance, golden.absolute_tolerance, equal_nan=True
        )
        if golden.relative_tolerance == golden.absolute_tolerance == 0 and expected.dtype.kind in "iu":
            fits = np.equal(actual, expected)  # float64 cannot tell large integers apart
        if np.all(fits):
            continue
        with np.errstate(all="ignore"):  # infinities and NaN may differ here: that is what is being reported
            differences = np.nan_to_num(np.abs(wide_actual - wide_expected), nan=np.inf, posinf=np.inf)
        differences = np.where(fits, -1.0, differences)
        worst = np.unravel_index(np.argmax(differences), differences.shape)
        raise GoldenMismatch(
            f"the output {name!r} is {actual[worst]} where the golden one is {expected[worst]}",
            tensor=name,
            position=[int(index) for index in worst],
            expected=expected[worst],
            given=actual[worst],
            largest_difference=differences[worst],
            relative_tolerance=golden.relative_tolerance,
            absolute_tolerance=golden.absolute_tolerance,
            elements_off=f"{differences.size - np.count_nonzero(fits)} of {differences.size}",
        )


def _array(folder: Path, kept: GoldenTensor, tensor: TensorMetadata) -> Array:
    try:
        with (folder / kept.file).open("rb") as file:
            array: object = np.load(file, allow_pickle=False)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ManifestInvalid(f"{kept.file} is not an .npy array: {error}", file=kept.file, tensor=kept.name) from error
    if not isinstance(array, np.ndarray):  # an .npz archive under another name
        raise ManifestInvalid(f"{kept.file} is not an .npy array", file=kept.file, tensor=kept.name)
    problem = misfit(array, tensor)
    if problem is not None:
        raise ManifestInvalid(f"{kept.file} does not fit {kept.name!r}: {problem}", file=kept.file, tensor=kept.name)
    return _plain(array, tensor)


def _plain(array: Array, tensor: TensorMetadata) -> Array:
    """Return the array little-endian and C-contiguous (which numpy alone would do at the price of a scalar's shape)."""
    return np.ascontiguousarray(array, tensor.data_type.dtype).reshape(array.shape)


def load_npz(path: Path, tensors: Sequence[TensorMetadata], *, every: bool) -> dict[str, Array]:
    """Read arrays for these tensors from an `.npz` file, for a new package; `every` tensor must then be there.

    Raises `SourceUnusable`, naming the tensor.
    """
    known = {tensor.name: tensor for tensor in tensors}
    try:
        # Opened here, since numpy leaves a file open that turns out to be no archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise SourceUnusable(f"{path} is not an .npz file of arrays: {error}", file=path) from error
    for name in sorted(known.keys() - arrays.keys() if every else ()):
        raise SourceUnusable(f"{path} has no array for {name!r}", file=path, tensor=name)
    for name, array in arrays.items():
        problem = misfit(array, known[name]) if name in known else "the model has no such tensor"
        if problem is not None:
            raise SourceUnusable(f"{path}: {name!r}: {problem}", file=path, tensor=name)
    return {name: _plain(array, known[name]) for name, array in arrays.items()}
