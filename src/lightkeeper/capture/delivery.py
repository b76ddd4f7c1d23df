"""The delivery: one thread that closes batches when the push period ends, and brings them where they belong.

Batches go in the order they were closed, one at a time. A batch that fails waits for its back-off (`capture/retry.py`),
and the ones behind it wait with it, unless it turns out that the fault is its own.

Invariants: a batch leaves the spool only after its sink has given a receipt or after it lies in quarantine; the thread
sleeps until something is due and never polls; a destination that goes away or comes back is one log line each; `stop`
needs no network, and whatever is under way is left in the spool.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from math import inf

from lightkeeper.capture.ledger import Batch, State
from lightkeeper.capture.reach import Reach
from lightkeeper.capture.retry import SLOW, Quarantine, Retry, decide, is_suspect
from lightkeeper.capture.sink import Sink
from lightkeeper.capture.spool import Spool
from lightkeeper.capture.undelivered import Undelivered
from lightkeeper.errors import AgentError, DeliveryInterrupted, Unexpected

log = logging.getLogger(__name__)


class Delivery:
    """Closes and delivers. `run` is the thread's work; the other methods may be called from any thread."""

    def __init__(  # noqa: PLR0913  # collaborators, each of which a test replaces
        self,
        spool: Spool,
        sink: Sink,
        *,
        undelivered: Undelivered,
        push_period_seconds: float,
        stopping: threading.Event,
        now_ns: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """Take the spool and its destination. `stopping` is also what the sink watches."""
        self.counts: Counter[str] = Counter(delivered=0, failed=0, quarantined=0)
        self._spool = spool
        self._sink = sink
        self._undelivered = undelivered
        self._push_period_seconds = push_period_seconds
        self._stopping = stopping
        self._now_ns = now_ns
        self._monotonic = monotonic
        self._draw = draw
        self._changed = threading.Condition()
        self._woken = False
        self._idle = False
        self._rounds = 0
        self._flushes = 0
        self._head = 0
        self._attempts = 0
        self._retry_at = -inf
        self._reach = Reach("captures", monotonic=monotonic)

    # --- from other threads ------------------------------------------------------------------------------------------

    def accepted(self, batch: Batch | None) -> None:
        """Say that the spool took a capture in, and which batch that closed, if it did."""
        if batch is not None or self._idle:
            self._wake()

    def flush(self, timeout_seconds: float) -> bool:
        """Close what is open, try everything that waits now, and return whether all of it is done within the time."""
        self._spool.close_batch()
        _, last = self._spool.waiting_range()
        deadline = self._monotonic() + timeout_seconds
        with self._changed:
            self._flushes += 1
            self._retry_at = -inf
        self._wake()
        while not self._is_done(last):
            with self._changed:
                seen = self._rounds
                left_seconds = deadline - self._monotonic()
                if left_seconds <= 0 or self._stopping.is_set():
                    return False
                self._changed.wait_for(partial(self._moved, seen), left_seconds)
        return True

    def stop(self) -> None:
        """Have `run` end as soon as it can."""
        self._stopping.set()
        self._wake()

    def _wake(self) -> None:
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def _moved(self, seen: int) -> bool:
        return self._rounds != seen or self._stopping.is_set()

    def _is_done(self, last: int) -> bool:
        oldest, _ = self._spool.waiting_range()
        return oldest == 0 or oldest > last

    # --- the thread --------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Deliver until `stop`."""
        while not self._stopping.is_set():
            wait_seconds = self.step()
            with self._changed:
                self._changed.wait_for(
                    lambda: self._woken or self._stopping.is_set(), None if wait_seconds == inf else wait_seconds
                )
                self._woken = self._idle = False

    def step(self) -> float:
        """Do what is due, and return after how many seconds something else will be."""
        try:
            due_seconds = self._close_what_is_due()
            left_seconds = self._retry_at - self._monotonic()
            if left_seconds > 0:
                return min(due_seconds, left_seconds)
            batch = self._spool.next_batch()
            if batch is None:
                return due_seconds
            self._deliver(batch)
        except DeliveryInterrupted:  # no log: the agent stops
            return 0
        except AgentError as error:  # the spool's own
            self._put_off(error)
        except Exception:
            log.exception("delivery_failed")
            self._put_off(Unexpected("the delivery failed"))
        return 0

    def _close_what_is_due(self) -> float:
        """Close the open captures where their period has ended, and return in how many seconds it will for others."""
        period_ms = round(self._push_period_seconds * 1000)
        self._idle = True  # before the look: whoever comes after it, wakes the thread
        while (since_ms := self._spool.open_since_ms()) is not None:
            age_ms = self._now_ns() // 1_000_000 - since_ms
            if 0 <= age_ms < period_ms:
                self._idle = False
                return (period_ms - age_ms) / 1000
            self._spool.close_batch(older_than_ms=period_ms)
        return inf

    def _deliver(self, batch: Batch) -> None:
        """Try the oldest batch, and where that fails decide what becomes of it."""
        if batch.seq != self._head:
            self._head, self._attempts = batch.seq, 0
        flushes = self._flushes
        fault = self._try(batch)
        if fault is not None:
            self._attempts += 1
            others_pass = is_suspect(fault, self._attempts) and self._another_passes(batch)
            decision = decide(fault, self._attempts, others_pass=others_pass, draw=self._draw())
            if isinstance(decision, Quarantine):
                self._set_aside(batch, fault)
            else:
                self._spool.release(batch)
                self._wait(fault, decision.after_seconds)
        with self._changed:
            if self._flushes != flushes:  # asked for while it was under way
                self._retry_at = -inf
            self._rounds += 1
            self._changed.notify_all()

    def _try(self, batch: Batch) -> AgentError | None:
        """Deliver a batch, and return why it could not be, or None."""
        try:
            captures = self._spool.captures_of(batch)
            if captures:
                self._spool.settle(batch, self._sink.deliver(batch, captures))
            else:  # they were thinned or have expired since
                self._spool.give_up(batch, State.EXPIRED, "EMPTY")
        except DeliveryInterrupted:
            raise
        except AgentError as error:
            self.counts["failed"] += 1
            return error
        except Exception as error:
            self.counts["failed"] += 1
            log.exception("delivery_failed", extra={"batch": batch.name})
            return Unexpected("the delivery failed", cause=type(error).__name__)
        self.counts["delivered"] += 1
        self._retry_at = -inf
        log.debug("batch_delivered", extra={"batch": batch.name, "captures": len(captures)})
        self._reach.back()
        return None

    def _another_passes(self, batch: Batch) -> bool:
        other = self._spool.next_batch(after=batch.seq)
        return other is not None and self._try(other) is None

    def _set_aside(self, batch: Batch, fault: AgentError) -> None:
        """Quarantine a batch."""
        captures = self._spool.captures_of(batch)
        cause_file = self._undelivered.keep(batch, captures, fault, now_ns=self._now_ns())
        self._spool.give_up(batch, State.QUARANTINED, f"{fault.reason}: {fault.message}")
        self.counts["quarantined"] += 1
        log.warning(
            "batch_quarantined",
            extra={
                "batch": batch.name,
                "captures": len(captures),
                "reason": fault.reason,
                "problem": fault.message,
                "cause_file": cause_file,
                "next_step": fault.next_step,
            },
        )

    def _put_off(self, fault: AgentError) -> None:
        """Back off after a fault that is no batch's."""
        self._attempts += 1
        decision = decide(fault, self._attempts, others_pass=False, draw=self._draw())
        self._wait(fault, decision.after_seconds if isinstance(decision, Retry) else SLOW.most_seconds)

    def _wait(self, fault: AgentError, seconds: float) -> None:
        """Try nothing for a while, and say so where that is new."""
        self._retry_at = self._monotonic() + seconds
        self._reach.away(fault, retry_seconds=seconds)
