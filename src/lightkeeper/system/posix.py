"""POSIX: files are opened below open folders, locked by `flock`, synced with their folders; signals end the process."""

from __future__ import annotations

import fcntl
import grp
import os
import pwd
import shlex
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote_from_bytes

assert sys.platform != "win32"  # noqa: S101  # tells the type checker whose functions there are

FILE_FLAGS = os.O_CLOEXEC
"""What every file is opened with: no program started from here inherits it."""

NO_WAITING = os.O_NONBLOCK
"""Opening a named pipe does not wait for its other end."""

HAS_MODES = True
"""Whether a file's mode says who may do what with it."""

HAS_UNIX_SOCKETS = True

DEFAULT_ADDRESS = "/tmp/agent.sock"  # noqa: S108  # the old agent's customary path
"""Where commands look for an agent that they are told nothing of."""

AGENT_SERVES_DEFAULT = False
"""Whether an agent that is told nothing serves that address; its folder is everybody's, so it must be told."""

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_ENDINGS = (signal.SIGTERM, signal.SIGINT)


class Folder:
    """An open folder. What is opened in it is this very folder's, and through no link, whatever happens to its path."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @contextmanager
    def entries(self) -> Iterator[Iterator[os.DirEntry[str]]]:
        """Give what lies in it."""
        with os.scandir(self._descriptor) as entries:
            yield entries

    @contextmanager
    def folder(self, name: str) -> Iterator[Folder]:
        """Open a folder that lies in it. Raises `OSError`, for a link too."""
        descriptor = os.open(name, _FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=self._descriptor)
        try:
            yield Folder(descriptor)
        finally:
            os.close(descriptor)

    def file(self, name: str) -> BinaryIO:
        """Open a file that lies in it for reading, without a buffer. Raises `OSError`, for a link too."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | NO_WAITING | FILE_FLAGS
        return os.fdopen(os.open(name, flags, dir_fd=self._descriptor), "rb", buffering=0)


@contextmanager
def opened(path: Path) -> Iterator[Folder | BinaryIO]:
    """Open what lies at a path, once: a folder, or whatever else it is as a file. Raises `OSError` or `ValueError`."""
    descriptor = os.open(path, os.O_RDONLY | NO_WAITING | FILE_FLAGS)
    if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
        with os.fdopen(descriptor, "rb") as file:
            yield file
        return
    try:
        yield Folder(descriptor)
    finally:
        os.close(descriptor)


class FolderLock:
    """A lock on a folder; the kernel lets go of it when the process ends, however it ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """Let go; the folder may be gone by then."""
        os.close(self._descriptor)


def lock_folder(folder: Path) -> FolderLock | None:
    """Lock a folder; None where somebody else has it, or where it is gone."""
    try:
        return _lock(folder, _FOLDER_FLAGS | os.O_NOFOLLOW, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return None


def wait_for_folder(folder: Path) -> FolderLock:
    """Lock a folder, once nobody else has it. Raises `OSError`."""
    return _lock(folder, _FOLDER_FLAGS, fcntl.LOCK_EX)


def _lock(folder: Path, flags: int, operation: int) -> FolderLock:
    descriptor = os.open(folder, flags)
    try:
        fcntl.flock(descriptor, operation)
    except BaseException:
        os.close(descriptor)
        raise
    return FolderLock(descriptor)


def lock_file(descriptor: int) -> bool:
    """Lock an open file until it is closed, and tell whether it could be: False where another process has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def sync_content(descriptor: int) -> None:
    """Make what was written to an open file last through a power cut. Raises `OSError`."""
    os.fdatasync(descriptor)


def sync_file(path: Path) -> None:
    """Make a file's content last through a power cut. Raises `OSError`."""
    _sync(path, os.O_RDONLY | FILE_FLAGS)


def sync_folder(folder: Path) -> None:
    """Make what was made, renamed or removed in a folder last through a power cut. Raises `OSError`."""
    _sync(folder, _FOLDER_FLAGS)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def set_mode(descriptor: int, path: Path, mode: int) -> None:  # noqa: ARG001  # Windows goes by the path
    """Give an open file its mode. Raises `OSError`."""
    os.fchmod(descriptor, mode)


def write_private(path: Path, content: bytes) -> None:
    """Write a new file that nobody but its owner could ever open. Raises `OSError`, also where one is there."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | FILE_FLAGS, 0o600), "wb") as file:
        file.write(content)


def user_id() -> int | None:
    """Return the number of the user whose rights this process has, where users have numbers."""
    return os.geteuid()


def groups_of(user: int) -> set[int]:
    """Return the groups of a user."""
    try:
        found = pwd.getpwuid(user)
    except KeyError:
        return set()
    return set(os.getgrouplist(found.pw_name, found.pw_gid))


def group_exists(name: str) -> bool:
    """Tell whether this device has a group."""
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def file_url(path: Path) -> str:
    """Return the URL of an absolute path. `Path.as_uri` imports an HTTP client and TLS since Python 3.14."""
    return f"file://{quote_from_bytes(os.fsencode(path))}"


def path_of_url(path: str) -> str | None:
    """Return the path that the path of a `file:` URL, percent-decoded, means; None for another machine's."""
    return path


def quoted(word: str) -> str:
    """Return a word as a shell takes it whole."""
    return shlex.quote(word)


def block_endings() -> None:
    """Keep SIGTERM and SIGINT from ending the process, in this thread and every one that is started after."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDINGS)


def call_at_endings(stop: Callable[[], None]) -> None:
    """Call a function, in a thread of its own, at every SIGTERM and SIGINT.

    A handler in the main thread could be called just before that thread begins to wait, and would then not wake it:
    the signal would be lost.
    """
    block_endings()
    threading.Thread(target=_wait_for_endings, args=(stop,), name="signals", daemon=True).start()


def _wait_for_endings(stop: Callable[[], None]) -> None:
    while True:
        signal.sigwait(_ENDINGS)
        stop()
