"""Private copies of packages: what is verified is what is loaded.

A package is first copied (a folder) or unpacked (an archive) into a fresh folder that only the agent's user can open,
and every file is hashed while it is written. Signature, manifest and model are then read from that copy alone, so
nobody can change a file between its verification and its use. The copy is removed when the model is open.

Invariants
1. A staging folder has mode 0700, lies directly in the staging root, and is locked (`lock_folder`) by the process that
   uses it for as long as it is used.
2. A staging folder that nobody locks was left by a process that died, and may be removed by any other. The root's own
   lock is held while a folder is made and locked, and while leftovers are looked for, so that none is between the two.
3. Nothing is written beyond the limits; at least `free_bytes_kept` of the disk stay free.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lightkeeper.errors import (
    AgentError,
    ArchivePathEscape,
    ArchiveTooLarge,
    DiskShort,
    PackageMemberForbidden,
    PackageUnreadable,
    StateUnusable,
)
from lightkeeper.modelpackage import member
from lightkeeper.modelpackage.limits import Limits
from lightkeeper.system import lock_folder, wait_for_folder

CHUNK_BYTES = 1024 * 1024
_PREFIX = "package-"
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

logger = logging.getLogger(__name__)


class Readable(Protocol):
    """Where a file's bytes come from."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; none at the end."""


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A file of the copy: its size and the SHA-256 of its content, in hexadecimal."""

    size_bytes: int
    sha256: str


class Staging:
    """The staging root. Removes what dead processes left there when it is made."""

    def __init__(self, root: Path, limits: Limits) -> None:
        """Make the root where it is missing; raise `StateUnusable` where that cannot be."""
        self._root = root
        self._limits = limits
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._locked_root():
                self._remove_leftovers()
        except OSError as error:
            raise self._unusable(error) from error

    @contextmanager
    def copy(self, advance: Callable[[int], None]) -> Iterator[Copy]:
        """Give a new, empty copy; it is gone when the block ends. `advance` is told of bytes as they are written."""
        try:
            with self._locked_root():
                folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._root))
                lock = lock_folder(folder)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            yield Copy(folder, self._limits, advance)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if lock is not None:
                lock.release()

    def _unusable(self, error: OSError) -> AgentError:
        if error.errno in _DISK_FULL:
            return DiskShort(f"there is no room for a folder in {self._root}", folder=self._root)
        return StateUnusable(f"the staging folder {self._root} cannot be used: {error}", folder=self._root)

    def _remove_leftovers(self) -> None:
        for folder in self._root.glob(f"{_PREFIX}*"):
            lock = lock_folder(folder)
            if lock is None:
                continue
            try:
                shutil.rmtree(folder)
                logger.info("leftover_staging_removed", extra={"folder": str(folder)})
            except OSError as error:
                logger.warning("leftover_staging_kept", extra={"folder": str(folder), "error": str(error)})
            finally:
                lock.release()

    @contextmanager
    def _locked_root(self) -> Iterator[None]:
        lock = wait_for_folder(self._root)
        try:
            yield
        finally:
            lock.release()


class Copy:
    """One private copy of a package while it is being written; `files` has what is there so far."""

    def __init__(self, folder: Path, limits: Limits, advance: Callable[[int], None]) -> None:
        self.folder = folder
        self.files: dict[str, StagedFile] = {}
        self._names = member.Names()
        self._limits = limits
        self._advance = advance
        self._bytes = 0

    @classmethod
    def of(cls, folder: Path, limits: Limits) -> Copy:
        """Return a private folder that is there already as a copy: every file in it is hashed where it lies.

        Raises `ArchivePathEscape`, `PackageMemberForbidden`, `ArchiveTooLarge` and `PackageUnreadable`.
        """
        copy = cls(folder, limits, lambda _: None)
        try:
            for path in sorted(folder.rglob("*")):
                if path.is_symlink() or not (path.is_dir() or path.is_file()):
                    raise PackageMemberForbidden(f"{path.name!r} is no plain file or folder", file=path.name)
                if path.is_file():
                    copy._adopt(path.relative_to(folder).as_posix(), path)
        except OSError as error:
            raise PackageUnreadable(f"{folder} cannot be read: {error.strerror}", folder=folder) from error
        return copy

    def _adopt(self, name: str, path: Path) -> None:
        check_name(name, self._limits)
        if len(self.files) >= self._limits.members:
            raise too_large("members", self._limits.members, len(self.files) + 1)
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            self.files[name] = StagedFile(file.tell(), sha256)

    def expect(self, size_bytes: int) -> None:
        """Refuse before anything of this size is written: it would pass the limit, or fill the disk."""
        limit = self._limits.unpacked_bytes
        if self._bytes + size_bytes > limit:
            raise too_large("unpacked_bytes", limit, self._bytes + size_bytes)
        free = shutil.disk_usage(self.folder).free - self._limits.free_bytes_kept
        if size_bytes > free:
            raise DiskShort(
                f"the package needs {size_bytes} bytes, {max(free, 0)} are free beside the reserve",
                needed_bytes=size_bytes,
                free_bytes=max(free, 0),
                reserve_bytes=self._limits.free_bytes_kept,
            )

    def write(self, name: str, source: Readable, size_bytes: int) -> None:
        """Write one file of this size, hashing it on the way.

        Raises `ArchivePathEscape`, `PackageMemberForbidden`, `ArchiveTooLarge`, `DiskShort`, and `PackageUnreadable`
        where the source ends early or goes on.
        """
        check_name(name, self._limits)
        clash = self._names.claim(name)
        if clash is not None:
            raise PackageMemberForbidden(f"{name!r} {clash}", file=name)
        if len(self.files) >= self._limits.members:
            raise too_large("members", self._limits.members, len(self.files) + 1)
        self.expect(size_bytes)
        path = self.folder / name
        sha256 = hashlib.sha256()
        with _disk_errors(name):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            target = path.open("xb", buffering=0)
        with target:
            left = size_bytes
            while left:
                chunk = source.read(min(left, CHUNK_BYTES))
                if not chunk:
                    raise PackageUnreadable(f"{name!r} ends {left} bytes early", file=name)
                sha256.update(chunk)
                with _disk_errors(name):
                    _write_all(target.fileno(), chunk)
                left -= len(chunk)
                self._bytes += len(chunk)
                self._advance(len(chunk))
            if source.read(1):
                raise PackageUnreadable(f"{name!r} grew while it was read", file=name)
        self.files[name] = StagedFile(size_bytes, sha256.hexdigest())

    def enter(self, folder: str) -> None:
        """Make a folder of the copy its root: names are relative to it from now on. Every file must lie in it."""
        self.files = {name.removeprefix(f"{folder}/"): file for name, file in self.files.items()}
        self.folder /= folder

    def sha256(self, name: str, start: int, end: int) -> str:
        """Return the SHA-256 of a range of a file that is there, in hexadecimal."""
        file = self.files[name]
        if (start, end) == (0, file.size_bytes):
            return file.sha256
        sha256 = hashlib.sha256()
        with (self.folder / name).open("rb") as source:
            source.seek(start)
            while start < end and (chunk := source.read(min(end - start, CHUNK_BYTES))):
                sha256.update(chunk)
                start += len(chunk)
        return sha256.hexdigest()

    def read(self, name: str, *, limit_name: str) -> bytes:
        """Return a whole small file that is there; `limit_name` is the field of `Limits` that bounds it."""
        limit = getattr(self._limits, limit_name)
        size = self.files[name].size_bytes
        if size > limit:
            raise too_large(limit_name, limit, size, file=name)
        return (self.folder / name).read_bytes()


def check_name(name: str, limits: Limits) -> None:
    """Raise unless a file's name is safe, short and shallow enough."""
    if len(name.encode(errors="surrogatepass")) > limits.name_bytes:
        raise too_large("name_bytes", limits.name_bytes, len(name), file=member.shown(name[:80]))
    fault = member.fault(name)
    if fault == member.ESCAPES:
        raise ArchivePathEscape(f"{name!r} {fault}", file=member.shown(name))
    if fault is not None:
        raise PackageMemberForbidden(f"{name!r} {fault}", file=member.shown(name))
    depth = name.count("/") + 1
    if depth > limits.depth:
        raise too_large("depth", limits.depth, depth, file=name)


def too_large(limit_name: str, limit: int, given: int, **facts: object) -> ArchiveTooLarge:
    """Return the error for a limit that is passed, naming it."""
    return ArchiveTooLarge(
        f"the package passes the limit {limit_name} of {limit}", limit=limit_name, expected=limit, given=given, **facts
    )


def _write_all(descriptor: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(descriptor, view) :]


@contextmanager
def _disk_errors(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise DiskShort(f"the disk is full at {name!r}", file=name) from error
        raise PackageUnreadable(f"{name!r} cannot be written: {error.strerror}", file=name) from error
