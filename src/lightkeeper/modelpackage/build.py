"""Building packages: files, manifest and signature into one `.tar.gz`, written whole or not at all.

The same input gives the same bytes: members are sorted and carry no times, owners or modes of their own, and the
signature is deterministic where the cryptographic library offers that (OpenSSL 3.2 and later; `cryptography`'s wheels
have it). The compressor's own version can still differ between machines.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from lightkeeper.errors import OutputExists, OutputUnwritable, SourceUnusable
from lightkeeper.modelpackage import manifest, signature
from lightkeeper.modelpackage.golden import GoldenArrays
from lightkeeper.modelpackage.limits import Limits
from lightkeeper.modelpackage.manifest import Golden, GoldenTensor, Manifest
from lightkeeper.modelpackage.member import Names
from lightkeeper.modelpackage.signature import Signer
from lightkeeper.modelpackage.source import Source
from lightkeeper.modelpackage.staging import check_name, too_large
from lightkeeper.system import set_mode

ENDING = ".tar.gz"
CHUNK_BYTES = 1024 * 1024
COMPRESSION_LEVEL, NO_COMPRESSION = 6, 0
LIMITS = Limits()
"""Those of a device as it comes."""
_GOLDEN_FOLDER = "golden"
_MODE = 0o644


def output_path(folder: Path, name: str, version: str) -> Path:
    """Return where the package of a model goes; raise `OutputExists` where something lies there."""
    path = folder / f"{name}-{version}{ENDING}"
    _refuse_to_replace(path)
    return path


@dataclass(frozen=True, slots=True)
class Draft:
    """What a package is made of. The manifest's golden part is made from `golden`."""

    source: Source
    manifest: Manifest
    golden: GoldenArrays | None = None


def build(draft: Draft, signer: Signer, folder: Path, advance: Callable[[int], None] = lambda _: None) -> Path:
    """Write the signed package of a draft into a folder, and return its path.

    `advance` is told of the bytes read of the model's files, each of which is read twice or more: hashed, then packed.
    Raises `OutputExists`, `OutputUnwritable`, `SourceUnusable`, or what a device would refuse a name with.
    """
    said, files = draft.manifest, draft.source.files
    path = output_path(folder, said.name, said.version)
    kept: dict[str, bytes] = {}
    if draft.golden is not None:
        said = replace(said, golden=_keep(draft.golden, kept))
    kept[manifest.FILE_NAME] = said.to_json()
    _check_names((*files, *kept))
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in kept.items()}
    digests |= {name: _sha256(file, advance) for name, file in files.items()}
    kept[signature.FILE_NAME] = signer.bundle(f"{said.name}-{said.version}", digests)
    # The two files that say what this is come first, so that a reader of the stream has them early.
    first = (manifest.FILE_NAME, signature.FILE_NAME)

    def fill(archive: tarfile.TarFile) -> None:
        for name in (*first, *sorted((kept.keys() | files.keys()) - {*first})):
            if name in kept:
                _add(archive, name, io.BytesIO(kept[name]), len(kept[name]))
            else:
                _add_signed(archive, name, files[name], digests[name], advance)

    pack(path, fill)
    return path


def pack(path: Path, fill: Callable[[tarfile.TarFile], None]) -> None:
    """Write a `.tar.gz` that `fill` fills, the same bytes for the same members, whole or not at all.

    `fill` may be called twice. Raises `OutputExists`, `OutputUnwritable`, and what `fill` raises.
    """
    for level in (COMPRESSION_LEVEL, NO_COMPRESSION):
        with suppress(_TooDense), _written_whole(path) as file:
            with (
                gzip.GzipFile("", "wb", level, file, mtime=0) as zipped,
                tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive,
            ):
                fill(archive)
                unpacked_bytes = archive.offset + 2 * tarfile.RECORDSIZE  # the end and its padding
            if level and unpacked_bytes > max(LIMITS.ratio * file.tell(), LIMITS.ratio_grace_bytes):
                raise _TooDense  # a device would take it for an archive bomb
            return


def add_file(archive: tarfile.TarFile, name: str, source: Path | bytes) -> None:
    """Add a member without time, owner or mode of its own. Raises `SourceUnusable`."""
    if isinstance(source, bytes):
        _add(archive, name, io.BytesIO(source), len(source))
        return
    with _open(source) as file:
        _add(archive, name, _Hashing(file, source, lambda _: None), os.fstat(file.fileno()).st_size)


class _TooDense(Exception):  # noqa: N818  # a signal, not an error
    """The compression is so good that a device would not believe it."""


def _check_names(names: Iterable[str]) -> None:
    """Refuse what every device would refuse."""
    claimed = Names()
    for count, name in enumerate(names, 1):
        check_name(name, LIMITS)
        clash = claimed.claim(name)
        if clash is not None:
            raise SourceUnusable(f"{name!r} {clash}", file=name)
        if count >= LIMITS.members:  # the signature is a member too
            raise too_large("members", LIMITS.members, count + 1)


def _keep(golden: GoldenArrays, kept: dict[str, bytes]) -> Golden:
    """Add the golden arrays' files to what is kept, and return the manifest's word on them."""

    def keep(kind: str, arrays: Mapping[str, npt.NDArray[Any]]) -> tuple[GoldenTensor, ...]:
        tensors = []
        for index, (name, array) in enumerate(arrays.items()):
            buffer = io.BytesIO()
            np.save(buffer, array, allow_pickle=False)
            tensors.append(GoldenTensor(name, f"{_GOLDEN_FOLDER}/{kind}-{index}.npy"))
            kept[tensors[-1].file] = buffer.getvalue()
        return tuple(tensors)

    return Golden(
        keep("input", golden.inputs),
        keep("output", golden.outputs),
        golden.relative_tolerance,
        golden.absolute_tolerance,
    )


def _sha256(path: Path, advance: Callable[[int], None]) -> str:
    with _open(path) as file:
        reader = _Hashing(file, path, advance)
        while left := os.fstat(file.fileno()).st_size - reader.done_bytes:
            reader.read(min(left, CHUNK_BYTES))
    return reader.sha256.hexdigest()


def _add(archive: tarfile.TarFile, name: str, file: io.BytesIO | _Hashing, size_bytes: int) -> None:
    info = tarfile.TarInfo(name)
    info.size = size_bytes
    info.mode = _MODE
    archive.addfile(info, file)  # type: ignore[arg-type]  # addfile only ever reads


def _add_signed(archive: tarfile.TarFile, name: str, path: Path, expected: str, advance: Callable[[int], None]) -> None:
    """Add a file, and make sure that it still is the one that was signed a moment ago."""
    with _open(path) as file:
        reader = _Hashing(file, path, advance)
        _add(archive, name, reader, os.fstat(file.fileno()).st_size)
    if reader.sha256.hexdigest() != expected:
        raise _changed(path)


class _Hashing:
    """A file that hashes what is read of it, and gives exactly what it is asked for."""

    def __init__(self, file: BinaryIO, path: Path, advance: Callable[[int], None]) -> None:
        self.sha256 = hashlib.sha256()
        self.done_bytes = 0
        self._file = file
        self._path = path
        self._advance = advance

    def read(self, size_bytes: int) -> bytes:
        try:
            data = self._file.read(size_bytes)
        except OSError as error:
            raise SourceUnusable(f"{self._path} cannot be read: {error.strerror}", file=self._path) from error
        if len(data) != size_bytes:
            raise _changed(self._path)
        self.sha256.update(data)
        self.done_bytes += size_bytes
        self._advance(size_bytes)
        return data


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise SourceUnusable(f"{path} cannot be read: {error.strerror}", file=path) from error


def _changed(path: Path) -> SourceUnusable:
    return SourceUnusable(f"{path} changed while it was packaged", file=path)


@contextmanager
def _written_whole(path: Path) -> Iterator[BinaryIO]:
    """Write a file aside and give it its name at the end; nothing is left where the block raises."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise OutputUnwritable(f"{path.parent} cannot be written: {error.strerror}", folder=path.parent) from error
    beside = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            set_mode(file.fileno(), beside, _MODE)
            os.fsync(file.fileno())
        _refuse_to_replace(path)
        beside.replace(path)
    except OSError as error:
        raise OutputUnwritable(f"{path} cannot be written: {error.strerror}", file=path) from error
    finally:
        beside.unlink(missing_ok=True)


def _refuse_to_replace(path: Path) -> None:
    if os.path.lexists(path):
        raise OutputExists(f"{path} is there already", file=path)
