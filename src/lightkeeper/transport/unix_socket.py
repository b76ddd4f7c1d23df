"""The agent's socket file: whether its path can be served, and how it gets there.

A server binds to a staging name in the same folder, reached through the folder's open descriptor so that its length
does not count; the socket gets its mode and group there and is then linked to its real name. Linking fails if
something has come to lie there meanwhile: of two agents that start at once, one wins and the other is refused, and
nobody ever connects to a socket whose rights are not set yet.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import socket
import stat
import sys
from pathlib import Path

from lightkeeper.errors import (
    SocketAddressInvalid,
    SocketDenied,
    SocketFolderMissing,
    SocketInUse,
    SocketPathExists,
    SocketPathTooLong,
    SocketStale,
)

assert sys.platform != "win32"  # noqa: S101  # tells the type checker whose functions there are

PATH_LIMIT_BYTES = 107
"""What the kernel's address structure holds beside the closing zero."""

_PROBE_SECONDS = 2.0


def path_of(address: str) -> Path:
    """Return the path of `PATH`, `unix:PATH` or `unix:///PATH`, or raise `SocketAddressInvalid`."""
    scheme, colon, rest = address.partition(":")
    if not colon or "/" in scheme:
        path = address
    elif scheme == "unix":
        path = rest.removeprefix("//") if rest.startswith("///") else rest
    else:
        raise SocketAddressInvalid(f"{address} is not the address of a Unix socket", address=address)
    if not path or "\0" in path or path.startswith("//"):
        raise SocketAddressInvalid(f"{address!r} names no file", address=address)
    return Path(path)


class SocketFile:
    """The socket file of one agent, from its claim to its removal."""

    callers = 0o222

    def __init__(self, path: Path, *, mode: int = 0o600, group: str | None = None) -> None:
        """Take the path, the file's mode (connecting needs the write bit) and the group that shall own it."""
        self.path = path
        self.token: str | None = None
        self._mode = mode
        self._group = group
        self._folder: int | None = None
        self._staging = f".lightkeeper-{secrets.token_hex(4)}"
        self._inode: int | None = None

    def look(self) -> None:
        """Raise the `SocketError` that `claim` would without force; make, take and remove nothing."""
        try:
            self.claim(force=False)
        finally:
            self.remove()

    def claim(self, *, force: bool) -> str:
        """Check that the path can be served and return the address for a server to bind to.

        With `force` a stale socket file is removed. Raises a `SocketError`.
        """
        length_bytes = len(os.fsencode(self.path))
        if length_bytes > PATH_LIMIT_BYTES:
            raise SocketPathTooLong(
                f"{self.path} is {length_bytes} bytes long",
                path=self.path,
                given_bytes=length_bytes,
                limit_bytes=PATH_LIMIT_BYTES,
            )
        try:
            self._folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise SocketFolderMissing(f"{self.path.parent} is not a folder", path=self.path) from error
        except OSError as error:
            raise self._denied(error) from error
        if not os.access(self.path.parent, os.W_OK | os.X_OK, effective_ids=True):
            raise self._denied(PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
        self._clear_path(force=force)
        return f"unix:/proc/self/fd/{self._folder}/{self._staging}"

    def publish(self, _port: int | None = None) -> None:
        """Give the bound socket its rights and its real name. Raises a `SocketError`."""
        folder = self._folder
        staging = self.path.parent / self._staging
        try:
            if self._group:
                shutil.chown(staging, group=self._group)
            staging.chmod(self._mode)
            os.link(self._staging, self.path.name, src_dir_fd=folder, dst_dir_fd=folder)
            self._inode = staging.stat().st_ino
        except FileExistsError as error:
            raise SocketInUse(f"another process has just begun to serve {self.path}", path=self.path) from error
        except LookupError as error:
            raise SocketDenied(f"there is no group {self._group}", path=self.path, group=self._group) from error
        except OSError as error:
            raise self._denied(error) from error
        finally:
            staging.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the file if it is still the one that was published, and let go of the folder."""
        if self._inode is not None:
            try:
                if self.path.lstat().st_ino == self._inode:
                    self.path.unlink()
            except FileNotFoundError:
                pass
        self._inode = None
        if self._folder is not None:
            os.close(self._folder)
            self._folder = None

    def _clear_path(self, *, force: bool) -> None:
        try:
            found = self.path.lstat()
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._denied(error) from error
        if not stat.S_ISSOCK(found.st_mode):
            raise SocketPathExists(f"something that is not a socket lies at {self.path}", path=self.path)
        if self._is_served():
            raise SocketInUse(f"another process serves {self.path}", path=self.path)
        if not force:
            raise SocketStale(f"a socket that nobody serves lies at {self.path}", path=self.path)
        try:
            self.path.unlink()
        except OSError as error:
            raise self._denied(error) from error

    def _is_served(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(_PROBE_SECONDS)
            try:
                probe.connect(os.fspath(self.path))
            except (ConnectionRefusedError, FileNotFoundError):
                return False
            except OSError:  # a full backlog, a socket of another kind or owner: somebody is there
                return True
            return True

    def _denied(self, error: OSError) -> SocketDenied:
        cause = os.strerror(error.errno) if error.errno else str(error)
        code = errno.errorcode.get(error.errno or 0, "")
        return SocketDenied(f"{self.path} cannot be served: {cause}", path=self.path, cause=code or cause)
