"""Compiling a model: from what was uploaded to an archive of a checked, fixed and optimised ONNX model.

Steps, each in the worker's folder:

1. Unpack the upload safely, or take it as the `.onnx` file that it is.
2. Check the model, and fix the input shapes that the job declares.
3. Run it on sample inputs. Optimise it; keep the result only if that gives the same on the same inputs.
4. Write the archive: the model, whatever lay beside it, and `compilation.json`, which says what was done.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lightkeeper import __version__
from lightkeeper.errors import GoldenMismatch, InputRejected, ModelRunFailed, ModelUnreadable, SourceUnusable
from lightkeeper.modelpackage import archive, build, golden, member, onnxfile, source
from lightkeeper.modelpackage.limits import Limits
from lightkeeper.modelpackage.source import Source
from lightkeeper.modelpackage.staging import Copy
from lightkeeper.runtimes import onnxprepare
from lightkeeper.runtimes.base import Array, RuntimeOptions, Session
from lightkeeper.runtimes.discovery import Runtimes
from lightkeeper.tensor import DYNAMIC

DOCUMENT_NAME = "compilation.json"
FORMAT_VERSION = 1
RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE = 1e-3, 1e-5
OPEN_SIZES = (1, 32, 224)
"""What is tried for dimensions that a model leaves open, until it runs: many models for images need some room."""

GROWTH = 1.5
"""A model that folding makes larger than this many times is not better."""
GROWTH_GRACE_BYTES = 1024 * 1024

_GZIP_MAGIC = b"\x1f\x8b"
_SEED = 20240426


@dataclass(frozen=True, slots=True)
class Upload:
    """What was fetched, and the last part of the key it had."""

    path: Path
    file_name: str


@dataclass(frozen=True, slots=True)
class Prepared:
    """The archive that was written, the shapes of the model's inputs, and what became of the optimisation."""

    archive: Path
    inputs: dict[str, tuple[int, ...]]
    optimisation: str


def prepare(
    upload: Upload, shapes: Mapping[str, Sequence[int]], folder: Path, limits: Limits, about: Mapping[str, object]
) -> Prepared:
    """Compile a model in a folder; `shapes` has the input shapes to fix, `about` goes into `compilation.json`.

    Raises a `PackageRefused`, `SigningError`, `ModelShapesMismatch` or what opening a model raises.
    """
    found = unpack(upload, folder / "model", limits)
    onnxprepare.check(found.main)
    if shapes:
        fixed = found.main.with_name(f".fixed-{found.main.name}")
        onnxprepare.fix_shapes(found.main, shapes, fixed)
        found = replace(found, files={**found.files, found.model: fixed})
    optimised, optimisation = _optimised(found, folder / "optimised")
    inputs = onnxprepare.input_shapes(optimised.main)
    document = {
        "format_version": FORMAT_VERSION,
        **about,
        "model": optimised.model,
        "inputs": inputs,
        "optimisation": optimisation,
        "compiler": f"lightkeeper {__version__}",
    }
    members: dict[str, Path | bytes] = {**optimised.files, DOCUMENT_NAME: json.dumps(document, indent=1).encode()}

    def fill(into: tarfile.TarFile) -> None:
        for name in (DOCUMENT_NAME, *sorted(members.keys() - {DOCUMENT_NAME})):
            build.add_file(into, name, members[name])

    written = folder / "artifact.tar.gz"
    build.pack(written, fill)
    return Prepared(written, inputs, optimisation)


def unpack(upload: Upload, folder: Path, limits: Limits) -> Source:
    """Bring a model's files into a new folder, from an archive or as the one file; return them.

    Raises `SourceUnusable`, `ArchiveTooLarge`, `DiskShort` or a `PackageRefused`.
    """
    folder.mkdir(mode=0o700)
    with upload.path.open("rb") as file:
        packed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    if packed:
        archive.stage(upload.path, Copy(folder, limits, lambda _: None), limits)
        return source.find(folder)
    if not upload.file_name.endswith(".onnx"):
        raise SourceUnusable(
            f"{member.shown(upload.file_name)} is neither a .tar.gz archive nor an .onnx file", file=upload.file_name
        )
    path = folder / (upload.file_name if member.fault(upload.file_name) is None else "model.onnx")
    upload.path.rename(path)
    return source.find(path)


def _optimised(found: Source, folder: Path) -> tuple[Source, str]:
    """Return the optimised model's files, or those given where there is no gain or no proof, and say which."""
    folder.mkdir(mode=0o700)
    try:
        return _proven_better(found, folder), "constants folded, needless operators left out; the same on sample inputs"
    except _NotBetterError as error:
        return found, f"none: {error}"


class _NotBetterError(Exception):
    """Why an optimised model is not used."""


def _proven_better(found: Source, folder: Path) -> Source:
    runtime = Runtimes(RuntimeOptions(threads=1)).for_format(found.format)
    try:
        with closing(runtime.open(found.main)) as session:
            samples, before = _sampled(session)
    except (InputRejected, ModelRunFailed) as error:
        raise _NotBetterError(f"the model does not run on sample inputs to compare with: {error.message}") from error
    better = folder / Path(found.model).name
    why_not = onnxprepare.optimise(found.main, better)
    if why_not:
        raise _NotBetterError(why_not)
    replaced = [found.model, *(_beside(found.model, each) for each in onnxfile.external_data(found.main))]
    old_bytes = sum(found.files[name].stat().st_size for name in replaced)
    new_bytes = sum(each.stat().st_size for each in folder.iterdir())
    if new_bytes > GROWTH * old_bytes + GROWTH_GRACE_BYTES:
        raise _NotBetterError(f"it would make {new_bytes} bytes of {old_bytes}")
    try:
        with closing(runtime.open(better)) as session:
            after = _outputs(session, samples)
        golden.compare(golden.GoldenArrays({}, before, RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE), after)
    except (ModelUnreadable, InputRejected, ModelRunFailed, GoldenMismatch) as error:
        raise _NotBetterError(f"the optimised model does not do the same: {error.message}") from error
    kept = {name: path for name, path in found.files.items() if name not in replaced}
    made = {_beside(found.model, path.name): path for path in folder.iterdir()}
    clash = kept.keys() & made.keys()
    if clash:
        raise _NotBetterError(f"its file {min(clash)} is there already")
    return replace(found, files=kept | made)


def _sampled(session: Session) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return inputs that the model takes, and what it gives for them, by name; raise what the last ones ended with."""
    *others, last = OPEN_SIZES
    for size in others:
        with suppress(InputRejected, ModelRunFailed):
            samples = _samples(session, size)
            return samples, _outputs(session, samples)
    samples = _samples(session, last)
    return samples, _outputs(session, samples)


def _outputs(session: Session, inputs: Mapping[str, Array]) -> dict[str, Array]:
    names = [tensor.name for tensor in session.outputs]
    return dict(zip(names, session.run(inputs), strict=True))


def _samples(session: Session, open_size: int) -> dict[str, Array]:
    """Return inputs, always the same: noise for real numbers, zeros for whole ones, which may be indices."""
    random = np.random.default_rng(_SEED)
    samples: dict[str, Array] = {}
    for tensor in session.inputs:
        # The first dimension is the batch in most models, so one is enough; the others may have to be of some size.
        open_sizes = [1, *[open_size] * len(tensor.shape)]
        shape = [free if size == DYNAMIC else size for size, free in zip(tensor.shape, open_sizes, strict=False)]
        kind = tensor.data_type.dtype
        samples[tensor.name] = random.standard_normal(shape).astype(kind) if kind.kind == "f" else np.zeros(shape, kind)
    return samples


def _beside(model: str, location: str) -> str:
    return (Path(model).parent / location).as_posix()
