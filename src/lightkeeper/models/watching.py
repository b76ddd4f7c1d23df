"""Watching a version that has just taken over: errors or a latency past the limits bring the old one back.

The old version's session stays open meanwhile, so that going back takes no time; where memory gets short it is closed,
and opened again from its kept package if need be. Failures are counted; latency is the mean time of the runtime, and
since that rises with the load on the device, the old version answers recent inputs beside the new one before latency
alone brings it back.

A watch outlives the process: the record says who is on trial, and what the old version had done. An agent that dies
twice in one watch, without having been stopped, comes back with the old version (`restoring.py`).

Invariant: at most one watch a name; it ends passed, taken back, or because its model was unloaded or swapped again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from lightkeeper.errors import AgentError, ModelNotFound, SwapRunFailed, SwapTooSlow
from lightkeeper.metrics import Reading
from lightkeeper.modelpackage.manifest import SwapLimits
from lightkeeper.models.comparison import LATENCY_GRACE_SECONDS, compare, faults
from lightkeeper.models.record import Entry, Version
from lightkeeper.models.report import RECENT, Returned
from lightkeeper.models.stock import Stock, version_of
from lightkeeper.registry import LoadedModel

TICK_SECONDS = 0.5
FAILURES_LEAST = 3
"""Fewer failures than this bring nothing back."""
CALLS_LEAST = 20
"""The mean latency of fewer calls than this says nothing."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Trial:
    """A version on trial. `old` is the model it replaced, or None where that is not open."""

    old: LoadedModel | None
    new: LoadedModel
    before: Version
    baseline: Reading
    limits: SwapLimits
    ends: float
    since: Reading = field(default_factory=Reading)
    """What the new version had done when its latency was last found to be the load's, not its own."""
    troubled: bool = False
    """Whether it was said that the old version cannot be brought back."""

    @property
    def name(self) -> str:
        """The name that is watched."""
        return self.new.description.name


def fault(baseline: Reading, since: Reading, now: Reading, limits: SwapLimits) -> AgentError | None:
    """Return which limit a version passes, going by its counters and the old one's, or None."""
    calls = now.inferences + now.failures
    allowed = limits.failure_share
    if allowed is not None and now.failures >= FAILURES_LEAST and now.failure_share > baseline.failure_share + allowed:
        return SwapRunFailed(
            f"{now.failures} of the new version's {calls} calls failed",
            failure_share=f"{now.failure_share:.3g}",
            before=f"{baseline.failure_share:.3g}",
            limit=allowed,
        )
    inferences = now.inferences - since.inferences
    ratio = limits.latency_ratio
    if ratio is None or inferences < CALLS_LEAST or baseline.inferences < CALLS_LEAST:
        return None
    mean_seconds = (now.total_seconds - since.total_seconds) / inferences
    old_seconds = baseline.mean_seconds
    if mean_seconds > ratio * old_seconds and mean_seconds - old_seconds > LATENCY_GRACE_SECONDS:
        return SwapTooSlow(
            f"the new version takes {mean_seconds * 1000:.3g} ms in the mean where the old one took "
            f"{old_seconds * 1000:.3g} ms",
            latency_ratio=f"{mean_seconds / old_seconds:.3g}",
            limit=ratio,
            calls=inferences,
        )
    return None


class Watching:
    """The versions on trial, and the thread that looks after them (`run`)."""

    def __init__(self, stock: Stock, *, seconds: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._stock = stock
        self._seconds = seconds
        self._monotonic = monotonic
        self._changed = threading.Condition()
        self._trials: dict[str, Trial] = {}
        self._stopping = False

    @property
    def seconds(self) -> float:
        """How long a version is watched; 0 means not at all."""
        return self._seconds

    def begin(
        self,
        old: LoadedModel | None,
        new: LoadedModel,
        before: Version,
        limits: SwapLimits,
        baseline: Reading | None,
    ) -> None:
        """Watch a version that has taken over; `baseline` is what the old one had done, None where nobody knows."""
        trial = Trial(old, new, before, baseline or Reading(), limits, self._monotonic() + self._seconds)
        with self._changed:
            self._trials[trial.name] = trial
            self._changed.notify()

    def take(self, name: str) -> Trial | None:
        """End the watch of a name and return its trial, whose old model is the caller's to close or put back."""
        with self._changed:
            return self._trials.pop(name, None)

    def settle(self, name: str) -> None:
        """End the watch of a name, if there is one, with the new version as it is."""
        trial = self.take(name)
        if trial is not None:
            self._pass(trial)

    def seconds_left(self, name: str) -> float | None:
        """Return how long a name is still watched, or None where it is not."""
        trial = self._trials.get(name)
        return None if trial is None else max(0.0, trial.ends - self._monotonic())

    def run(self) -> None:
        """Look after the trials until `stop`."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._trials or self._stopping)
                self._changed.wait_for(lambda: self._stopping, TICK_SECONDS)
                if self._stopping:
                    return
            self.look()

    def stop(self) -> None:
        """Have `run` end; what is on trial stays so, for the next start."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def look(self) -> None:
        """Judge every trial once."""
        for trial in tuple(self._trials.values()):
            try:
                self._look(trial)
            except Exception:
                log.exception("watch_failed", extra={"model": trial.name})

    def bring_back(self, trial: Trial, why: AgentError | None) -> None:
        """Put the old version back; with no fault it was asked for, and the new one stays the version before.

        The caller has taken the trial. Raises what opening the old version again raises; the new one then stays.
        """
        old = trial.old
        if old is None:
            old = self._stock.reopen(trial.name, trial.before, trial.new.recent)
        entry = self._stock.record.get(trial.name)
        asked = "" if entry is None else entry.asked
        if why is None:
            after = Entry(trial.name, trial.before, previous=version_of(trial.new), asked=asked)
        else:
            returned = Returned(trial.new.package.digest, why.reason, why.message)
            after = Entry(trial.name, trial.before, asked=asked, returned=returned)
        try:
            self._stock.replace(trial.new, old, after)
        except ModelNotFound:
            old.close()  # it was unloaded meanwhile
            return
        facts = {"model": trial.name, "version": old.package.version, "from_version": trial.new.package.version}
        if why is None:
            log.info("model_rolled_back", extra=facts | {"reason": "ASKED_FOR"})
        else:
            log.warning("model_rolled_back", extra=facts | {"reason": why.reason, "detail": why.message})
        trial.new.close()

    def _look(self, trial: Trial) -> None:
        with self._stock.change():
            if not self._runs(trial):
                if self._take(trial) and trial.old is not None:
                    trial.old.close()
                return
            why = fault(trial.baseline, trial.since, trial.new.metrics.read(), trial.limits)
            if isinstance(why, SwapTooSlow) and not self._confirmed(trial):
                why = None
            if why is not None:
                self._give_up(trial, why)
            elif self._monotonic() >= trial.ends:
                if self._take(trial):
                    self._pass(trial)
            elif trial.old is not None and self._stock.loader.memory_is_short():
                old, trial.old = trial.old, None
                log.warning("old_version_closed_early", extra={"model": trial.name, "reason": "MEMORY_SHORT"})
                old.close()

    def _give_up(self, trial: Trial, why: AgentError) -> None:
        if not self._take(trial):
            return
        try:
            self.bring_back(trial, why)
        except AgentError as error:
            if not trial.troubled:
                log.error(  # noqa: TRY400  # a refusal, no bug
                    "rollback_failed",
                    extra={"model": trial.name, "cause": why.message, "reason": error.reason, "detail": error.message},
                )
            trial.troubled = True
            if self._monotonic() < trial.ends:  # another try, as long as it is watched
                with self._changed:
                    self._trials.setdefault(trial.name, trial)
            else:
                self._stock.note(trial.new, on_trial=False, crashes=0)

    def _confirmed(self, trial: Trial) -> bool:
        """Whether the new version is the slower one right now, with the old one beside it under the same load."""
        inputs = trial.new.recent.all()
        if trial.old is None and inputs:
            with suppress(AgentError):  # bringing it back will say so
                trial.old = self._stock.reopen(trial.name, trial.before, trial.new.recent)
        old = trial.old
        if old is None or not inputs or not old.enter():
            return True
        try:
            beside = compare(old.session, trial.new.session, inputs, RECENT)
        except SwapRunFailed:
            return True
        finally:
            old.leave()
        slow = any(isinstance(found, SwapTooSlow) for found in faults(beside, trial.limits))
        if not slow:
            trial.since = trial.new.metrics.read()
        return slow

    def _runs(self, trial: Trial) -> bool:
        try:
            return self._stock.registry.find(trial.name) is trial.new
        except ModelNotFound:
            return False

    def _take(self, trial: Trial) -> bool:
        """End this trial, unless another thread has."""
        with self._changed:
            if self._trials.get(trial.name) is not trial:
                return False
            del self._trials[trial.name]
        return True

    def _pass(self, trial: Trial) -> None:
        self._stock.note(trial.new, on_trial=False, crashes=0)
        log.info("model_kept_after_watch", extra={"model": trial.name, "version": trial.new.package.version})
        if trial.old is not None:
            trial.old.close()
