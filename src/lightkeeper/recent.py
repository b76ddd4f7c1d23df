"""The last inputs that a model was given: what a new version answers beside the old one before it takes over.

Predict's path reads one number, `due_ns`. Once in `EVERY_NS` it copies a call's inputs, which may lie in memory that
the caller takes back. What is kept lives in memory alone, and goes with the model (docs/adr/0007-swap.md).

Invariant: at most `limit` inputs are kept, of at most `MOST_BYTES` together; the oldest goes first. Inputs of one call
that are larger than that are not kept.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]
Inputs = Mapping[str, Array]

EVERY_NS = 1_000_000_000
MOST_BYTES = 32 * 1024 * 1024
NEVER_NS = 1 << 63


class RecentInputs:
    """The inputs of a few calls, the newest last. Any number of threads may use it."""

    __slots__ = ("_bytes", "_keeping", "_kept", "_limit", "due_ns")

    def __init__(self, limit: int) -> None:
        """Take how many calls' inputs to keep; 0 keeps none."""
        self._limit = limit
        self._kept: deque[tuple[int, Inputs]] = deque()
        self._bytes = 0
        self._keeping = threading.Lock()
        self.due_ns = 0 if limit else NEVER_NS
        """From which time of `time.monotonic_ns` on the next call's inputs are wanted."""

    def keep(self, inputs: Inputs, now_ns: int) -> None:
        """Keep copies of a call's inputs; where another thread is about to, its call's will do."""
        if not self._keeping.acquire(blocking=False):
            return
        try:
            self.due_ns = now_ns + EVERY_NS
            size_bytes = sum(array.nbytes for array in inputs.values())
            if size_bytes > MOST_BYTES:
                return
            while self._kept and (len(self._kept) >= self._limit or self._bytes + size_bytes > MOST_BYTES):
                self._bytes -= self._kept.popleft()[0]
            self._kept.append((size_bytes, {name: array.copy() for name, array in inputs.items()}))
            self._bytes += size_bytes
        except MemoryError:
            return  # the inference had the memory it needed; a comparison makes do with fewer inputs
        finally:
            self._keeping.release()

    def all(self) -> list[Inputs]:
        """Return what is kept, the oldest first."""
        with self._keeping:
            return [inputs for _, inputs in self._kept]
