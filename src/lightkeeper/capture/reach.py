"""Whether a destination can be reached, as the log tells it: one line when it goes away, one when it is back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from lightkeeper.errors import AgentError

log = logging.getLogger(__name__)


class Reach:
    """The state of one destination. One thread uses it."""

    def __init__(self, destination: str, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Take what the log calls the destination."""
        self._destination = destination
        self._monotonic = monotonic
        self._reason = ""
        self._since = 0.0

    def away(self, fault: AgentError, *, retry_seconds: float) -> None:
        """Note that the destination failed; only what is new is said."""
        if self._reason == fault.reason:
            return
        self._since = self._since if self._reason else self._monotonic()
        self._reason = fault.reason
        log.warning(
            "destination_away",
            extra={
                "destination": self._destination,
                "reason": fault.reason,
                "problem": fault.message,
                "facts": fault.facts,
                "next_step": fault.next_step,
                "retry_seconds": round(retry_seconds, 1),
            },
        )

    def back(self) -> None:
        """Note that the destination took something."""
        if self._reason:
            away_seconds = round(self._monotonic() - self._since, 1)
            log.info("destination_back", extra={"destination": self._destination, "away_seconds": away_seconds})
            self._reason = ""
