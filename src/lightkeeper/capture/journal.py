"""The spool's database: one SQLite file in WAL mode, written by groups.

Whoever has something to write queues it and then takes the lock. The first to get the lock writes all that is queued
in one transaction and syncs once; the others find their work done. So a single writer waits for nobody, and many
writers share a sync.

Invariants: a write has happened, durably (see `Durability`), when `write` returns, and has not when it raises; each
write is whole or not there; one that fails does not fail its group.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from lightkeeper.errors import AgentError, SpoolBroken, SpoolDiskFull

Result = TypeVar("Result")
Rows = list[tuple[Any, ...]]

GROUP_LIMIT = 256
"""The most writes of one transaction."""


@dataclass(frozen=True, slots=True)
class Durability:
    """When an accepted capture is on the disk: at once, within an interval, or never (memory alone)."""

    interval_ms: int = 0
    in_memory: bool = False


class _Job(Generic[Result]):
    """A queued write and what became of it."""

    __slots__ = ("done", "error", "result", "work")

    def __init__(self, work: Callable[[sqlite3.Connection], Result]) -> None:
        self.work = work
        self.done = False
        self.result: Result | None = None
        self.error: BaseException | None = None


class Journal:
    """The database. Any number of threads may use it."""

    def __init__(self, path: Path, schema: str, durability: Durability) -> None:
        """Open the file, making it where it is missing. Raises `SpoolBroken` or `SpoolDiskFull`."""
        self._path = path
        self._queue: deque[_Job[Any]] = deque()
        self._lock = threading.Lock()
        self._unsynced = threading.Event()
        self._durability = durability
        where = ":memory:" if durability.in_memory else os.fspath(path)
        try:
            self._database = sqlite3.connect(where, isolation_level=None, check_same_thread=False)
            for setting in (
                "journal_mode=WAL",
                f"synchronous={'NORMAL' if durability.interval_ms else 'FULL'}",
                "auto_vacuum=INCREMENTAL",
                "journal_size_limit=16777216",
                "busy_timeout=5000",
            ):
                self._database.execute(f"PRAGMA {setting}")
            self._database.executescript(schema)
        except sqlite3.Error as error:
            raise _translated(error, path) from error

    def write(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Have work done in a transaction and return what it returns, once it is durable.

        The work may raise an `AgentError`, which this then raises, and changes nothing in that case. Raises
        `SpoolDiskFull` or `SpoolBroken` where the database cannot be written.
        """
        job: _Job[Result] = _Job(work)
        self._queue.append(job)
        with self._lock:
            while not job.done:
                self._write_group()
        if job.error is not None:
            raise job.error
        return job.result  # type: ignore[return-value]  # done without an error: the work's own result

    def read(self, query: str, *values: object) -> Rows:
        """Return the rows of a query."""
        with self._lock:
            try:
                return self._database.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise _translated(error, self._path) from error

    def sync(self) -> None:
        """Make what was written durable, where `write` does not do that itself."""
        if not self._unsynced.is_set():
            return
        self._unsynced.clear()
        with suppress(FileNotFoundError):  # no log: all of it has been moved into the synced database
            descriptor = os.open(f"{self._path}-wal", os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)

    def close(self) -> None:
        """Write out what is queued, and let go of the file."""
        with self._lock:
            self._database.close()

    def _write_group(self) -> None:
        """Write queued jobs in one transaction; the caller holds the lock."""
        jobs = [self._queue.popleft() for _ in range(min(len(self._queue), GROUP_LIMIT))]
        try:
            self._database.execute("BEGIN IMMEDIATE")
            for job in jobs:
                self._run(job)
            self._database.execute("COMMIT")
        except BaseException as error:  # noqa: BLE001  # whatever it is, each job of the group raises it
            with suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            for job in jobs:
                job.error = _translated(error, self._path) if isinstance(error, sqlite3.Error) else error
        if self._durability.interval_ms:
            self._unsynced.set()
        for job in jobs:
            job.done = True

    def _run(self, job: _Job[Any]) -> None:
        """Do one job's work; a refusal undoes that work alone."""
        self._database.execute("SAVEPOINT job")
        try:
            job.result = job.work(self._database)
        except AgentError as error:
            job.error = error
            self._database.execute("ROLLBACK TO job")
        self._database.execute("RELEASE job")


def _translated(error: sqlite3.Error, path: Path) -> AgentError:
    code = getattr(error, "sqlite_errorname", "") or type(error).__name__
    if code.startswith("SQLITE_FULL"):
        return SpoolDiskFull(f"the disk of {path} is full", file=path)
    return SpoolBroken(f"{path} cannot be used: {error}", file=path, cause=code)
