"""The agent's captures: the capture line, or the reason why there is none."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from lightkeeper.agent.captureline import CaptureLine
from lightkeeper.capture import sums
from lightkeeper.capture.ledger import State
from lightkeeper.capture.record import NANOSECONDS
from lightkeeper.capture.request import CaptureRequest
from lightkeeper.capture.sampling import Sampling
from lightkeeper.config import Config
from lightkeeper.errors import AgentError, SpoolBroken, SpoolDiskFull, SpoolTooNew
from lightkeeper.model import PackageIdentity
from lightkeeper.providers.base import Provider

REOPEN_SECONDS = 10.0

log = logging.getLogger(__name__)


class Captures:
    """The capture line, or the reason why there is none: an agent whose disk is broken predicts all the same.

    Where the spool cannot be opened, captures are refused with that fault, an ERROR says so once, and it is tried again
    every `REOPEN_SECONDS`.
    """

    def __init__(self, config: Config, state: Path, provider: Provider, *, fault: AgentError | None = None) -> None:
        """Take the configuration and the state folder; with a `fault`, captures are refused and nothing starts."""
        self._config = config
        self._state = state
        self._provider = provider
        self._stopping = threading.Event()
        self._fault = fault
        self._line: CaptureLine | None = None
        self._opening = threading.Thread(target=self._open_later, name="capture-opening", daemon=True)

    def start(self) -> None:
        """Open the spool and start moving captures, now or as soon as the disk allows."""
        self._open()
        if self._line is None:
            self._opening.start()

    def stop(self) -> None:
        """End the threads; what is in the spool stays there."""
        self._stopping.set()
        if self._opening.is_alive():
            self._opening.join()
        if self._line is not None:
            self._line.stop()

    @property
    def sampling(self) -> Sampling | None:
        """What looks at predictions, where rules ask for it and captures can be kept."""
        line = self._line
        return None if line is None else line.sampling

    def record(self, request: CaptureRequest, package: PackageIdentity) -> None:
        """Keep a capture (see `Recorder.record`)."""
        self._open_line().recorder.record(request, package)

    def latest_sample(self, model: str) -> float | None:
        """Return when a capture of a model was last kept, an application's or a rule's, in seconds since 1970."""
        line = self._line
        kept_ns = None if line is None else line.recorder.latest_ns.get(model)
        return None if kept_ns is None else kept_ns / NANOSECONDS

    def metrics(self) -> dict[str, float]:
        """Return the ledger's sums by the names that heartbeats give them; none while the ledger cannot be read."""
        line = self._line
        if line is None:
            return {}
        try:
            ledger = sums.read(line.spool.journal)
        except SpoolBroken:  # delivery and upkeep say so
            return {}
        lost = 0 if line.sampling is None else line.sampling.lost.total()
        return {
            "CapturesAccepted": ledger.accepted,
            **{f"Captures{state.name.capitalize()}": count for state, count in ledger.states.items()},
            "CapturesRefused": line.recorder.refused.total(),
            "SamplesLost": lost,
            "SpoolBytes": line.spool.held_bytes,
        }

    def state_of(self, capture_id: str) -> State | None:
        """Return where a capture stands, or None for an id that the ledger does not know."""
        return self._open_line().spool.state_of(capture_id)

    def flush(self, timeout_seconds: float) -> bool:
        """Have everything that waits delivered now; return whether it is, within the time."""
        return self._open_line().delivery.flush(timeout_seconds)

    def _open_line(self) -> CaptureLine:
        line, fault = self._line, self._fault
        if line is not None:
            return line
        if isinstance(fault, SpoolBroken | SpoolDiskFull):
            raise fault
        reason = fault.reason if fault else "NOT_OPEN"
        raise SpoolBroken(f"captures cannot be kept: {fault or 'the spool is not open yet'}", cause=reason)

    def _open(self) -> None:
        try:
            line = CaptureLine(self._config, self._state, self._provider)
        except (SpoolBroken, SpoolDiskFull, SpoolTooNew) as fault:
            if self._fault is None:
                log.error("captures_unavailable", extra={"reason": fault.reason, "detail": fault.message})  # noqa: TRY400  # a refusal, no bug
            self._fault = fault
            return
        line.start()
        self._line = line
        if self._fault is not None:
            log.info("captures_available")

    def _open_later(self) -> None:
        while self._line is None and not self._stopping.wait(REOPEN_SECONDS):
            self._open()
