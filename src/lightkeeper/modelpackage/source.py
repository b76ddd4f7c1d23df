"""What goes into a package: the files of a model, found from an `.onnx` file or a folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lightkeeper import paths
from lightkeeper.errors import SourceUnusable
from lightkeeper.modelpackage import manifest, member, onnxfile

ONNX = "onnx"
_SIGNATURE_FILE_NAME = "model.sig"
_VERSION_CONTROL = frozenset({".git", ".gitignore", ".gitattributes", ".github"})
"""Left out at the top of a folder: Model Signing v1.0 never signs these (§6.2)."""
_RESERVED = frozenset({manifest.FILE_NAME, _SIGNATURE_FILE_NAME})


@dataclass(frozen=True, slots=True)
class Source:
    """A model's files by their names in the package; `model` is the name of the main one, `format` its kind."""

    model: str
    format: str
    files: dict[str, Path]

    @property
    def main(self) -> Path:
        """Where the main file lies now."""
        return self.files[self.model]


def find(path: Path, main: str | None = None) -> Source:
    """Return what to package of an `.onnx` file, or of a folder that has one.

    `main` names the main file of a folder with several `.onnx` files. Links to files are followed: a package has
    none. Raises `SourceUnusable`.
    """
    model, files = _found(path, main)
    if not model.endswith(".onnx"):
        raise SourceUnusable(f"{model} does not end in .onnx, the one format that can be packaged", file=model)
    for location in onnxfile.external_data(files[model]):
        name = _beside(model, location)
        files.setdefault(name, files[model].parent / location)
        if not files[name].is_file():
            raise SourceUnusable(f"{model} needs the file {location}, which is not there", file=model, needs=location)
    for name in files:
        fault = member.fault(name) or (name in _RESERVED and "is a name that a package keeps for itself")
        if fault:
            raise SourceUnusable(f"{member.shown(name)!r} {fault}", file=member.shown(name))
    return Source(model, ONNX, files)


def _found(path: Path, main: str | None) -> tuple[str, dict[str, Path]]:
    """Return the name of the main file at a path, and the files there by name."""
    try:
        is_folder, is_file = paths.is_folder(path), paths.is_file(path)
    except OSError as error:
        raise SourceUnusable(f"{path} cannot be reached: {error.strerror}", path=path) from error
    if is_folder:
        files = _folder(path)
        model = main or _only_model(path, files)
        if model not in files:
            raise SourceUnusable(f"{path} has no file {model}", folder=path, file=model)
        return model, files
    if not is_file:
        raise SourceUnusable(f"{path} is neither a file nor a folder", path=path)
    if main is not None:
        raise SourceUnusable(f"{path} is a file; its main file is itself", file=path)
    return path.name, {path.name: path}


def _folder(folder: Path) -> dict[str, Path]:
    def refuse(error: OSError) -> None:
        raise SourceUnusable(f"{error.filename} cannot be listed: {error.strerror}", folder=folder)

    found = []
    for place, folders, names in os.walk(folder, onerror=refuse):
        passed_over = _VERSION_CONTROL if Path(place) == folder else ()
        folders[:] = [name for name in folders if name not in passed_over]
        for path in (Path(place, name) for name in sorted(folders)):
            if path.is_symlink():
                name = path.relative_to(folder).as_posix()
                raise SourceUnusable(f"{name} is a link to a folder; copy the folder itself", file=name)
        found += [Path(place, name) for name in names if name not in passed_over]
    files = {path.relative_to(folder).as_posix(): path for path in sorted(found)}
    for name, path in files.items():
        if not path.is_file():
            raise SourceUnusable(f"{name} is no plain file, or a link that leads nowhere", file=name)
    return files


def _only_model(folder: Path, files: dict[str, Path]) -> str:
    models = [name for name in files if name.endswith(".onnx")]
    at_top = [name for name in models if "/" not in name]
    candidates = at_top or models
    if len(candidates) != 1:
        found = ", ".join(candidates) or "none"
        raise SourceUnusable(
            f"{folder} must have one .onnx file, or --main must say which: found {found}", folder=folder, found=found
        )
    return candidates[0]


def _beside(model: str, location: str) -> str:
    """Return the package's name of a file that a model refers to relative to itself."""
    if location.startswith("/") or ".." in PurePosixPath(location).parts:
        raise SourceUnusable(f"{model} refers to {location!r}, outside its own folder", file=model, needs=location)
    return (PurePosixPath(model).parent / location).as_posix()
