"""Working off the queue: claim a job, keep its lease while the work goes on, and write down how it ended.

One thread runs one job at a time; a second one, as long as the job, renews its lease.

Invariant: work goes on only while its lease surely holds. A lease that could not be renewed for most of its time counts
as lost: the worker is ended before anybody else can have claimed the job.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightkeeper.errors import AgentError, JobInterrupted, ResourcesExhausted, Unexpected, WorkWithdrawn
from lightkeeper.hub.jobs import ATTEMPTS_MAXIMUM, Claim, Hold, Jobs, failure_reason
from lightkeeper.hub.jobwork import Workshop
from lightkeeper.modelpackage.staging import Staging

POLL_SECONDS = 0.5
RENEWALS = 6
"""How often a lease is renewed while it lasts."""
SURE_SHARE = 0.7
"""The share of a lease after which it no longer counts as held without a renewal."""
RETRY_SECONDS = (1.0, 5.0, 20.0, 60.0)
"""Waits between the attempts at a job."""

logger = logging.getLogger(__name__)


class JobRunner:
    """Runs jobs until it is told to stop. Any number of them, in any number of processes, share one queue."""

    def __init__(self, workshop: Workshop, folder: Path, *, poll_seconds: float = POLL_SECONDS) -> None:
        """Work in `folder`, from which what dead processes left is removed. Raises `StateUnusable`."""
        self._workshop = workshop
        self._jobs: Jobs = workshop.jobs
        self._staging = Staging(folder, workshop.allowance.limits)
        self._poll_seconds = poll_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self.run, args=(self._stop,), name="job-runner")

    def start(self) -> None:
        """Work off the queue in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; a job that is under way is given back, and its worker is ended."""
        self._stop.set()
        self._thread.join()

    def run(self, stop: threading.Event) -> None:
        """Work off the queue until `stop` is set; a job that is under way is then given back."""
        while not stop.is_set():
            try:
                worked = self.run_one(stop)
            except Exception:
                logger.exception("job_queue_failed")  # the database is away: what is claimed comes back by its lease
                worked = False
            if not worked:
                stop.wait(self._poll_seconds)

    def run_one(self, stop: threading.Event) -> bool:
        """Do the job that has been due the longest; return whether there was one."""
        claim = self._jobs.claim()
        if claim is None:
            return False
        facts = {"kind": claim.job.kind, "job": claim.job.name, "attempt": claim.job.attempt}
        logger.info("job_begun", extra=facts)
        began = time.monotonic()
        with _kept(self._jobs, claim, stop) as lease:
            try:
                with self._staging.copy(lambda _: None) as copy:
                    artifact = self._workshop.work(claim.job, copy.folder, lease.check)
                ended = "completed" if self._jobs.complete(claim, artifact) else "lost"
            except WorkWithdrawn:
                ended = self._withdraw(claim, lease, stop)
            except AgentError as error:
                ended = self._refuse(claim, error)
            except Exception as error:
                logger.exception("job_failed_unexpectedly", extra=facts)
                ended = self._refuse(claim, Unexpected(f"the hub's own fault: {type(error).__name__}"))
        logger.info("job_ended", extra={**facts, "how": ended, "seconds": round(time.monotonic() - began, 3)})
        return True

    def _withdraw(self, claim: Claim, lease: _Lease, stop: threading.Event) -> str:
        if lease.hold is Hold.STOPPING:
            return "stopped" if self._jobs.stopped(claim) else "lost"
        if stop.is_set() and lease.hold is Hold.HELD:
            return "given back" if self._jobs.give_back(claim, after_seconds=0, counts=False) else "lost"
        logger.warning("job_lease_lost", extra={"kind": claim.job.kind, "job": claim.job.name})
        return "lost"

    def _refuse(self, claim: Claim, error: AgentError) -> str:
        passing = isinstance(error, JobInterrupted | ResourcesExhausted | Unexpected)
        facts = {"kind": claim.job.kind, "job": claim.job.name, "reason": error.reason, "error": error.message}
        if passing and claim.job.attempt < ATTEMPTS_MAXIMUM:
            seconds = RETRY_SECONDS[min(claim.job.attempt, len(RETRY_SECONDS)) - 1] * random.uniform(0.8, 1.2)  # noqa: S311  # spreads retries
            logger.warning("job_attempt_failed", extra={**facts, "again_seconds": round(seconds, 1)})
            self._jobs.give_back(claim, after_seconds=seconds, reason=failure_reason(error))
            return "to be tried again"
        logger.warning("job_failed", extra=facts)
        return "failed" if self._jobs.fail(claim, failure_reason(error)) else "lost"


class _Lease:
    """A claim that is being renewed, and whether its work should go on."""

    def __init__(self, jobs: Jobs, claim: Claim, stop: threading.Event) -> None:
        self.hold = Hold.HELD
        self._jobs = jobs
        self._claim = claim
        self._stop = stop
        self._sure_until = time.monotonic() + SURE_SHARE * jobs.lease_seconds

    def check(self) -> None:
        """Raise `WorkWithdrawn` where the work must end."""
        if self.hold is Hold.HELD and time.monotonic() > self._sure_until:
            self.hold = Hold.LOST
        if self.hold is not Hold.HELD or self._stop.is_set():
            raise WorkWithdrawn(f"the work was withdrawn: {self.hold}")

    def keep(self, done: threading.Event) -> None:
        """Renew the lease until the work is done, or the lease is no longer held."""
        while self.hold is Hold.HELD and not done.wait(self._jobs.lease_seconds / RENEWALS):
            asked = time.monotonic()
            try:
                hold = self._jobs.renew(self._claim)
            except Exception:  # a database that is away may be back before the lease ends
                logger.warning("job_lease_not_renewed", extra={"job": self._claim.job.name}, exc_info=True)
                continue
            self._sure_until = asked + SURE_SHARE * self._jobs.lease_seconds
            self.hold = hold


@contextmanager
def _kept(jobs: Jobs, claim: Claim, stop: threading.Event) -> Iterator[_Lease]:
    lease = _Lease(jobs, claim, stop)
    done = threading.Event()
    keeper = threading.Thread(target=lease.keep, args=(done,), name=f"lease-{claim.job.name}", daemon=True)
    keeper.start()
    try:
        yield lease
    finally:
        done.set()
        keeper.join()
