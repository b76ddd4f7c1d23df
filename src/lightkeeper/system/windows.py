"""Windows: access lists in place of modes, lock files beside folders, names that the file system's journal keeps.

What is weaker than on POSIX, and why that is borne, stands with each function; `docs/windows.md` has the whole list.
"""

from __future__ import annotations

import ctypes
import errno
import msvcrt
import os
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

assert sys.platform == "win32"  # noqa: S101  # tells the type checker whose functions there are

FILE_FLAGS = os.O_NOINHERIT | os.O_BINARY
"""What every file is opened with: no program started from here inherits it, and no line end is changed."""

NO_WAITING = 0
"""Opening a file never waits: named pipes have a place of their own."""

HAS_MODES = False
"""A mode tells of the read-only attribute alone; who may do what stands in access lists, which nothing here reads."""

HAS_UNIX_SOCKETS = False
"""The system has them; Python and gRPC have not."""

_LOCAL_DATA = os.environ.get("LOCALAPPDATA") or os.path.expanduser(r"~\AppData\Local")  # noqa: PTH111  # never raises

DEFAULT_ADDRESS = str(Path(_LOCAL_DATA) / "lightkeeper" / "agent.endpoint")
"""Where commands look for an agent that they are told nothing of."""

AGENT_SERVES_DEFAULT = True
"""Whether an agent that is told nothing serves that address; it lies in a folder of its own user's."""

_LOCK_LOOK_SECONDS = 0.05
_REMOVAL_SECONDS = 2.0
_LOCKED_BYTE = 1 << 30
"""Locks are mandatory here: the byte lies past the end, so that what the file holds can be read all the same."""

_GENERIC_WRITE, _SHARE_ALL, _OPEN_EXISTING, _BACKUP_SEMANTICS = 0x4000_0000, 0x7, 3, 0x0200_0000
_FLUSH_UNKNOWN = frozenset({1, 5, 50})
"""ERROR_INVALID_FUNCTION, ERROR_ACCESS_DENIED, ERROR_NOT_SUPPORTED: this file system's folders cannot be flushed."""

_OWNER_SYSTEM_ADMINISTRATORS = "D:P(A;;FA;;;OW)(A;;FA;;;SY)(A;;FA;;;BA)"
"""An access list in SDDL: all rights for the owner, the system and administrators; nothing is inherited."""
_SDDL_REVISION, _DACL_INFORMATION = 1, 4

_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
_advapi32 = ctypes.WinDLL("advapi32", use_last_error=True)
_kernel32.CreateFileW.restype = ctypes.c_void_p
_kernel32.CloseHandle.argtypes = _kernel32.FlushFileBuffers.argtypes = (ctypes.c_void_p,)
_INVALID_HANDLE = ctypes.c_void_p(-1).value

_Handler = ctypes.WINFUNCTYPE(ctypes.c_int, ctypes.c_uint32)
_handlers: list[Any] = []
"""What the console calls: it must live as long as the process."""


class Folder:
    """A folder by its path. A link in it is refused, and a file that is not the one that was listed.

    POSIX opens names below an open folder; here each is looked at before it is opened and compared after, so that a
    link swapped in between is refused and not followed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def entries(self) -> Iterator[Iterator[os.DirEntry[str]]]:
        """Give what lies in it."""
        with os.scandir(self._path) as entries:
            yield entries

    @contextmanager
    def folder(self, name: str) -> Iterator[Folder]:
        """Open a folder that lies in it. Raises `OSError`, for a link too."""
        path = self._path / name
        _refuse_link(path)
        yield Folder(path)
        _refuse_link(path)

    def file(self, name: str) -> BinaryIO:
        """Open a file that lies in it for reading, without a buffer. Raises `OSError`, for a link too."""
        path = self._path / name
        listed = _refuse_link(path)
        file = os.fdopen(os.open(path, os.O_RDONLY | FILE_FLAGS), "rb", buffering=0)
        if not os.path.samestat(listed, os.fstat(file.fileno())):
            file.close()
            raise OSError(None, "it was replaced while it was opened", str(path))
        return file


def _refuse_link(path: Path) -> os.stat_result:
    found = path.lstat()
    if found.st_file_attributes & stat.FILE_ATTRIBUTE_REPARSE_POINT:
        raise OSError(None, "it is a link", str(path))
    return found


@contextmanager
def opened(path: Path) -> Iterator[Folder | BinaryIO]:
    """Open what lies at a path: a folder, or whatever else it is as a file. Raises `OSError` or `ValueError`."""
    if stat.S_ISDIR(path.stat().st_mode):
        yield Folder(path)
        return
    with os.fdopen(os.open(path, os.O_RDONLY | FILE_FLAGS), "rb") as file:
        yield file


class FolderLock:
    """A lock on a folder: a locked file beside it.

    A folder that is open can be neither renamed nor removed here, so it cannot carry its lock itself.
    """

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor = descriptor
        self._path = path

    def release(self) -> None:
        """Let go; the folder may be gone by then, and the file then goes too."""
        os.close(self._descriptor)
        with suppress(OSError):  # another process looks at it: it removes it, or the next one does
            self._path.unlink()


def lock_folder(folder: Path) -> FolderLock | None:
    """Lock a folder; None where somebody else has it, or where it is gone."""
    try:
        return _lock(folder)
    except OSError:
        return None


def wait_for_folder(folder: Path) -> FolderLock:
    """Lock a folder, once nobody else has it. Raises `OSError`.

    A lock file that another thread or process is removing this moment cannot be opened: that is looked at again, but
    not for long, since it looks like a file that may not be opened at all.
    """
    refused_since: float | None = None
    while True:
        try:
            lock = _lock(folder)
            refused_since = None
        except PermissionError:
            refused_since = refused_since or time.monotonic()
            if time.monotonic() - refused_since > _REMOVAL_SECONDS:
                raise
            lock = None
        if lock is not None:
            return lock
        time.sleep(_LOCK_LOOK_SECONDS)


def _lock(folder: Path) -> FolderLock | None:
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    path = folder.with_name(f".{folder.name}.lock")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | FILE_FLAGS)
    if lock_file(descriptor):
        return FolderLock(descriptor, path)
    os.close(descriptor)
    return None


def lock_file(descriptor: int) -> bool:
    """Lock an open file until it is closed, and tell whether it could be: False where another process has it."""
    os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
    try:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    except OSError:
        return False
    finally:
        os.lseek(descriptor, 0, os.SEEK_SET)
    return True


def sync_content(descriptor: int) -> None:
    """Make what was written to an open file last through a power cut. Raises `OSError`."""
    os.fsync(descriptor)


def sync_file(path: Path) -> None:
    """Make a file's content last through a power cut. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDWR | FILE_FLAGS)  # flushing asks for the right to write
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make what was made, renamed or removed in a folder last through a power cut. Raises `OSError`.

    Where the file system flushes no folders, names last as its journal writes them: after a power cut a name may be
    the old one, and never half of one.
    """
    handle = _kernel32.CreateFileW(
        str(folder), _GENERIC_WRITE, _SHARE_ALL, None, _OPEN_EXISTING, _BACKUP_SEMANTICS, None
    )
    if handle == _INVALID_HANDLE:
        _refuse_flush()
        return
    try:
        if not _kernel32.FlushFileBuffers(handle):
            _refuse_flush()
    finally:
        _kernel32.CloseHandle(handle)


def _refuse_flush() -> None:
    error = ctypes.get_last_error()
    if error not in _FLUSH_UNKNOWN:
        raise ctypes.WinError(error)


def set_mode(descriptor: int, path: Path, mode: int) -> None:  # noqa: ARG001  # POSIX goes by the descriptor
    """Set or clear a file's read-only attribute, all that a mode can do here. Raises `OSError`."""
    path.chmod(mode)


def write_private(path: Path, content: bytes) -> None:
    """Write a new file that nobody but its owner, the system and administrators could ever read.

    Raises `OSError`, also where one is there.
    """
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | FILE_FLAGS), "wb") as file:
        _set_access(path)  # before there is anything to read
        file.write(content)


def _set_access(path: Path) -> None:
    descriptor = ctypes.c_void_p()
    made = _advapi32.ConvertStringSecurityDescriptorToSecurityDescriptorW(
        _OWNER_SYSTEM_ADMINISTRATORS, _SDDL_REVISION, ctypes.byref(descriptor), None
    )
    if not made:
        raise ctypes.WinError(ctypes.get_last_error())
    try:
        if not _advapi32.SetFileSecurityW(str(path), _DACL_INFORMATION, descriptor):
            raise ctypes.WinError(ctypes.get_last_error())
    finally:
        _kernel32.LocalFree(descriptor)


def user_id() -> int | None:
    """Return None: users have no numbers here."""
    return None


def groups_of(user: int) -> set[int]:  # noqa: ARG001  # nobody has a number to ask with
    """Return no group: groups have no numbers here."""
    return set()


def group_exists(name: str) -> bool:  # noqa: ARG001  # no group is one that a file could be given to
    """Tell that there is no such group: files here belong to none."""
    return False


def file_url(path: Path) -> str:
    """Return the URL of an absolute path."""
    return path.as_uri()


def path_of_url(path: str) -> str | None:
    """Return the path that the path of a `file:` URL, percent-decoded, means; None for another machine's.

    A look at another machine's path would tell that machine who asks.
    """
    if path[:2].replace("\\", "/") == "//":
        return None
    return path[1:] if path[:1] == "/" and path[2:3] == ":" else path


def quoted(word: str) -> str:
    """Return a word as a program takes it whole; `%` and `^` mean to cmd what they mean."""
    import subprocess

    return subprocess.list2cmdline([word])


def block_endings() -> None:
    """Do nothing: there is no signal that a library's thread could catch."""


def call_at_endings(stop: Callable[[], None]) -> None:
    """Call a function, in a thread of the system's, at Ctrl-C and Ctrl-Break, and when the console or session ends.

    After the last two the system ends the process as soon as the handler returns, or after some seconds; so the handler
    waits then, for as long as it is let.
    """

    def handle(event: int) -> int:
        stop()
        if event > 1:  # neither Ctrl-C (0) nor Ctrl-Break (1)
            threading.Event().wait()
        return 1

    handler = _Handler(handle)
    _handlers.append(handler)
    if not _kernel32.SetConsoleCtrlHandler(handler, 1):
        raise ctypes.WinError(ctypes.get_last_error())
