"""The agent's state folder: private to its user, and one agent's at a time.

A folder that was configured wrongly keeps the agent from starting. One on a disk that has gone bad (read-only after an
error, full, failing) does not: nobody may be near to repair it, and models run without it (see `memory_folder`).

Files of state are replaced as a whole (`replace_file`): after a power cut there is the old one or the new one.

Invariant: while a `StateFolder` is open, its lock file is locked; the kernel lets go of the lock when the process ends,
however it ends.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from pathlib import Path

from lightkeeper.errors import StateDiskBroken, StateInUse, StateUnusable
from lightkeeper.system import FILE_FLAGS, lock_file, sync_folder

PRIVATE = 0o700
LOCK_FILE = "agent.lock"
_BROKEN_DISK = frozenset({errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO})
_IN_MEMORY = Path("/dev/shm")  # noqa: S108  # a folder of its own is made in it, private to this user


class StateFolder:
    """The state folder, held by this process until `close`."""

    def __init__(self, path: Path) -> None:
        """Make the folder where it is missing, and lock it. Raises `StateDiskBroken`, `StateUnusable`, `StateInUse`."""
        self.path = path
        try:
            path.mkdir(PRIVATE, parents=True, exist_ok=True)
            self._lock = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | FILE_FLAGS, 0o600)
        except OSError as error:
            cause = os.strerror(error.errno or 0)
            if error.errno in _BROKEN_DISK:
                raise StateDiskBroken(f"the disk of the state folder {path} is broken: {cause}", folder=path) from error
            raise StateUnusable(f"the state folder {path} cannot be used: {cause}", folder=path) from error
        if not lock_file(self._lock):
            os.close(self._lock)
            raise StateInUse(f"another agent uses the state folder {path}", path=path)

    def close(self) -> None:
        """Let another agent have the folder."""
        os.close(self._lock)


def replace_file(path: Path, content: bytes) -> None:
    """Put a new file, synced, in the place of the old one, which stays where this raises `OSError`."""
    beside = path.with_name(f"{path.name}.new")
    try:
        path.parent.mkdir(PRIVATE, parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_folder(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


def memory_folder() -> tempfile.TemporaryDirectory[str]:
    """Make a private folder that needs no disk, where the system has such; it is gone with the process's end."""
    return tempfile.TemporaryDirectory(prefix="lightkeeper-", dir=_IN_MEMORY if _IN_MEMORY.is_dir() else None)
