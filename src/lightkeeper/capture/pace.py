"""How fast and how much is uploaded: bytes a second, bytes a day.

Both count the bytes of bodies on their way to the network, those of attempts that fail among them; requests' heads and
answers (under 2 KiB each) are not counted.

Invariants: over any stretch of time no more leaves than the rate allows for it and `BURST_SECONDS` more; a body is
begun only where it fits what is left of the day, except that the first of a day is, however large; what a day has
used is remembered over a restart, up to the body under way at a crash.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from lightkeeper.capture.notes import Notes
from lightkeeper.errors import DeliveryInterrupted, UploadBudgetSpent

BURST_SECONDS = 0.25
"""How much of the rate may leave at once."""

LEAST_PIECE_BYTES = 256
MOST_PIECE_BYTES = 64 * 1024

DAY_SECONDS = 86_400

_NOTE = "uploaded"


class Pace:
    """The limits of all uploads of one agent; 0 stands for no limit. Any number of threads may use it."""

    def __init__(  # noqa: PLR0913  # two limits, and the world they are measured in
        self,
        *,
        bytes_per_second: int = 0,
        bytes_per_day: int = 0,
        notes: Notes,
        stopping: threading.Event,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        """Take the limits. `sleep` is by default a wait that ends when `stopping` is set."""
        self._rate = bytes_per_second
        self._budget_bytes = bytes_per_day
        self._notes = notes
        self._stopping = stopping
        self._monotonic = monotonic
        self._now = now
        self._sleep = sleep or stopping.wait
        self._lock = threading.Lock()
        self._free_at = monotonic()

    @property
    def piece_bytes(self) -> int:
        """How much is let through at a time, so that the network sees a stream and not bursts."""
        if not self._rate:
            return MOST_PIECE_BYTES
        return max(LEAST_PIECE_BYTES, min(MOST_PIECE_BYTES, int(self._rate * BURST_SECONDS)))

    def begin(self, size_bytes: int) -> None:
        """Ask for a body's bytes of the day's budget. Raises `UploadBudgetSpent` or `DeliveryInterrupted`."""
        self.check()
        if not self._budget_bytes:
            return
        with self._lock:
            day, used_bytes = self._used()
        if used_bytes and used_bytes + size_bytes > self._budget_bytes:
            raise UploadBudgetSpent(
                f"{used_bytes} of {self._budget_bytes} bytes of the day are used, too many for {size_bytes} more",
                wait_seconds=(day + 1) * DAY_SECONDS - self._now(),
                used_bytes=used_bytes,
                budget_bytes=self._budget_bytes,
            )

    def end(self, sent_bytes: int) -> None:
        """Enter what was sent of a body. Raises `SpoolBroken` or `SpoolDiskFull`."""
        if self._budget_bytes and sent_bytes:
            with self._lock:
                day, used_bytes = self._used()
                self._notes.put(_NOTE, f"{day} {used_bytes + sent_bytes}")

    def check(self) -> None:
        """Raise `DeliveryInterrupted` where the agent stops."""
        if self._stopping.is_set():
            raise DeliveryInterrupted("the agent stops")

    def let_through(self, size_bytes: int) -> None:
        """Wait until so many bytes may leave. Raises `DeliveryInterrupted`."""
        self.check()
        if not self._rate:
            return
        with self._lock:
            now = self._monotonic()
            starts = max(self._free_at, now - BURST_SECONDS)
            self._free_at = starts + size_bytes / self._rate
            wait_seconds = self._free_at - now
        if wait_seconds > 0:
            self._sleep(wait_seconds)
            self.check()

    def _used(self) -> tuple[int, int]:
        """Return the day, counted from 1970 in UTC, and the bytes it has used."""
        today = int(self._now() // DAY_SECONDS)
        day, _, used = (self._notes.get(_NOTE) or "0 0").partition(" ")
        return today, int(used) if int(day) == today else 0
