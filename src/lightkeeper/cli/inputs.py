"""Files that people have, as the arrays a model takes: `.npy`, `.npz`, `.json`, and images.

An image becomes what the input asks for: its layout from where the shape has the channels (1, 3 or 4), its size from
the shape where that is fixed, and for a floating-point input values from 0 to 1, less a mean and over a deviation
where they are given.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lightkeeper.errors import ExtraMissing, InputFileUnreadable, TensorUnknown
from lightkeeper.tensor import DYNAMIC, TensorMetadata

Array = npt.NDArray[Any]

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_IMAGE_RANKS = (3, 4)


@dataclass(frozen=True, slots=True)
class Normalisation:
    """What is subtracted from and divided into an image's values (one a channel, or one for all)."""

    mean: Sequence[float] = (0.0,)
    deviation: Sequence[float] = (1.0,)


def read(arguments: Sequence[str], inputs: Sequence[TensorMetadata], image: Normalisation) -> dict[str, Array]:
    """Return the arrays that `FILE` and `INPUT=FILE` arguments hold, by input name.

    Files without a name go to the inputs in order; `.npz` and `.json` objects name their inputs themselves. Raises
    `InputFileUnreadable`, `TensorUnknown` or `ExtraMissing`.
    """
    by_name = {metadata.name: metadata for metadata in inputs}
    arrays: dict[str, Array] = {}
    for argument in arguments:
        name, equals, path = argument.partition("=")
        if not equals or Path(argument).exists():
            name, path = "", argument
        free = [metadata.name for metadata in inputs if metadata.name not in arrays]
        value = _load(Path(path))
        if isinstance(value, Mapping):
            for key, item in value.items():
                arrays[key] = _fit(item, _known(key, by_name), image)
        else:
            metadata = _known(name or (free[0] if free else ""), by_name)
            arrays[metadata.name] = _fit(value, metadata, image)
    return arrays


def _known(name: str, by_name: Mapping[str, TensorMetadata]) -> TensorMetadata:
    if name not in by_name:
        raise TensorUnknown(
            f"the model has no input {name or 'left for this file'}", tensor=name, expected=", ".join(by_name)
        )
    return by_name[name]


def _load(path: Path) -> Any:
    """Return an array, lists of numbers, an image, or a mapping of names to the first two."""
    suffix = path.suffix.lower()
    try:
        if suffix == ".npy":
            return np.load(path, allow_pickle=False)
        if suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return dict(archive)
        if suffix == ".json":
            return json.loads(path.read_text(encoding="utf-8"))
        if suffix in IMAGE_SUFFIXES:
            return _open_image(path)
    except (OSError, ValueError, EOFError) as error:
        cause = (isinstance(error, OSError) and error.strerror) or error
        raise InputFileUnreadable(f"{path} cannot be read: {cause}", file=path) from error
    raise InputFileUnreadable(f"{path} is of no known kind", file=path, expected=".npy, .npz, .json or an image")


def _open_image(path: Path) -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise ExtraMissing("reading images needs Pillow", extra="images") from error
    with Image.open(path) as picture:
        picture.load()
        return picture


def _fit(value: Any, metadata: TensorMetadata, image: Normalisation) -> Array:
    dtype = metadata.data_type.dtype
    if isinstance(value, np.ndarray):
        return value  # an array says what it is: the agent judges it
    if isinstance(value, list | int | float):
        try:
            return np.asarray(value, dtype)
        except (ValueError, TypeError, OverflowError) as error:
            raise InputFileUnreadable(
                f"the JSON value for {metadata.name} is no array of {metadata.data_type.name}: {error}",
                tensor=metadata.name,
            ) from error
    if hasattr(value, "convert"):
        return _image_array(value, metadata, image)
    raise InputFileUnreadable(f"the value for {metadata.name} is not an array of numbers", tensor=metadata.name)


def _image_array(picture: Any, metadata: TensorMetadata, image: Normalisation) -> Array:
    shape = metadata.shape
    sides = shape[-3:]
    if len(shape) not in _IMAGE_RANKS or not {sides[0], sides[2]} & _MODES.keys():
        raise InputFileUnreadable(
            f"input {metadata.name} of shape {list(shape)} takes no image", tensor=metadata.name, expected=list(shape)
        )
    channels_first = sides[0] in _MODES
    channels, height, width = sides if channels_first else (sides[2], sides[0], sides[1])
    size = (picture.width if width == DYNAMIC else width, picture.height if height == DYNAMIC else height)
    pixels = np.asarray(picture.convert(_MODES[channels]).resize(size)).reshape(size[1], size[0], channels)
    dtype = metadata.data_type.dtype
    if dtype.kind == "f":
        scaled = pixels.astype(np.float32) / np.float32(255)
        pixels = (scaled - np.asarray(image.mean, np.float32)) / np.asarray(image.deviation, np.float32)
    array = pixels.astype(dtype)
    if channels_first:
        array = array.transpose(2, 0, 1)
    return np.ascontiguousarray(array if len(shape) == len(sides) else array[np.newaxis])
