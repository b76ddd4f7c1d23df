"""Heartbeats: a periodic report of the device to its provider, and whether the device is registered.

Thread: `heartbeat`. The first report is sent within `FIRST_SECONDS` of the start, or within the interval where that is
shorter; every later one after the interval, less a random tenth, so that devices that start together do not report
together. One that brings a deployment's result does not wait. One that fails is not sent late: the next report says
more. What the provider says of a cloud that is away is logged there, once.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable

from lightkeeper.errors import AgentError
from lightkeeper.providers.base import Provider
from lightkeeper.providers.fleet import DeploymentResult
from lightkeeper.providers.report import Heartbeat

FIRST_SECONDS = 30.0
JITTER = 0.1
JOIN_SECONDS = 2.0

log = logging.getLogger(__name__)


class Heartbeats:
    """Sends reports until it is stopped."""

    def __init__(  # noqa: PLR0913  # what is reported to whom, how often, and the world it is measured in
        self,
        provider: Provider,
        report: Callable[[], Heartbeat],
        *,
        interval_seconds: float,
        due: threading.Event | None = None,
        acknowledge: Callable[[DeploymentResult], None] | None = None,
        draw: Callable[[], float] = random.random,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take what is reported to whom.

        Setting `due` has a report sent at once; `acknowledge` is told of a deployment's result that the provider has
        taken.
        """
        self._provider = provider
        self._report = report
        self._interval_seconds = interval_seconds
        self._due = due or threading.Event()
        self._acknowledge = acknowledge
        self._draw = draw
        self._monotonic = monotonic
        self._stopping = threading.Event()
        self._registered: bool | None = None
        self._ask_at = 0.0
        self._refusal = ""
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; a report under way is not waited for longer than a moment."""
        self._stopping.set()
        self._due.set()
        self._thread.join(JOIN_SECONDS)

    def _run(self) -> None:
        wait_seconds = self.first_wait_seconds()
        while True:
            self._due.wait(wait_seconds)
            self._due.clear()
            if self._stopping.is_set():
                return
            try:
                self.once()
            except Exception:
                log.exception("heartbeat_failed")
            wait_seconds = self.wait_seconds()

    def first_wait_seconds(self) -> float:
        """Return how long after the start the first report is sent."""
        return self._draw() * min(FIRST_SECONDS, self._interval_seconds)

    def wait_seconds(self) -> float:
        """Return how long after a report the next one is sent."""
        return self._interval_seconds * (1 - JITTER * self._draw())

    def once(self) -> None:
        """Ask for the registration where the last answer no longer holds, and send a report."""
        try:
            self._check_registration()
            heartbeat = self._report()
            self._provider.send_heartbeat(heartbeat)
        except AgentError as refusal:
            if refusal.reason != self._refusal:  # said once, until it is another or over
                log.warning("heartbeat_refused", extra={"reason": refusal.reason, "detail": refusal.message})
            self._refusal = refusal.reason
            return
        if self._refusal:
            log.info("heartbeat_taken_again")
        self._refusal = ""
        if heartbeat.result is not None and self._acknowledge is not None:
            self._acknowledge(heartbeat.result)

    def _check_registration(self) -> None:
        if self._monotonic() < self._ask_at:
            return
        registration = self._provider.registration()
        if registration is None:
            self._ask_at = float("inf")
            return
        self._ask_at = self._monotonic() + registration.ttl_seconds
        if registration.active != self._registered:
            if registration.active:
                log.info("device_registered")
            else:
                log.warning("device_not_registered", extra={"next_step": "register the device with its fleet"})
        self._registered = registration.active
