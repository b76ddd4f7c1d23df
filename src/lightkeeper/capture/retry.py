"""What to do after a failed delivery: the one place that decides it, without a clock, a network or a state.

The table is docs/spec/capture.md, section 3. A batch is given up (quarantined) only where waiting cannot help: it can
no longer be read, the destination says that it will never take it, or the destination refuses it again and again while
it takes another batch. Everything else is tried again for as long as it takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lightkeeper.backoff import Backoff
from lightkeeper.errors import (
    AgentError,
    CertificateFilesUnusable,
    ClockWrong,
    DestinationBusy,
    DestinationDenied,
    DestinationFaulty,
    DestinationFull,
    DestinationMissing,
    DestinationRefusing,
    DestinationUnreachable,
    DestinationUntrusted,
    ObjectRefused,
    PayloadLost,
    RecordDamaged,
    SpoolBroken,
    SpoolDiskFull,
    TokenKeyUnusable,
    TokenToolsMissing,
    UploadBudgetSpent,
)

SUSPECT_AFTER_ATTEMPTS = 3
"""After so many refusals of one batch another batch is tried, to see which of the two it is: batch or destination."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Try the batch again after so many seconds."""

    after_seconds: float


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Take the batch out of the way, with this reason."""

    reason: str


QUICK = Backoff(first_seconds=1, most_seconds=300)
"""For what passes by itself: networks, busy services."""

SLOW = Backoff(first_seconds=30, most_seconds=900)
"""For what a person or another program must put right: credentials, buckets, clocks."""

BACKOFFS: Final[dict[type[AgentError], Backoff]] = {
    DestinationUnreachable: QUICK,
    DestinationBusy: QUICK,
    DestinationFull: QUICK,
    DestinationFaulty: QUICK,
    SpoolBroken: QUICK,
    SpoolDiskFull: QUICK,
    CertificateFilesUnusable: SLOW,
    DestinationDenied: SLOW,
    DestinationMissing: SLOW,
    DestinationRefusing: SLOW,
    DestinationUntrusted: SLOW,
    ClockWrong: SLOW,
    TokenKeyUnusable: SLOW,
    TokenToolsMissing: SLOW,
}
"""The wait after each fault; what is not listed is nothing anybody foresaw, and waits slowly."""

HOPELESS: Final = (ObjectRefused, PayloadLost, RecordDamaged)
"""Faults of the batch itself."""


def decide(fault: AgentError, attempts: int, *, others_pass: bool, draw: float) -> Retry | Quarantine:
    """Decide what becomes of a batch that has failed `attempts` times, the last time by `fault`.

    `others_pass` says that another batch got through after the last failure. `draw` is a random number from 0 to 1.
    """
    if isinstance(fault, HOPELESS) or (is_suspect(fault, attempts) and others_pass):
        return Quarantine(fault.reason)
    if isinstance(fault, UploadBudgetSpent):
        return Retry(fault.wait_seconds + QUICK.wait_seconds(1, draw))
    return Retry(BACKOFFS.get(type(fault), SLOW).wait_seconds(attempts, draw))


def is_suspect(fault: AgentError, attempts: int) -> bool:
    """Whether a fault may well be the batch's own, so that trying another batch would tell."""
    foreseen = isinstance(fault, UploadBudgetSpent) or type(fault) in BACKOFFS
    return attempts >= SUSPECT_AFTER_ATTEMPTS and (isinstance(fault, DestinationRefusing) or not foreseen)
