"""The file operations that the spool and the disk sink rest on: each whole or not at all, and durable when it returns.

`Files` is a protocol so that tests can put a full, failing or forgetful disk in its place.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from lightkeeper.errors import SpoolBroken, SpoolDiskFull
from lightkeeper.system import FILE_FLAGS, sync_content, sync_folder

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700
SHARED_FILE = 0o644
SHARED_FOLDER = 0o755


class Files(Protocol):
    """File operations. Each raises `OSError` where the system refuses."""

    def write(self, path: Path, data: Iterable[bytes | memoryview], *, mode: int = PRIVATE_FILE) -> None:
        """Write a new file and sync its content; its name is durable after `sync_folder`."""

    def make_folder(self, path: Path, *, mode: int = PRIVATE_FOLDER) -> None:
        """Make a folder, and those it lies in, where they are missing; the names of new ones are durable."""

    def rename(self, source: Path, target: Path) -> None:
        """Give a file another name in the same file system, replacing what had it."""

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name."""

    def sync_folder(self, folder: Path) -> None:
        """Make the names in a folder durable."""

    def remove(self, path: Path) -> None:
        """Remove a file; one that is not there is removed already."""

    def free_bytes(self, folder: Path) -> int:
        """Return how many bytes an unprivileged process may still write."""


class RealFiles:
    """The operating system's files. With `synced` false nothing is synced, for captures that may be lost."""

    def __init__(self, *, synced: bool = True) -> None:
        self._synced = synced

    def write(self, path: Path, data: Iterable[bytes | memoryview], *, mode: int = PRIVATE_FILE) -> None:
        """See `Files.write`."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | FILE_FLAGS, mode)
        try:
            for chunk in data:
                view = memoryview(chunk).cast("B")
                while view:
                    view = view[os.write(descriptor, view) :]
            if self._synced:
                sync_content(descriptor)
        finally:
            os.close(descriptor)

    def make_folder(self, path: Path, *, mode: int = PRIVATE_FOLDER) -> None:
        """See `Files.make_folder`."""
        if path.is_dir():
            return
        self.make_folder(path.parent, mode=mode)
        path.mkdir(mode, exist_ok=True)
        self.sync_folder(path.parent)

    def rename(self, source: Path, target: Path) -> None:
        """See `Files.rename`."""
        source.replace(target)

    def link(self, source: Path, target: Path) -> None:
        """See `Files.link`."""
        os.link(source, target)

    def sync_folder(self, folder: Path) -> None:
        """See `Files.sync_folder`."""
        if self._synced:
            sync_folder(folder)

    def remove(self, path: Path) -> None:
        """See `Files.remove`."""
        path.unlink(missing_ok=True)

    def free_bytes(self, folder: Path) -> int:
        """See `Files.free_bytes`."""
        return shutil.disk_usage(folder).free


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn the system's refusals, about a path, into the spool's: `SpoolDiskFull` or `SpoolBroken`."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise SpoolDiskFull(f"the disk of {path} is full", file=path) from error
        raise SpoolBroken(
            f"{path} cannot be used: {error.strerror}", file=path, cause=errno.errorcode.get(error.errno or 0, "")
        ) from error
