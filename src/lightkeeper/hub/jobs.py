"""The queue of jobs in the database: compilation and packaging, one row a job, worked on by any process of the hub.

    STARTING -> INPROGRESS -> COMPLETED | FAILED
        |           `-> STOPPING -> STOPPED
        `-> STOPPED

Invariants:
- A job has at most one holder. Whoever claims it gets a new token and a lease until `due_ms`; the lease is renewed
  while the work goes on, and what is written at the end is written only for the token that still stands there.
- A job whose lease has ended, or whose retry is due, may be claimed again; each claim is an attempt. After
  `ATTEMPTS_MAXIMUM` of them it is FAILED: what kills its worker every time must not do so for ever.
- A job that has ended never changes again, and only then can it be deleted.

Leases are times of the processes' own clocks: those that share a database must agree to well within `lease_seconds`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Protocol

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from lightkeeper.errors import (
    AgentError,
    InternalError,
    JobAttemptsSpent,
    JobEnded,
    JobInterrupted,
    JobLimit,
    JobNameTaken,
    JobNotEnded,
    JobUnknown,
)
from lightkeeper.hub.tables.job import JOBS

ATTEMPTS_MAXIMUM = 5
REASON_MAXIMUM = 1024
"""Characters of a FailureReason."""
LEASE_SECONDS = 30.0


class Kind(StrEnum):
    """The kinds of jobs."""

    COMPILATION = "compilation"
    PACKAGING = "packaging"


class Status(StrEnum):
    """The API's words for how far a job is."""

    STARTING = "STARTING"
    INPROGRESS = "INPROGRESS"
    STOPPING = "STOPPING"
    STOPPED = "STOPPED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


ENDED = frozenset({Status.STOPPED, Status.COMPLETED, Status.FAILED})


@dataclass(frozen=True, slots=True)
class Artifact:
    """What a job wrote: one object, its digests in hexadecimal, and what else there is to say of it."""

    uri: str
    size_bytes: int
    sha256: str
    sha1: str
    blake2b: str
    facts: Mapping[str, str]
    """Of a compilation `inputs`, the shapes as JSON, and `optimisation`; of a package `digest`, as `verify` has it."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stands in the database. `identity` tells it from an earlier one of the same name."""

    kind: Kind
    name: str
    identity: str
    status: Status
    request: Mapping[str, Any]
    artifact: Artifact | None
    reason: str
    created_ms: int
    modified_ms: int
    started_ms: int | None
    ended_ms: int | None
    attempt: int


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to work on a job."""

    job: Job
    token: str


class Hold(StrEnum):
    """What became of a lease that was to be renewed."""

    HELD = "held"
    STOPPING = "stopping"
    LOST = "lost"


class Transactions(Protocol):
    """What a queue asks of its database; the context of a call is one too (see `Database`)."""

    def read(self) -> AbstractContextManager[Connection]:
        """Give a connection to read with."""

    def write(self, *, durable: bool = True) -> AbstractContextManager[Connection]:
        """Give a connection whose changes are kept if the block ends."""


class Jobs:
    """The queue. Any number of threads and processes may use it at once."""

    def __init__(self, database: Transactions, now_ms: Callable[[], int], lease_seconds: float = LEASE_SECONDS) -> None:
        self._database = database
        self._now_ms = now_ms
        self.lease_seconds = lease_seconds

    def create(  # noqa: PLR0913  # what a job is, and under which bounds
        self,
        kind: Kind,
        name: str,
        request: Mapping[str, Any],
        *,
        model_name: str | None = None,
        limit: int = 1000,
        also: Callable[[Connection], None] = lambda _: None,
    ) -> None:
        """Put a job into the queue, in which at most `limit` wait; `also` is done in the same transaction.

        Raises `JobNameTaken` or `JobLimit`.
        """
        now_ms = self._now_ms()
        row = {
            "kind": str(kind),
            "name": name,
            "identity": secrets.token_hex(8),
            "status": Status.STARTING,
            "model_name": model_name,
            "request": dict(request),
            "reason": "",
            "created_ms": now_ms,
            "modified_ms": now_ms,
            "attempt": 0,
            "due_ms": now_ms,
        }
        try:
            with self._database.write() as connection:
                waiting = select(func.count()).select_from(JOBS).where(JOBS.c.status.not_in(ENDED))
                if (connection.scalar(waiting) or 0) >= limit:
                    raise JobLimit(f"{limit} jobs wait already", limit=limit)
                connection.execute(insert(JOBS).values(row))
                also(connection)
        except IntegrityError as error:
            raise JobNameTaken(f"there is a {kind} job {name} already", job=name) from error

    def get(self, kind: Kind, name: str) -> Job:
        """Return a job. Raises `JobUnknown`."""
        with self._database.read() as connection:
            return job_of(_row(connection, kind, name))

    def stop(self, kind: Kind, name: str) -> None:
        """Have a job end: at once where nobody works on it, else as soon as its holder sees it.

        Raises `JobUnknown`, or `JobEnded` where there is nothing to stop.
        """
        with self._database.write() as connection:
            row = _row(connection, kind, name, lock=True)
            if row.status in ENDED:
                raise JobEnded(f"the {kind} job {name} is {row.status}", job=name, status=row.status)
            if row.status == Status.STOPPING:
                return
            if row.holder is None:
                self._end(connection, row.identity, Status.STOPPED)
            else:
                change = {"status": Status.STOPPING, "modified_ms": self._now_ms()}
                connection.execute(update(JOBS).where(JOBS.c.identity == row.identity).values(change))

    def delete(self, kind: Kind, name: str, also: Callable[[Connection], None] = lambda _: None) -> None:
        """Forget a job that has ended; what it wrote stays. `also` is done in the same transaction.

        Raises `JobUnknown` or `JobNotEnded`.
        """
        with self._database.write() as connection:
            row = _row(connection, kind, name, lock=True)
            if row.status not in ENDED:
                raise JobNotEnded(f"the {kind} job {name} is {row.status}", job=name, status=row.status)
            connection.execute(delete(JOBS).where(JOBS.c.identity == row.identity))
            also(connection)

    def claim(self) -> Claim | None:
        """Take up the job that has been due the longest, or return None."""
        with self._database.read() as connection:  # without a write where there is nothing to do
            if connection.execute(select(JOBS.c.name).where(_due(self._now_ms())).limit(1)).first() is None:
                return None
        with self._database.write() as connection:
            now_ms = self._now_ms()
            waiting = select(JOBS).where(_due(now_ms)).order_by(JOBS.c.due_ms, JOBS.c.created_ms)
            row = connection.execute(waiting.limit(1).with_for_update(skip_locked=True)).first()
            if row is None:
                return None
            if row.status == Status.STOPPING:  # its holder died before it could stop it
                self._end(connection, row.identity, Status.STOPPED)
                return None
            if row.attempt >= ATTEMPTS_MAXIMUM:
                spent = JobAttemptsSpent(f"the work was begun {row.attempt} times, and its worker died each time")
                self._end(connection, row.identity, Status.FAILED, reason=failure_reason(spent))
                return None
            token = secrets.token_hex(16)
            change = {
                "status": Status.INPROGRESS,
                "holder": token,
                "attempt": row.attempt + 1,
                "started_ms": row.started_ms or now_ms,
                "modified_ms": now_ms,
                "due_ms": self._lease_end_ms(),
            }
            connection.execute(update(JOBS).where(JOBS.c.identity == row.identity).values(change))
            return Claim(job_of(_row(connection, Kind(row.kind), row.name)), token)

    def renew(self, claim: Claim) -> Hold:
        """Keep the lease for another while, and say whether the work should go on."""
        with self._database.write(durable=False) as connection:
            row = connection.execute(select(JOBS.c.status).where(_held(claim)).with_for_update()).first()
            if row is None:
                return Hold.LOST
            connection.execute(update(JOBS).where(_held(claim)).values(due_ms=self._lease_end_ms()))
            return Hold.STOPPING if row.status == Status.STOPPING else Hold.HELD

    def complete(self, claim: Claim, artifact: Artifact) -> bool:
        """End a job that was done, even if a stop came meanwhile; return whether the lease still held."""
        return self._finish(claim, Status.COMPLETED, result=asdict(artifact))

    def fail(self, claim: Claim, reason: str) -> bool:
        """End a job that cannot be done, with its reason; return whether the lease still held."""
        return self._finish(claim, Status.FAILED, reason=reason)

    def stopped(self, claim: Claim) -> bool:
        """End a job whose stop was asked for; return whether the lease still held."""
        return self._finish(claim, Status.STOPPED)

    def give_back(self, claim: Claim, *, after_seconds: float, reason: str = "", counts: bool = True) -> bool:
        """Let a job be claimed again after a while; `counts` tells whether this was an attempt."""
        change = {
            "holder": None,
            "attempt": claim.job.attempt if counts else claim.job.attempt - 1,
            "reason": reason,
            "due_ms": self._now_ms() + round(1000 * after_seconds),
        }
        with self._database.write() as connection:
            return connection.execute(update(JOBS).where(_held(claim)).values(change)).rowcount == 1

    def _finish(self, claim: Claim, status: Status, **change: object) -> bool:
        with self._database.write() as connection:
            if connection.execute(select(JOBS.c.name).where(_held(claim)).with_for_update()).first() is None:
                return False
            self._end(connection, claim.job.identity, status, **change)
            return True

    def _end(self, connection: Connection, identity: str, status: Status, **change: object) -> None:
        now_ms = self._now_ms()
        ended = {"status": status, "holder": None, "ended_ms": now_ms, "modified_ms": now_ms, "reason": "", **change}
        connection.execute(update(JOBS).where(JOBS.c.identity == identity).values(ended))

    def _lease_end_ms(self) -> int:
        return self._now_ms() + round(1000 * self.lease_seconds)


def failure_reason(error: AgentError) -> str:
    """Return what the API says of a job that failed: whose fault it was, what happened and what to do, in its limit."""
    whose = "InternalFailure" if isinstance(error, InternalError | JobInterrupted) else "ClientError"
    next_step, reason = f"; {error.next_step}" if error.next_step else "", f" [{error.reason}]"
    room = REASON_MAXIMUM - len(whose) - len(": ") - len(next_step) - len(reason)
    message = error.message if len(error.message) <= room else f"{error.message[: room - 1]}…"
    return f"{whose}: {message}{next_step}{reason}"


def _due(now_ms: int) -> ColumnElement[bool]:
    waiting = (Status.STARTING, Status.INPROGRESS, Status.STOPPING)
    return and_(JOBS.c.status.in_(waiting), JOBS.c.due_ms <= now_ms)


def _held(claim: Claim) -> ColumnElement[bool]:
    return and_(JOBS.c.identity == claim.job.identity, JOBS.c.holder == claim.token)


def _row(connection: Connection, kind: Kind, name: str, *, lock: bool = False) -> Row[Any]:
    wanted = select(JOBS).where(JOBS.c.kind == str(kind), JOBS.c.name == name)
    row = connection.execute(wanted.with_for_update() if lock else wanted).first()
    if row is None:
        raise JobUnknown(f"there is no {kind} job {name}", job=name)
    return row


def job_of(row: Row[Any]) -> Job:
    """Return the job that a row of `JOBS` is."""
    return Job(
        kind=Kind(row.kind),
        name=row.name,
        identity=row.identity,
        status=Status(row.status),
        request=row.request,
        artifact=None if row.result is None else Artifact(**row.result),
        reason=row.reason,
        created_ms=row.created_ms,
        modified_ms=row.modified_ms,
        started_ms=row.started_ms,
        ended_ms=row.ended_ms,
        attempt=row.attempt,
    )
