"""Where batches lie: a folder, or a bucket. Batches have names, relative to the place, in the order of their paths.

A payload with a file of its own is looked for in two places, and nowhere else: where its address says, if that is
under the place, and beside the batch, in the folder of the batch's name. So captures that were copied elsewhere can be
read, and no line of a batch makes a reader open anything outside the place it was given.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import unquote

from lightkeeper import paths
from lightkeeper.errors import CapturesMissing, CapturesUnreadable, PayloadUnreadable
from lightkeeper.system import FILE_FLAGS, NO_WAITING, path_of_url

BATCH_SUFFIX = ".jsonl"
FILE_SCHEME = "file://"
BUCKET_SCHEME = "s3://"


class Place(Protocol):
    """Somewhere that has batches."""

    @property
    def address(self) -> str:
        """The place, for people."""

    def batches(self) -> list[str]:
        """Return the name of every batch. Raises `CapturesMissing` where there is none, or `CapturesUnreadable`."""

    def open(self, batch: str) -> BinaryIO:
        """Return a batch's content. Raises `CapturesUnreadable`."""

    def payload(self, batch: str, reference: str) -> bytes:
        """Return the content of a payload that a line of a batch refers to. Raises `PayloadUnreadable`."""


class Objects(Protocol):
    """What a bucket must do; `lightkeeper.providers` has one that talks to S3. Keys are whole."""

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield every key with a prefix. Raises an `AgentError`."""

    def read(self, key: str) -> bytes | None:
        """Return an object's content, or None where there is no such object. Raises an `AgentError`."""


class Folder:
    """A folder of batches, at any depth, or a single batch's file. Folders with a name like `.this` are passed over."""

    def __init__(self, path: Path) -> None:
        try:
            if not paths.exists(path):
                raise CapturesMissing(f"{path} does not exist", path=path)
            is_batch = path.suffix == BATCH_SUFFIX and paths.is_file(path)
        except OSError as error:
            raise CapturesUnreadable(f"{path} cannot be reached: {error.strerror}", path=path) from error
        self._root = path.parent if is_batch else path
        self._path = path

    @property
    def address(self) -> str:
        """See `Place.address`."""
        return str(self._path)

    def batches(self) -> list[str]:
        """See `Place.batches`."""
        if self._root != self._path:
            return [self._path.name]

        def refuse(error: OSError) -> None:
            raise CapturesUnreadable(f"{error.filename} cannot be listed: {error.strerror}", path=error.filename)

        found = []
        for folder, folders, files in os.walk(self._path, onerror=refuse):
            folders[:] = [name for name in folders if not name.startswith(".")]
            place = Path(folder).relative_to(self._path)
            found += [(place / name).as_posix() for name in files if name.endswith(BATCH_SUFFIX)]
        if not found:
            raise CapturesMissing(f"no batch (*{BATCH_SUFFIX}) lies under {self._path}", path=self._path)
        return sorted(found)

    def open(self, batch: str) -> BinaryIO:
        """See `Place.open`."""
        try:
            return _opened(self._root / batch)
        except OSError as error:
            raise CapturesUnreadable(f"{batch} cannot be read: {error.strerror}", file=batch) from error

    def payload(self, batch: str, reference: str) -> bytes:
        """See `Place.payload`."""
        path = reference.removeprefix(FILE_SCHEME)
        named = (path_of_url(unquote(path)), path_of_url(path)) if path != reference else ()
        candidates = [each for each in named if each is not None]
        beside = self._root / batch.removesuffix(BATCH_SUFFIX)
        candidates += [str(beside / name) for name in dict.fromkeys((_last_part(unquote(path)), _last_part(path)))]
        with suppress(OSError, ValueError):  # a loop of links, a NUL in a name
            root = self._root.resolve()
            for candidate in candidates:
                real = Path(candidate).resolve()
                if real.is_relative_to(root) and real.is_file():
                    with _opened(real) as file:
                        return file.read()
        raise _unreadable(batch, reference, self.address)


class Bucket:
    """The objects of a bucket whose keys have a prefix."""

    def __init__(self, name: str, prefix: str, objects: Objects) -> None:
        self.name = name
        self._prefix = f"{prefix}/" if prefix and not prefix.endswith(("/", BATCH_SUFFIX)) else prefix
        self._objects = objects

    @property
    def address(self) -> str:
        """See `Place.address`."""
        return f"{BUCKET_SCHEME}{self.name}/{self._prefix}"

    def batches(self) -> list[str]:
        """See `Place.batches`; names are keys."""
        found = sorted(key for key in self._objects.keys(self._prefix) if key.endswith(BATCH_SUFFIX))
        if not found:
            raise CapturesMissing(f"no batch (*{BATCH_SUFFIX}) lies under {self.address}", path=self.address)
        return found

    def open(self, batch: str) -> BinaryIO:
        """See `Place.open`."""
        content = self._objects.read(batch)
        if content is None:
            raise CapturesUnreadable(f"{batch} is not there any more", file=batch)
        return io.BytesIO(content)

    def payload(self, batch: str, reference: str) -> bytes:
        """See `Place.payload`."""
        own = f"{BUCKET_SCHEME}{self.name}/"
        candidates = [reference.removeprefix(own)] if reference.startswith(own + self._prefix) else []
        path = unquote(reference) if reference.startswith(FILE_SCHEME) else reference
        candidates.append(f"{batch.removesuffix(BATCH_SUFFIX)}/{_last_part(path)}")
        for key in dict.fromkeys(candidates):
            content = None if _wanders(key) else self._objects.read(key)
            if content is not None:
                return content
        raise _unreadable(batch, reference, self.address)


def _last_part(path: str) -> str:
    return path.rpartition("/")[2]


def _wanders(key: str) -> bool:
    """Whether a key would be a path that leads elsewhere, or to a folder; stores differ in what they make of those."""
    return key.endswith("/") or not {".", ".."}.isdisjoint(key.split("/"))


def _opened(path: Path) -> BinaryIO:
    """Open a regular file for reading; a pipe that nobody writes to would wait for ever."""
    descriptor = os.open(path, os.O_RDONLY | NO_WAITING | FILE_FLAGS)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(None, "it is not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def _unreadable(batch: str, reference: str, address: str) -> PayloadUnreadable:
    return PayloadUnreadable(
        f"{reference} lies neither under {address} nor beside its batch", file=batch, reference=reference
    )
