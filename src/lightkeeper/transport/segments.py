"""System V shared memory as a caller makes it: filled here, read in place by the agent.

A segment gets the mode 0400 before it is ever sent (the agent refuses one that somebody may still write) and is filled
through the mapping that its maker already has. It is marked for removal at once: the kernel keeps it, and lets the
agent attach it by its id, until the last process lets go, so that not even a killed client leaves one behind.

Invariant: a segment is in one caller's hands at a time; at most `IDLE_LIMIT` wait for the next.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import sysv_ipc

IDLE_LIMIT = 8
ALIGNMENT_BYTES = 64
"""Every tensor begins at a multiple of this, so that no runtime has to copy it."""

_SMALLEST_BYTES = 512 * 1024


class Segment:
    """A segment of this process's own making."""

    def __init__(self, capacity_bytes: int) -> None:
        import sysv_ipc

        self._memory: sysv_ipc.SharedMemory = sysv_ipc.SharedMemory(
            None, sysv_ipc.IPC_CREX, mode=0o600, size=capacity_bytes
        )
        self._memory.mode = 0o400
        self._memory.remove()
        self._end = 0
        self.id: int = self._memory.id
        self.capacity_bytes = capacity_bytes

    def clear(self) -> None:
        """Begin anew at the segment's start."""
        self._end = 0

    def write(self, array: npt.NDArray[Any]) -> int:
        """Copy an array behind what is there and return its offset in bytes."""
        offset = self._end
        np.ndarray(array.shape, array.dtype, memoryview(self._memory), offset)[...] = array
        self._end = _aligned(offset + array.nbytes)
        return offset

    def close(self) -> None:
        """Let go of the memory."""
        self._memory.detach()


class SegmentPool:
    """Segments to use again: making one costs more than filling it."""

    def __init__(self) -> None:
        self._idle: list[Segment] = []
        self._lock = threading.Lock()
        self._supported = True

    def take(self, sizes_bytes: list[int]) -> Segment | None:
        """Return an empty segment with room for tensors of these sizes, or None where there can be none."""
        needed = sum(map(_aligned, sizes_bytes))
        with self._lock:
            fitting = [segment for segment in self._idle if segment.capacity_bytes >= needed]
            if fitting:
                segment = min(fitting, key=lambda segment: segment.capacity_bytes)
                self._idle.remove(segment)
                segment.clear()
                return segment
        if not self._supported:
            return None
        try:
            return Segment(max(_SMALLEST_BYTES, 1 << (needed - 1).bit_length()))
        except ImportError:  # no System V on this platform: bytes will do
            self._supported = False
        except (OSError, MemoryError):  # the system's limit on segments or their sum: bytes will do for this call
            pass
        return None

    def put_back(self, segment: Segment) -> None:
        """Keep a segment for the next call; of too many the smallest goes."""
        with self._lock:
            self._idle.append(segment)
            surplus = None
            if len(self._idle) > IDLE_LIMIT:
                surplus = min(self._idle, key=lambda segment: segment.capacity_bytes)
                self._idle.remove(surplus)
        if surplus:
            surplus.close()

    def close(self) -> None:
        """Let go of every idle segment."""
        with self._lock:
            idle, self._idle = self._idle, []
        for segment in idle:
            segment.close()


def _aligned(size_bytes: int) -> int:
    return -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
