"""Attached shared memory, kept from call to call.

Attaching a segment is cheap, but each of its pages is a fault when it is first read: for a picture that takes longer
than a small model runs. So a large segment stays attached for a while after its call.

Invariants:

- At most `KEPT_LIMIT` segments and `KEPT_BYTES` are kept beside those in use; the longest unused go first.
- A kept segment goes `KEEP_SECONDS` after its last use, or at the next look after everybody else has detached it: the
  memory of a caller that has ended is not held back for longer than `LOOK_SECONDS`.
- A segment is never detached while a call uses it.
- Whoever takes a segment checks its rights anew: they may have changed since.

A thread `segments` looks while something is kept, and ends when nothing is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from lightkeeper.errors import SharedMemoryNotFound, SharedMemoryUnsupported
from lightkeeper.system import user_id

if TYPE_CHECKING:
    import sysv_ipc

KEPT_FROM_BYTES = 64 * 1024
"""A smaller segment is attached as quickly as it is looked for."""

KEPT_LIMIT = 16
KEPT_BYTES = 256 * 1024 * 1024
KEEP_SECONDS = 5.0
LOOK_SECONDS = 1.0

_ID_LIMIT = 2**31  # shmget returns an int


class _Kept:
    """One attached segment, how many calls use it, and until when it is kept."""

    __slots__ = ("expires", "memory", "users")

    def __init__(self, memory: sysv_ipc.SharedMemory) -> None:
        self.memory = memory
        self.users = 1
        self.expires = 0.0


class KeptSegments:
    """The segments that this process has attached, by id. Any number of threads may take them."""

    def __init__(
        self,
        *,
        limit_bytes: int = KEPT_BYTES,
        now: Callable[[], float] = time.monotonic,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        """Keep nothing yet."""
        self._limit_bytes = limit_bytes
        self._now = now
        self._look_seconds = look_seconds
        self._segments: dict[int, _Kept] = {}  # the last used comes last
        self._lock = threading.Lock()
        self._looking = False

    def take(self, segment_id: int) -> sysv_ipc.SharedMemory:
        """Return a segment, attached read-only; `give_back` must follow. Raises a `SharedMemoryRefused`."""
        with self._lock:
            kept = self._segments.get(segment_id)
            if kept is not None:
                kept.users += 1
                return kept.memory
        memory = _attach(segment_id)
        with self._lock:
            kept = self._segments.get(segment_id)
            if kept is None:
                self._segments[segment_id] = _Kept(memory)
                return memory
            kept.users += 1
        memory.detach()  # another call was quicker
        return kept.memory

    def give_back(self, segment_id: int, *, keep: bool) -> None:
        """End a use of a segment; the last one's is kept for the next call if it is wanted and large enough."""
        look = False
        with self._lock:
            kept = self._segments.pop(segment_id)
            kept.users -= 1
            keep = keep and kept.memory.size >= KEPT_FROM_BYTES
            if kept.users or keep:
                kept.expires = self._now() + KEEP_SECONDS
                self._segments[segment_id] = kept
                self._make_room()
                look, self._looking = not self._looking, True
            else:
                kept.memory.detach()
        if look:
            threading.Thread(target=self._look_on, name="segments", daemon=True).start()

    def look(self) -> bool:
        """Let go of what is kept for nothing, and tell whether anything is kept still."""
        with self._lock:
            for segment_id, kept in list(self._segments.items()):
                if not kept.users and (kept.expires <= self._now() or _is_forgotten(kept.memory)):
                    del self._segments[segment_id]
                    kept.memory.detach()
            self._looking = bool(self._segments)
            return self._looking

    def _look_on(self) -> None:
        while True:
            time.sleep(self._look_seconds)
            if not self.look():
                return

    def _make_room(self) -> None:
        idle = [(segment_id, kept) for segment_id, kept in self._segments.items() if not kept.users]
        size_bytes = sum(kept.memory.size for _, kept in idle)
        while len(idle) > KEPT_LIMIT or size_bytes > self._limit_bytes:
            segment_id, kept = idle.pop(0)
            size_bytes -= kept.memory.size
            del self._segments[segment_id]
            kept.memory.detach()


def _is_forgotten(memory: sysv_ipc.SharedMemory) -> bool:
    """Tell whether nobody else has a segment attached, or it cannot be asked any more."""
    import sysv_ipc

    try:
        return bool(memory.number_attached <= 1)
    except sysv_ipc.Error:
        return True


def _attach(segment_id: int) -> sysv_ipc.SharedMemory:
    try:
        import sysv_ipc
    except ImportError as error:
        raise SharedMemoryUnsupported("this platform has no System V shared memory", segment_id=segment_id) from error
    if segment_id >= _ID_LIMIT:
        raise SharedMemoryNotFound(f"{segment_id} is no segment id", segment_id=segment_id)
    try:
        return sysv_ipc.attach(segment_id, None, sysv_ipc.SHM_RDONLY)
    except (sysv_ipc.Error, OSError, ValueError) as error:
        raise not_found(segment_id) from error


def not_found(segment_id: int) -> SharedMemoryNotFound:
    """Return the refusal of a segment that is not there for the agent."""
    return SharedMemoryNotFound(
        f"segment {segment_id} does not exist, or the agent's user may not read it",
        segment_id=segment_id,
        agent_uid=user_id(),
    )
