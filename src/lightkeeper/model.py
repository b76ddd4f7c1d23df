"""What a loaded model tells its callers of itself, and which package it came from."""

from __future__ import annotations

from dataclasses import dataclass

from lightkeeper.tensor import TensorMetadata


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """A loaded model as ListModels and DescribeModel tell it. `url` is where it was loaded from."""

    name: str
    url: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]


@dataclass(frozen=True, slots=True)
class PackageIdentity:
    """The package a model was loaded from: its own name and version, and the SHA-256 of its content."""

    name: str
    version: str
    digest: str
