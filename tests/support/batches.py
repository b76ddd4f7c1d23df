"""A spool with much room, captures to put into it, and a clock that tests turn, for the tests of the delivery."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lightkeeper.capture.files import Files, RealFiles
from lightkeeper.capture.journal import Durability
from lightkeeper.capture.record import Capture, Part, Payload, Stored, content_type_of, store
from lightkeeper.capture.sink import Layout
from lightkeeper.capture.spool import Room, Spool
from lightkeeper.device import DeviceIdentity
from tests.support.spools import left_open

MIB = 1024 * 1024
START_MS = 1_767_225_600_000
"""2026-01-01T00:00:00 UTC."""

LAYOUT = Layout(DeviceIdentity("cam-1", "yard", "cam-1", "test-1"), folder_prefix="site/a")
EMBED_LIMIT_BYTES = 64


@dataclass
class Clock:
    """A clock that a test turns."""

    now_ms: float = START_MS
    slept: list[float] = field(default_factory=list)

    def ms(self) -> int:
        """Return milliseconds since 1970."""
        return int(self.now_ms)

    def ns(self) -> int:
        """Return nanoseconds since 1970."""
        return int(self.now_ms) * 1_000_000

    def seconds(self) -> float:
        """Return seconds since 1970."""
        return self.now_ms / 1000

    def sleep(self, seconds: float) -> None:
        """Turn the clock on instead of waiting."""
        self.slept.append(seconds)
        self.now_ms += seconds * 1000


def open_spool(
    folder: Path,
    *,
    root: str,
    batch: int = 2,
    files: Files | None = None,
    now_ms: Callable[[], int] = lambda: START_MS,
) -> Spool:
    """Open a spool with much room."""
    return left_open(
        Spool(
            folder,
            room=Room(buffer=1000, batch=batch, spool_max_bytes=1024 * MIB, free_floor_bytes=0),
            root=root,
            durability=Durability(),
            files=files or RealFiles(),
            now_ms=now_ms,
        )
    )


def stored(capture_id: str, *, large: bytes | None = None) -> Stored:
    """Return a capture whose one tensor is its id, and with a large picture where one is given."""
    payloads = [Payload(Part.INPUT, "x", "application/octet-stream", capture_id.encode())]
    if large is not None:
        payloads.append(Payload(Part.AUXILIARY_INPUT, "frame.jpg", content_type_of("frame.jpg"), large))
    whole = Capture(capture_id, "probe", "1.0", "ab" * 32, START_MS * 1_000_000, tuple(payloads))
    return store(whole, embed_limit_bytes=EMBED_LIMIT_BYTES)


def picture(seed: int, size_bytes: int = 5000) -> bytes:
    """Return bytes that differ by seed and by place."""
    chunk = b"".join((seed * 1_000_003 + place * 7919).to_bytes(8, "little") for place in range(512))
    return b"".join(chunk + place.to_bytes(8, "little") for place in range(-(-size_bytes // len(chunk))))[:size_bytes]


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder by its path there."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }
