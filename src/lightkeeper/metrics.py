"""What a loaded model has done: counters on Predict's path, and their read-out.

Invariants

- Counting takes no lock: each thread adds to a tally of its own, and a read-out adds the tallies up. A read-out beside
  running calls may lack the newest of them; it never counts one twice, and no figure ever falls.
- A call counts once: as an inference if the model answered, as a failure if its runtime failed, or would not take the
  values of an input. An input whose type or shape does not fit never gets that far, and counts as neither.
- There is one tally for each thread that ever called, so as many as the server has workers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

NANOSECONDS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Reading:
    """What was counted since the model was loaded. Times are those of the model's runtime, in seconds."""

    inferences: int = 0
    failures: int = 0
    total_seconds: float = 0.0
    slowest_seconds: float = 0.0
    last_inference: float | None = None
    """When the last inference ended, in seconds since 1970 by the device's clock, or None before the first."""

    @property
    def mean_seconds(self) -> float:
        """How long an inference took, in the mean; 0 before the first."""
        return self.total_seconds / self.inferences if self.inferences else 0.0

    @property
    def failure_share(self) -> float:
        """Which share of the calls failed, from 0 to 1; 0 before the first."""
        calls = self.inferences + self.failures
        return self.failures / calls if calls else 0.0


class _Tally:
    """What one thread counted."""

    __slots__ = ("failures", "inferences", "last_ns", "slowest_ns", "total_ns")

    def __init__(self) -> None:
        self.inferences = 0
        self.failures = 0
        self.total_ns = 0
        self.slowest_ns = 0
        self.last_ns = 0


class _Own(threading.local):
    """Each thread's own tally, made and entered in the list at the thread's first call."""

    def __init__(self, tallies: list[_Tally]) -> None:
        self.tally = _Tally()
        tallies.append(self.tally)


class Metrics:
    """The counters of one model. Any number of threads may count and read."""

    __slots__ = ("_now", "_own", "_tallies")

    def __init__(self, *, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._tallies: list[_Tally] = []
        self._own = _Own(self._tallies)

    def answered(self, started_ns: int, ended_ns: int) -> None:
        """Count an inference, from and to which times of `time.monotonic_ns` it ran."""
        tally = self._own.tally
        took_ns = ended_ns - started_ns
        tally.inferences += 1
        tally.total_ns += took_ns
        tally.last_ns = ended_ns
        tally.slowest_ns = max(tally.slowest_ns, took_ns)

    def failed(self) -> None:
        """Count a call that the model's runtime did not answer."""
        self._own.tally.failures += 1

    def read(self) -> Reading:
        """Return the sums over all threads."""
        tallies = tuple(self._tallies)
        last_ns = max((tally.last_ns for tally in tallies), default=0)
        ago_seconds = (time.monotonic_ns() - last_ns) / NANOSECONDS
        return Reading(
            inferences=sum(tally.inferences for tally in tallies),
            failures=sum(tally.failures for tally in tallies),
            total_seconds=sum(tally.total_ns for tally in tallies) / NANOSECONDS,
            slowest_seconds=max((tally.slowest_ns for tally in tallies), default=0) / NANOSECONDS,
            last_inference=self._now() - ago_seconds if last_ns else None,
        )
