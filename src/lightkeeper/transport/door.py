"""The agent's door: what lies at its address while it serves, a socket's file or an endpoint's."""

from __future__ import annotations

import errno
import logging
import os
import secrets
import shutil
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from lightkeeper import paths
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

_PROBE_SECONDS = 2.0

log = logging.getLogger(__name__)


class Door(Protocol):
    """What lies at the agent's address, from its claim to its removal."""

    @property
    def path(self) -> Path:
        """Where it lies."""

    @property
    def token(self) -> str | None:
        """What every call must carry, or None where the file's rights alone let callers in."""

    @property
    def callers(self) -> int:
        """The bits of the file's mode that let callers in: the owner's, the group's and everybody's."""

    def look(self) -> None:
        """Raise the `SocketError` that `claim` would without force; make, take and remove nothing."""

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

    callers = 0o444

    def __init__(
        self, path: Path, *, mode: int = OWNER_ONLY, group: str | None = None, has_modes: bool = HAS_MODES
    ) -> None:
        """Take the path, the file's mode (calling needs the right to read) and the group that shall own it.

        Without modes on this system, neither has an effect, and `publish` says so.
        """
        self.path = path
        self.token: str | None = secrets.token_hex(TOKEN_BYTES)
        self._mode = mode
        self._group = group
        self._has_modes = has_modes
        self._lock: int | None = None
        self._published: bytes | None = None

    def look(self) -> None:
        """See `Door.look`. Whether an agent serves is told by the port: a look at the lock would take it."""
        try:
            self._require_folder()
            if not os.access(self.path.parent, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            found = self._left_there()
        except OSError as error:
            raise self._denied(error) from error
        if found is None:
            return
        try:
            socket.create_connection((endpoint.HOST, found.port), _PROBE_SECONDS).close()
        except OSError as error:
            raise self._stale() from error
        raise SocketInUse(f"another process serves {self.path}", path=self.path)

    def claim(self, *, force: bool) -> str:
        """See `Door.claim`."""
        try:
            self._require_folder()
            lock = self.path.with_name(f".{self.path.name}.lock")
            self._lock = os.open(lock, os.O_RDWR | os.O_CREAT | FILE_FLAGS, OWNER_ONLY)
            if not lock_file(self._lock):
                raise SocketInUse(f"another process serves {self.path}", path=self.path)
            if self._left_there() is not None:
                if not force:
                    raise self._stale()
                self.path.unlink()
        except OSError as error:
            raise self._denied(error) from error
        return f"{endpoint.HOST}:0"

    def publish(self, port: int | None) -> None:
        """See `Door.publish`."""
        content = Endpoint(port or 0, self.token or "").to_bytes()
        beside = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}")
        try:
            write_private(beside, content)
            self._set_rights(beside)
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

    def _set_rights(self, file: Path) -> None:
        if self._has_modes:
            if self._group:
                shutil.chown(file, group=self._group)
            file.chmod(self._mode)
            return
        given = {"lightkeeper_socket_mode": self._mode != OWNER_ONLY, "lightkeeper_socket_group": bool(self._group)}
        without_effect = [key for key, is_given in given.items() if is_given]
        if without_effect:
            log.warning("socket_rights_without_effect", extra={"address": str(self.path), "keys": without_effect})

    def _require_folder(self) -> None:
        if not paths.is_folder(self.path.parent):
            raise SocketFolderMissing(f"{self.path.parent} is not a folder", path=self.path)

    def _left_there(self) -> Endpoint | None:
        """Return what an agent's file at the path tells, or None where nothing lies there. Raises `OSError` too."""
        if not os.path.lexists(self.path):
            return None
        found = endpoint.read(self.path) if paths.is_file(self.path) else None
        if found is None:
            raise SocketPathExists(f"something that is no agent's file lies at {self.path}", path=self.path)
        return found

    def _stale(self) -> SocketStale:
        return SocketStale(f"the file of an agent that has ended lies at {self.path}", path=self.path)

    def _denied(self, error: OSError) -> SocketDenied:
        cause = os.strerror(error.errno) if error.errno else str(error)
        code = errno.errorcode.get(error.errno or 0, "")
        return SocketDenied(f"{self.path} cannot be served: {cause}", path=self.path, cause=code or cause)
