"""The rollout: what becomes of a stage and of its devices, from what is known now and a clock. No I/O.

`advance` looks at a stage and says what to do next; `asked`, `answered` and `started_again` say where a device stands
after it did something. `ticker.py` reads and writes what these functions take and return, and nothing decides beside
them.

    WAITING --offer--> OFFERED --asks--> TAKEN --answers--> SUCCEEDED | FAILED
       ^                  | time-out        | time-out            | the stage fails and rolls back
       '---asks again-- ABSENT           SILENT --answers--> ... REVERTING --answers--> REVERTED

To ask is the sign of life that counts. A device that waits and asks takes the place of one that was offered it and has
not asked, which waits again: no device that is there is sent away for one that may not be.

Invariants:
- At most a batch of devices is in flight: has an offer, or took it and has neither answered nor run out of time. A
  place that becomes free is given to the next device, so that one slow device holds one place and not the batch.
- From the moment a stage has failed, stopped or is stopping, no device gets the new version that had not taken it.
- An absent device (never came for its offer) counts as neither failed nor in flight. A silent one (took it and fell
  silent) does not count as failed either, but where most of those that took a version fall silent, the stage fails:
  a version that takes devices down sends no results.
- A device's first final answer counts; SUCCEEDED and FAILED are left only by a rollback or by starting again.
- Every device is counted once: as a success, as pending or as failed; but for those a later plan took over.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

MIN_SILENT = 2
"""Of fewer silent devices nothing is concluded: one lost connection is no pattern."""


class StageStatus(StrEnum):
    """Where a stage stands, in the API's words."""

    READY = "READYTODEPLOY"
    STARTING = "STARTING"
    IN_PROGRESS = "INPROGRESS"
    DEPLOYED = "DEPLOYED"
    FAILED = "FAILED"
    STOPPING = "STOPPING"
    STOPPED = "STOPPED"

    @property
    def is_active(self) -> bool:
        """Whether the stage may still give devices something, so that it can't be deleted."""
        return self in {StageStatus.STARTING, StageStatus.IN_PROGRESS, StageStatus.STOPPING}

    @property
    def may_start(self) -> bool:
        """Whether the stage can be started, for the first time or again."""
        return self in {StageStatus.READY, StageStatus.STOPPED, StageStatus.FAILED}


class Progress(StrEnum):
    """Where a device of a stage stands."""

    WAITING = "WAITING"
    OFFERED = "OFFERED"
    TAKEN = "TAKEN"
    ABSENT = "ABSENT"
    SILENT = "SILENT"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    REVERTING = "REVERTING"
    REVERTED = "REVERTED"
    SUPERSEDED = "SUPERSEDED"


IN_FLIGHT = frozenset({Progress.OFFERED, Progress.TAKEN})
OPEN = IN_FLIGHT | {Progress.WAITING, Progress.ABSENT, Progress.SILENT}
"""No final answer yet, and one is still wanted."""
HAS_TAKEN = frozenset({Progress.TAKEN, Progress.SILENT, Progress.SUCCEEDED, Progress.FAILED})
TO_REVERT = frozenset({Progress.TAKEN, Progress.SILENT, Progress.SUCCEEDED})
"""Has the new version, or may have; who failed went back by itself."""
TRIED_AGAIN = frozenset(Progress) - IN_FLIGHT - {Progress.WAITING, Progress.SUCCEEDED}
"""Gets another turn when a stage is started again."""

DEVICE_STATUS = {
    Progress.WAITING: "READYTODEPLOY",
    Progress.OFFERED: "READYTODEPLOY",
    Progress.ABSENT: "READYTODEPLOY",
    Progress.TAKEN: "INPROGRESS",
    Progress.SILENT: "INPROGRESS",
    Progress.SUCCEEDED: "DEPLOYED",
    Progress.FAILED: "FAILED",
    Progress.REVERTING: "STOPPING",
    Progress.REVERTED: "STOPPED",
    Progress.SUPERSEDED: "STOPPED",
}
"""The API's word for each."""


@dataclass(frozen=True, slots=True)
class Amount:
    """So many devices, or a share of them. As text: `20` is a number of devices, `0.1` a tenth of them."""

    number: int | None = None
    share: float | None = None

    @classmethod
    def parse(cls, text: str) -> Amount:
        """Return what a text says. Raises `ValueError` unless it is a whole number from 1 or a share up to 1.0."""
        if re.fullmatch(r"[1-9][0-9]{0,6}", text):
            return cls(number=int(text))
        if re.fullmatch(r"[01]\.[0-9]{1,6}", text) and 0 < float(text) <= 1:
            return cls(share=float(text))
        raise ValueError("a whole number of devices from 1, or a share with a point from 0.000001 to 1.0")

    def of(self, total: int) -> int:
        """Return how many of `total` devices that is: at least 1, at most all."""
        wanted = math.ceil((self.share or 0) * total - 1e-9) if self.number is None else self.number
        return max(1, min(wanted, total))


@dataclass(frozen=True, slots=True)
class RolloutSettings:
    """How a stage goes about it. `rolls_back` is the API's ROLLBACK_ON_FAILURE."""

    batch: Amount = Amount(share=0.1)
    failures: Amount = Amount(share=0.1)
    silence: Amount = Amount(share=0.5)
    device_timeout_ms: int = 3_600_000
    rolls_back: bool = True


@dataclass(frozen=True, slots=True)
class InFlight:
    """A device that holds a place of the batch, and since when: the offer's time, or the time it was taken."""

    device: str
    progress: Progress
    since_ms: int


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage as `advance` sees it.

    `counts` has every device, those in flight too; of `in_flight` those are enough that have run out of time.
    """

    status: StageStatus
    settings: RolloutSettings
    counts: Mapping[Progress, int]
    in_flight: tuple[InFlight, ...] = ()

    def count(self, *progress: Progress) -> int:
        """Return how many devices stand there."""
        return sum(self.counts.get(one, 0) for one in progress)

    @property
    def total(self) -> int:
        """How many devices the stage has, those that a later plan took over left out."""
        return sum(self.counts.values()) - self.count(Progress.SUPERSEDED)

    @property
    def room(self) -> int:
        """How many more devices may be in flight."""
        if self.status is not StageStatus.IN_PROGRESS:
            return 0
        return max(0, self.settings.batch.of(self.total) - self.count(*IN_FLIGHT))

    @property
    def has_place(self) -> bool:
        """Whether a device that asks can be given a place: a free one, or one whose device has not asked."""
        return self.room > 0 or self.count(Progress.OFFERED) > 0


@dataclass(frozen=True, slots=True)
class Step:
    """What to do next, in this order.

    `absent` and `silent` are devices that ran out of time. `withdraw` takes back the offers that nobody came for.
    `revert` sends every device of `TO_REVERT` back to what it had. `offer` devices that wait get an offer.
    `message` says why the status changes; empty where it does not.
    """

    status: StageStatus
    message: str = ""
    absent: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    withdraw: bool = False
    revert: bool = False
    offer: int = 0


@dataclass(frozen=True, slots=True)
class Counters:
    """The API's three numbers."""

    success: int = 0
    pending: int = 0
    failed: int = 0

    @classmethod
    def of(cls, counts: Mapping[Progress, int]) -> Counters:
        """Count devices; those that a later plan took over are in none of the three."""
        success, failed = counts.get(Progress.SUCCEEDED, 0), sum(counts.get(one, 0) for one in _FAILED)
        everybody = sum(counts.values()) - counts.get(Progress.SUPERSEDED, 0)
        return cls(success, everybody - success - failed, failed)

    def __add__(self, other: Counters) -> Counters:
        """Return the sum of two stages."""
        return Counters(self.success + other.success, self.pending + other.pending, self.failed + other.failed)


_FAILED = (Progress.FAILED, Progress.REVERTED)


def advance(stage: Stage, now_ms: int) -> Step:
    """Return what a stage needs now; applying a step and asking again at the same time needs nothing more."""
    if stage.status is StageStatus.FAILED:
        revert = stage.settings.rolls_back and stage.count(*TO_REVERT) > 0
        return Step(stage.status, withdraw=stage.count(Progress.OFFERED) > 0, revert=revert)
    if stage.status not in {StageStatus.IN_PROGRESS, StageStatus.STOPPING}:
        return Step(stage.status)
    late = [one for one in stage.in_flight if now_ms - one.since_ms >= stage.settings.device_timeout_ms]
    absent = tuple(one.device for one in late if one.progress is Progress.OFFERED)
    silent = tuple(one.device for one in late if one.progress is Progress.TAKEN)
    reason = _failure(stage, len(silent))
    if reason:
        revert = stage.settings.rolls_back
        step = "rolling back" if revert else "stopped where it is"
        return Step(StageStatus.FAILED, f"{reason}: {step}", absent=absent, silent=silent, withdraw=True, revert=revert)
    if stage.status is StageStatus.STOPPING:
        stopped = stage.count(Progress.TAKEN) == len(silent)
        status = StageStatus.STOPPED if stopped else StageStatus.STOPPING
        return Step(
            status, "stopped by StopEdgeDeploymentStage" if stopped else "", absent=absent, silent=silent, withdraw=True
        )
    if stage.count(*OPEN) == 0:
        return Step(StageStatus.DEPLOYED, _finished(stage))
    room = stage.room + len(absent) + len(silent)
    return Step(stage.status, absent=absent, silent=silent, offer=min(stage.count(Progress.WAITING), room))


def _failure(stage: Stage, newly_silent: int) -> str:
    """Return why the stage fails, or an empty text."""
    failed, limit = stage.count(Progress.FAILED), stage.settings.failures.of(stage.total)
    if failed >= limit:
        return f"{failed} of {stage.total} devices failed, the threshold is {limit}"
    silent, taken = stage.count(Progress.SILENT) + newly_silent, stage.count(*HAS_TAKEN)
    if silent >= MIN_SILENT and silent >= stage.settings.silence.of(taken):
        return f"{silent} of the {taken} devices that took the deployment fell silent"
    return ""


def _finished(stage: Stage) -> str:
    """Return what a stage that reached its end says."""
    if stage.total == 0:
        return "the stage has no device"
    failed = stage.count(Progress.FAILED)
    return f"{failed} of {stage.total} devices failed, below the threshold" if failed else "every device has it"


def asked(progress: Progress, *, is_open: bool, has_place: bool) -> Progress:
    """Return where a device stands after it asked for its deployments.

    `is_open` is whether its stage is in progress, `has_place` is `Stage.has_place`. A device without an offer takes the
    place of the last one that has and did not ask, which goes back to WAITING; where there is none, a free one.
    """
    if not is_open or progress not in {Progress.WAITING, Progress.OFFERED, Progress.ABSENT}:
        return progress
    return Progress.TAKEN if progress is Progress.OFFERED or has_place else Progress.WAITING


def answered(progress: Progress, *, succeeded: bool) -> Progress:
    """Return where a device stands after a final answer about the new version it took."""
    if progress in {Progress.TAKEN, Progress.SILENT}:
        return Progress.SUCCEEDED if succeeded else Progress.FAILED
    return progress


def started_again(progress: Progress) -> Progress:
    """Return where a device stands when its stopped or failed stage is started again."""
    return Progress.WAITING if progress in TRIED_AGAIN else progress
