"""Packages as they come: an archive is unpacked, a folder is copied, into a private copy (`staging`).

Whoever sent the archive is not known yet, so each member is looked at before a byte of it is written, and nothing may
cost more than the limits: not the bytes, not the number of members, not the headers, and not the ratio of unpacked
to packed bytes. `docs/spec/model-package.md`, clause 5, has the rules.
"""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from lightkeeper.errors import PackageMemberForbidden, PackageNotFound, PackageUnreadable
from lightkeeper.modelpackage.limits import Limits
from lightkeeper.modelpackage.member import shown
from lightkeeper.modelpackage.staging import Copy, check_name, too_large
from lightkeeper.system import Folder, opened

_GZIP_MAGIC = b"\x1f\x8b"
_LINKS = {tarfile.SYMTYPE: "symbolic link", tarfile.LNKTYPE: "hard link"}


def stage(path: Path, copy: Copy, limits: Limits) -> None:
    """Bring the package at a path, a folder or an archive, into a copy.

    Raises `PackageNotFound`, `PackageUnreadable`, `ArchiveTooLarge`, `ArchivePathEscape`, `PackageMemberForbidden` or
    `DiskShort`.
    """
    with ExitStack() as stack:
        try:
            place = stack.enter_context(opened(path))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise PackageNotFound(f"nothing lies at {path}", path=path) from error
        except (OSError, ValueError) as error:
            raise PackageUnreadable(f"{path} cannot be opened: {error}", path=path) from error
        try:
            if isinstance(place, Folder):
                _copy_folder(place, copy, limits)
            elif stat.S_ISREG(os.fstat(place.fileno()).st_mode):
                _unpack(place, path, copy, limits)
            else:
                raise PackageUnreadable(f"{path} is neither a folder nor a file", path=path)
        except OSError as error:
            raise PackageUnreadable(f"{path} cannot be read: {error}", path=path) from error


def _copy_folder(folder: Folder, copy: Copy, limits: Limits) -> None:
    """Copy every file below an open folder. Links are never followed, not even when they are swapped in meanwhile."""
    listed = sorted(_walk(folder, "", limits.depth))
    if len(listed) > limits.members:
        raise too_large("members", limits.members, len(listed))
    copy.expect(sum(size for _, size in listed))
    for name, _ in listed:
        with ExitStack() as stack:
            *parents, file = name.split("/")
            below = folder
            for parent in parents:
                below = stack.enter_context(below.folder(parent))
            source = stack.enter_context(below.file(file))
            status = os.fstat(source.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise _forbidden(name, status.st_mode)
            copy.write(name, source, status.st_size)


def _walk(folder: Folder, prefix: str, depth: int) -> Iterator[tuple[str, int]]:
    """Yield name and size of each file; refuse whatever is neither a file nor a folder."""
    with folder.entries() as entries:
        for entry in entries:
            name = prefix + entry.name
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                yield name, status.st_size
            elif not stat.S_ISDIR(status.st_mode):
                raise _forbidden(name, status.st_mode)
            elif depth <= 1:
                raise too_large("depth", prefix.count("/") + 1, prefix.count("/") + 2, file=shown(name))
            else:
                with folder.folder(entry.name) as below:
                    yield from _walk(below, f"{name}/", depth - 1)


def _unpack(file: BinaryIO, path: Path, copy: Copy, limits: Limits) -> None:
    packed_bytes = os.fstat(file.fileno()).st_size
    if packed_bytes > limits.packed_bytes:
        raise too_large("packed_bytes", limits.packed_bytes, packed_bytes)
    if file.read(len(_GZIP_MAGIC)) != _GZIP_MAGIC:
        raise PackageUnreadable(f"{path} is neither a folder nor a .tar.gz archive", path=path)
    file.seek(0)
    copy.expect(packed_bytes)  # the unpacked files will hardly be smaller; how large they are nobody knows yet
    try:
        with gzip.GzipFile(fileobj=file, mode="rb") as unzipped:
            meter = _Meter(unzipped, packed_bytes, limits)
            meter.allow(limits.header_bytes)
            with tarfile.open(fileobj=meter, mode="r|") as archive:
                _unpack_members(archive, meter, copy, limits)
            meter.allow(limits.header_bytes)
            while rest := meter.read(limits.header_bytes):  # the checksum stands at the end of the stream
                if rest.strip(b"\0"):
                    raise PackageUnreadable(f"{path} goes on after its last member", path=path)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError) as error:
        raise PackageUnreadable(f"{path} is damaged or cut short: {error}", path=path) from error


def _unpack_members(archive: tarfile.TarFile, meter: _Meter, copy: Copy, limits: Limits) -> None:
    count = 0
    while (info := archive.next()) is not None:
        count += 1
        if count > limits.members:
            raise too_large("members", limits.members, count)
        name = info.name.removeprefix("./")
        if info.isdir():  # folders are made for the files in them; an empty one has nothing to verify
            if name not in {".", ""}:
                check_name(name, limits)
            continue
        check_name(name, limits)
        if not info.isreg() or info.issparse():
            kind = _LINKS.get(info.type, "special file")
            raise PackageMemberForbidden(f"{name!r} is a {kind}", file=name, kind=kind)
        if info.size < 0:
            raise PackageUnreadable(f"{name!r} has the size {info.size}", file=name)
        meter.allow(info.size + limits.header_bytes)
        source = archive.extractfile(info)
        if source is None:
            raise PackageUnreadable(f"{name!r} has no content", file=name)
        copy.write(name, source, info.size)
        meter.allow(limits.header_bytes)
        vars(archive)["members"].clear()  # tarfile keeps each member it has read, though a stream cannot go back


class _Meter(io.RawIOBase):
    """The unpacked stream, held to the ratio limit and to what was last allowed.

    tarfile reads the headers of a member into memory, however long they say they are; the allowance bounds that.
    """

    def __init__(self, stream: gzip.GzipFile, packed_bytes: int, limits: Limits) -> None:
        self._stream = stream
        self._packed_bytes = packed_bytes
        self._limits = limits
        self._unpacked_bytes = 0
        self._allowed_bytes = 0

    def allow(self, size_bytes: int) -> None:
        self._allowed_bytes = self._unpacked_bytes + size_bytes + tarfile.RECORDSIZE

    def read(self, size_bytes: int = -1, /) -> bytes:
        data = self._stream.read(size_bytes)
        self._unpacked_bytes += len(data)
        if self._unpacked_bytes > self._allowed_bytes:
            raise too_large("header_bytes", self._limits.header_bytes, self._limits.header_bytes + 1)
        if self._unpacked_bytes > max(self._limits.ratio * self._packed_bytes, self._limits.ratio_grace_bytes):
            raise too_large("ratio", self._limits.ratio, -(-self._unpacked_bytes // self._packed_bytes))
        return data


def _forbidden(name: str, mode: int) -> PackageMemberForbidden:
    kind = "symbolic link" if stat.S_ISLNK(mode) else "special file"
    return PackageMemberForbidden(f"{name!r} is a {kind}", file=shown(name), kind=kind)
