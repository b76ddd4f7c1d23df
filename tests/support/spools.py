"""Spools for tests: small captures, a clock, disks that fail, and what a crash leaves."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from lightkeeper.capture.audit import Audit, LedgerReader
from lightkeeper.capture.files import PRIVATE_FILE, PRIVATE_FOLDER, RealFiles
from lightkeeper.capture.journal import Durability
from lightkeeper.capture.record import Capture, Part, Payload, Stored, store
from lightkeeper.capture.spool import Keep, Room, Spool, Waiting

IN_MEMORY = next((folder for folder in ["/dev/shm"] if Path(folder).is_dir()), None)  # noqa: S108 - made by mkdtemp there
"""Where syncs cost nothing: what is synced when is another test's question."""

START_MS = 1_700_000_000_000
EMBED_LIMIT_BYTES = 64
NO_LIMIT_BYTES = 1 << 50
ROOMY = Room(buffer=1000, batch=3, spool_max_bytes=NO_LIMIT_BYTES, free_floor_bytes=0)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.ms = START_MS

    def __call__(self) -> int:
        """Return the time in milliseconds."""
        return self.ms


class Disk(RealFiles):
    """A disk that refuses its n-th operation from now with an error, or every one from then on.

    A write that is refused has written half of its first piece, and is there.
    """

    def __init__(self, *, free_bytes: int = NO_LIMIT_BYTES) -> None:
        super().__init__()
        self.free = free_bytes
        self.left = -1
        self.lasting = False
        self.error = errno.EIO
        self.operations = 0

    def fail(self, after: int, error: int = errno.EIO, *, lasting: bool = False) -> None:
        """Refuse the operation after so many that pass; with -1, none."""
        self.left, self.error, self.lasting = after, error, lasting

    def _refused(self) -> bool:
        self.operations += 1
        if self.left < 0:
            return False
        self.left -= 1
        if self.left >= 0:
            return False
        if self.lasting:
            self.left = 0
        return True

    def _step(self) -> None:
        if self._refused():
            raise OSError(self.error, os.strerror(self.error))

    def write(self, path: Path, data: Iterable[bytes | memoryview], *, mode: int = PRIVATE_FILE) -> None:
        """Write, or half of it."""
        pieces = [bytes(piece) for piece in data]
        if self._refused():
            super().write(path, [piece[: len(piece) // 2] for piece in pieces[:1]], mode=mode)
            raise OSError(self.error, os.strerror(self.error))
        super().write(path, pieces, mode=mode)

    def make_folder(self, path: Path, *, mode: int = PRIVATE_FOLDER) -> None:
        """Make a folder."""
        self._step()
        super().make_folder(path, mode=mode)

    def rename(self, source: Path, target: Path) -> None:
        """Rename."""
        self._step()
        super().rename(source, target)

    def link(self, source: Path, target: Path) -> None:
        """Link."""
        self._step()
        super().link(source, target)

    def sync_folder(self, folder: Path) -> None:
        """Sync a folder."""
        self._step()
        super().sync_folder(folder)

    def remove(self, path: Path) -> None:
        """Remove."""
        self._step()
        super().remove(path)

    def free_bytes(self, folder: Path) -> int:  # noqa: ARG002 - one disk
        """Return as much as the test says."""
        return self.free


_left_open: list[Spool] = []


def left_open(spool: Spool) -> Spool:
    """Remember a spool that a test may leave as a kill does, and return it."""
    _left_open.append(spool)
    return spool


def let_go() -> None:
    """Close what was left open, without what a clean stop does."""
    while _left_open:
        _left_open.pop().journal.close(save=False)


def open_spool(
    folder: Path,
    *,
    room: Room = ROOMY,
    clock: Clock | None = None,
    disk: Disk | None = None,
    durability: Durability | None = None,
    keep: Keep | None = None,
    root: str = "file:///captures",
) -> Spool:
    """Open a spool."""
    return left_open(
        Spool(
            folder,
            room=room,
            root=root,
            durability=durability or Durability(),
            files=disk or Disk(),
            now_ms=clock or Clock(),
            keep=keep,
        )
    )


def stored(capture_id: str, *sizes_bytes: int) -> Stored:
    """Return a capture with a payload of each size, whose bytes follow from its id; above 64 bytes it gets a file."""
    payloads = tuple(
        Payload(Part.INPUT, f"x{position}", "application/octet-stream", data(capture_id, position, size))
        for position, size in enumerate(sizes_bytes or (24,))
    )
    return store(Capture(capture_id, "m", "1.0", "ab" * 32, 1, payloads), embed_limit_bytes=EMBED_LIMIT_BYTES)


def data(capture_id: str, position: int, size_bytes: int) -> bytes:
    """Return the bytes of a test's payload."""
    return (f"{capture_id}/{position}/".encode() * size_bytes)[:size_bytes]


def is_whole(waiting: Waiting) -> bool:
    """Whether a capture that waits has all that `stored` gave it."""
    for payload in waiting.large:
        if payload.path.read_bytes() != data(waiting.id, payload.position, payload.size_bytes):
            return False
    large = [(payload.position, payload.size_bytes) for payload in waiting.large]
    sizes = dict(large)
    again = stored(waiting.id, *[sizes.get(position, size) for position, size in enumerate(_sizes(waiting.header))])
    return (waiting.header, waiting.inline) == (again.header, again.inline)


def _sizes(header: bytes) -> list[int]:
    return [entry["bytes"] for entry in json.loads(header)["payloads"]]


def crashed(folder: Path, to: Path) -> Path:
    """Copy a spool's folder as the disk has it while the agent is gone between two steps."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("*-shm"))
    return to


def audited(folder: Path) -> Audit:
    """Audit a spool at rest: whatever is without its counterpart stays so."""
    return LedgerReader(folder, sleep=lambda _seconds: None).audit()
