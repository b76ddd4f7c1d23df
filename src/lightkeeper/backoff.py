"""Back-off: how long to wait after a failure, so that a thousand devices whose network returns do not ask together."""

from __future__ import annotations

from dataclasses import dataclass

LEAST_SECONDS = 0.1
"""No wait is shorter."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Bounds of the wait: the first is up to `first_seconds`, each next up to twice as long, at most `most_seconds`."""

    first_seconds: float
    most_seconds: float

    def wait_seconds(self, attempts: int, draw: float) -> float:
        """Return the wait after so many failed attempts: evenly spread between nothing and the bound (full jitter)."""
        bound = min(self.most_seconds, self.first_seconds * 2.0 ** min(attempts - 1, 32))
        return LEAST_SECONDS + draw * (bound - LEAST_SECONDS)
