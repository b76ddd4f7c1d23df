"""The agent's door: what lies at its address while it serves, a socket's file or an endpoint's."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from lightkeeper.errors import (
    SocketAddressInvalid,
    SocketDenied,
    SocketFolderMissing,
    SocketInUse,
    SocketPathExists,
    SocketStale,
)
from lightkeeper.system import FILE_FLAGS, HAS_MODES, lock_file, write_private
from lightkeeper.transport import endpoint
from lightkeeper.transport.endpoint import Endpoint

OWNER_ONLY = 0o600
TOKEN_BYTES = 32


class Door(Protocol):
    """What lies at the agent's address, from its claim to its removal."""

    @property
    def path(self) -> Path:
        """Where it lies."""

    @property
    def token(self) -> str | None:
        """What every call must carry, or None where the file's rights alone let callers in."""

    def claim(self, *, force: bool) -> str:
        """Check that the path can be served and return the address for a server to bind to. Raises a `SocketError`.

        With `force` what an agent that has ended left there is removed.
        """

    def publish(self, port: int | None) -> None:
        """Let callers find the server, which listens on a port or on what it was bound to. Raises a `SocketError`."""

    def remove(self) -> None:
        """Remove what was published, if it is still there."""


def at(address: str, *, mode: int = OWNER_ONLY, group: str | None = None) -> Door:
    """Return the door of an address, which a mode and a group are given to. Raises `SocketAddressInvalid`."""
    path = endpoint.path_of(address)
    if path is not None:
        if not path.name:
            raise SocketAddressInvalid(f"{address!r} names no file", address=address)
        return EndpointFile(path, mode=mode, group=group)
    if sys.platform == "win32":
        raise SocketAddressInvalid(f"{address!r} is no file's path", address=address)
    from lightkeeper.transport import unix_socket

    return unix_socket.SocketFile(unix_socket.path_of(address), mode=mode, group=group)


class EndpointFile:
    """The file of one agent on loopback TCP.

    Invariant: from `claim` to `remove` a lock file beside it is locked, and its content is there whole or not at all.
    """

    def __init__(self, path: Path, *, mode: int = OWNER_ONLY, group: str | None = None) -> None:
        """Take the path, the file's mode (calling needs the right to read) and the group that shall own it."""
        self.path = path
        self.token: str | None = secrets.token_hex(TOKEN_BYTES)
        self._mode = mode
        self._group = group
        self._lock: int | None = None
        self._published: bytes | None = None

    def claim(self, *, force: bool) -> str:
        """See `Door.claim`."""
        if not self.path.parent.is_dir():
            raise SocketFolderMissing(f"{self.path.parent} is not a folder", path=self.path)
        try:
            lock = self.path.with_name(f".{self.path.name}.lock")
            self._lock = os.open(lock, os.O_RDWR | os.O_CREAT | FILE_FLAGS, OWNER_ONLY)
            if not lock_file(self._lock):
                raise SocketInUse(f"another process serves {self.path}", path=self.path)
            self._clear(force=force)
        except OSError as error:
            raise self._denied(error) from error
        return f"{endpoint.HOST}:0"

    def publish(self, port: int | None) -> None:
        """See `Door.publish`."""
        content = Endpoint(port or 0, self.token or "").to_bytes()
        beside = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}")
        try:
            write_private(beside, content)
            if self._group:
                shutil.chown(beside, group=self._group)
            if HAS_MODES:
                beside.chmod(self._mode)
            beside.replace(self.path)
            self._published = content
        except LookupError as error:
            raise SocketDenied(f"there is no group {self._group}", path=self.path, group=self._group) from error
        except OSError as error:
            raise self._denied(error) from error
        finally:
            with suppress(OSError):
                beside.unlink()

    def remove(self) -> None:
        """See `Door.remove`."""
        with suppress(OSError):
            if self._published is not None and self.path.read_bytes() == self._published:
                self.path.unlink()
        self._published = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _clear(self, *, force: bool) -> None:
        if not os.path.lexists(self.path):
            return
        if not self.path.is_file() or endpoint.read(self.path) is None:
            raise SocketPathExists(f"something that is no agent's file lies at {self.path}", path=self.path)
        if not force:
            raise SocketStale(f"the file of an agent that has ended lies at {self.path}", path=self.path)
        self.path.unlink()

    def _denied(self, error: OSError) -> SocketDenied:
        cause = os.strerror(error.errno) if error.errno else str(error)
        code = errno.errorcode.get(error.errno or 0, "")
        return SocketDenied(f"{self.path} cannot be served: {cause}", path=self.path, cause=code or cause)
