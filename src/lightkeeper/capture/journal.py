"""The spool's database: one SQLite file in WAL mode, written by groups.

Whoever has something to write queues it. The first to find nobody at it leads: it writes all that is queued in one
transaction, syncs once, wakes those whose work is done, and hands the lead to the first that came meanwhile. So a
single writer waits for nobody, and many writers share a sync.

Invariants:

1. A write has happened, durably (see `Durability`), when `write` returns, and has not when it raises. One case cannot
   be known: the disk refused the end of a transaction, and then everything else; the journal is `in_doubt` until it
   has written over what may lie there, which it tries before anything else.
2. Each write is whole or not there; one that is refused does not fail its group.
3. The log beside the database stays below `LOG_LIMIT_BYTES` and one transaction.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from lightkeeper import paths
from lightkeeper.errors import AgentError, SpoolBroken, SpoolDiskFull, SpoolTooNew
from lightkeeper.system import sync_file, sync_folder

Result = TypeVar("Result")
Rows = list[tuple[Any, ...]]

GROUP_LIMIT = 256
"""The most writes of one transaction."""

PAGE_BYTES = 4096
LOG_LIMIT_BYTES = 32 * 1024 * 1024
"""Where the log is moved into the database on the writers' time; `checkpoint` should have done it long before."""

CHECKPOINT_BYTES = 1024 * 1024
"""From which size on `checkpoint` moves the log into the database."""

DAMAGED = frozenset({"SQLITE_CORRUPT", "SQLITE_NOTADB"})
"""What SQLite says of a file that is no database, or no longer one."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Durability:
    """When an accepted capture is on the disk: at once, within an interval, or at a clean stop (memory alone)."""

    interval_ms: int = 0
    in_memory: bool = False


class _Job(Generic[Result]):
    """A queued write and what became of it. `turn` is let go when it is done, or when it is its turn to lead."""

    __slots__ = ("done", "error", "result", "turn", "work")

    def __init__(self, work: Callable[[sqlite3.Connection], Result]) -> None:
        self.work = work
        self.done = False
        self.result: Result | None = None
        self.error: BaseException | None = None
        self.turn = threading.Lock()
        self.turn.acquire()


class Journal:
    """The database. Any number of threads may use it."""

    def __init__(
        self, path: Path, schema: str, version: int, durability: Durability, *, on_rollback: Callable[[], None]
    ) -> None:
        """Open the file, making it where it is missing.

        `on_rollback` is called, before anything else is written, when a transaction was undone: what its work noted
        in memory did not happen. Raises `SpoolBroken`, `SpoolDiskFull` or `SpoolTooNew`.
        """
        self._path = path
        self._log = path.with_name(f"{path.name}-wal")
        self._schema = schema
        self._version = version
        self._durability = durability
        self._on_rollback = on_rollback
        self._queue: deque[_Job[Any]] = deque()
        self._gate = threading.Lock()  # guards `_queue` and `_led`
        self._led = False
        self._writing = threading.Lock()
        self._reading = self._writing if durability.in_memory else threading.Lock()
        self._unsynced = threading.Event()
        self._in_doubt = False
        self._database: sqlite3.Connection | None = None
        self._open()

    @property
    def in_doubt(self) -> bool:
        """Whether a write that was refused for the disk's sake may turn out to have happened after a crash."""
        return self._in_doubt

    # --- writing -----------------------------------------------------------------------------------------------------

    def write(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Have work done in a transaction and return what it returns, once it is durable.

        The work may refuse with an `AgentError`, which this then raises, before it changes anything. Raises
        `SpoolDiskFull` or `SpoolBroken` where the database cannot be written.
        """
        job: _Job[Result] = _Job(work)
        with self._gate:
            self._queue.append(job)
            waits, self._led = self._led, True
        if waits:
            job.turn.acquire()
        if not job.done:
            self._lead()
        if job.error is not None:
            raise job.error
        return job.result  # type: ignore[return-value]  # done without an error: the work's own result

    def _lead(self) -> None:
        with self._writing:
            jobs = self._write_group()
        with self._gate:
            heir = self._queue[0] if self._queue else None
            self._led = heir is not None
        if heir is not None:
            heir.turn.release()
        for job in jobs:
            job.done = True
            job.turn.release()

    def _write_group(self) -> list[_Job[Any]]:
        """Write queued jobs, the first one at least, in one transaction; return them with what became of each."""
        jobs: list[_Job[Any]] = [self._queue.popleft()]
        self._unsynced.set()
        try:
            database = self._make_certain()
            database.execute("BEGIN IMMEDIATE")
            self._run(jobs[0], database)
            while self._queue and len(jobs) < GROUP_LIMIT:  # those that came meanwhile too
                jobs.append(self._queue.popleft())
                self._run(jobs[-1], database)
            database.execute("COMMIT")
        except BaseException as error:  # noqa: BLE001  # whatever it is, each job of the group raises it
            self._undo(error)
            for job in jobs:
                job.error = self._translated(error) if isinstance(error, sqlite3.Error) else error
        return jobs

    def _run(self, job: _Job[Any], database: sqlite3.Connection) -> None:
        try:
            job.result = job.work(database)
        except AgentError as error:
            job.error = error

    def _undo(self, error: BaseException) -> None:
        """Leave nothing of a failed transaction, in the file or in anybody's memory."""
        if self._database is not None:
            with suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
        self._on_rollback()
        if isinstance(error, sqlite3.Error):
            self._in_doubt = True
            with suppress(sqlite3.Error, AgentError):
                self._make_certain()

    def _make_certain(self) -> sqlite3.Connection:
        """Return a connection that works, and none of whose refused writes can turn up after a crash.

        A transaction whose last sync failed lies in the log as if it were valid. The next one is written over it.
        """
        if self._database is None:
            self._open()
        assert self._database is not None  # noqa: S101  # for the type checker: `_open` sets it or raises
        if not self._in_doubt:
            return self._database
        try:
            self._write_over(self._database)
        except sqlite3.Error as error:
            if self._durability.in_memory or _name(error).startswith("SQLITE_FULL"):
                raise
            self._let_go()
            self._open()
            self._write_over(self._database)
        self._in_doubt = False
        return self._database

    def _write_over(self, database: sqlite3.Connection) -> None:
        database.execute(f"PRAGMA user_version = {self._version}")  # its page is written even where nothing changes

    # --- reading, syncing --------------------------------------------------------------------------------------------

    def read(self, query: str, *values: object) -> Rows:
        """Return the rows of a query. Raises `SpoolBroken`."""
        with self._reading:
            if self._database is None:
                raise SpoolBroken(f"{self._path} is not open", file=self._path, cause="CLOSED")
            try:
                return self._reader.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise self._translated(error) from error

    def sync(self) -> None:
        """Make what was written durable, where `write` does not do that itself. Raises `SpoolBroken`."""
        if not self._durability.interval_ms or not self._unsynced.is_set():
            return
        self._unsynced.clear()
        try:
            with suppress(FileNotFoundError):  # no log: all of it has been moved into the synced database
                sync_file(self._log)
        except OSError as error:
            self._unsynced.set()
            raise SpoolBroken(f"{self._path} cannot be synced: {error.strerror}", file=self._path) from error

    def checkpoint(self) -> None:
        """Move the log into the database where it has grown, beside the writers and at no cost to them."""
        try:
            size_bytes = self._log.stat().st_size
        except OSError:
            return
        if size_bytes >= CHECKPOINT_BYTES:
            self.read("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self, *, save: bool = True) -> None:
        """Let go of the file; what is in memory is left in it, unless nothing came of the start."""
        with self._writing:
            if save and self._database is not None and self._durability.in_memory:
                self._save()
            self._let_go()

    # --- opening -----------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        try:
            database = self._connect_memory() if self._durability.in_memory else self._connect_file()
        except sqlite3.Error as error:
            raise self._translated(error) from error
        self._database = database

    def _connect_file(self) -> sqlite3.Connection:
        database = self._prepared(_connect(os.fspath(self._path)))
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute(f"PRAGMA synchronous = {'NORMAL' if self._durability.interval_ms else 'FULL'}")
            database.execute(f"PRAGMA wal_autocheckpoint = {LOG_LIMIT_BYTES // PAGE_BYTES}")
            database.execute(f"PRAGMA journal_size_limit = {LOG_LIMIT_BYTES}")
            self._reader = _connect(os.fspath(self._path))
            sync_folder(self._path.parent)
        except OSError as error:
            database.close()
            raise SpoolBroken(f"{self._path.parent} cannot be synced: {error.strerror}", file=self._path) from error
        except sqlite3.Error:
            database.close()
            raise
        return database

    def _connect_memory(self) -> sqlite3.Connection:
        """Return a database in memory with what the last clean stop left in the file."""
        try:
            there = paths.exists(self._path)
        except OSError as error:
            raise SpoolBroken(f"{self._path} cannot be reached: {error.strerror}", file=self._path) from error
        memory = _connect(":memory:")
        if there:
            file = _connect(os.fspath(self._path))
            try:
                file.backup(memory)
            finally:
                file.close()
        self._reader = self._prepared(memory)
        return memory

    def _save(self) -> None:
        """Leave what is in memory in the file, for the next start."""
        try:
            file = _connect(os.fspath(self._path))
            try:
                self._reader.backup(file)
            finally:
                file.close()
        except sqlite3.Error as error:
            raise self._translated(error) from error

    def _prepared(self, database: sqlite3.Connection) -> sqlite3.Connection:
        """Return a connection whose tables are there. Raises `SpoolTooNew`, and closes it where it raises."""
        try:
            ((version,),) = database.execute("PRAGMA user_version")
            self._check_version(version)
            if version < self._version:
                database.execute("PRAGMA auto_vacuum = INCREMENTAL")  # before the first table, or never
                database.executescript(self._schema)
            else:
                database.execute("SELECT COUNT(*) FROM sqlite_master").fetchall()  # says whether it is a database
        except (sqlite3.Error, SpoolTooNew):
            database.close()
            raise
        return database

    def _check_version(self, version: int) -> None:
        if version > self._version:
            raise SpoolTooNew(
                f"{self._path} was written by a later release of Lightkeeper",
                file=self._path,
                format_version=version,
                known=self._version,
            )

    def _let_go(self) -> None:
        if self._database is None:
            return
        database, self._database = self._database, None
        with nullcontext() if self._durability.in_memory else self._reading:
            for connection in (self._reader, database):
                with suppress(sqlite3.Error):
                    connection.close()

    def _translated(self, error: sqlite3.Error) -> AgentError:
        code = _name(error)
        if code.startswith("SQLITE_FULL"):
            return SpoolDiskFull(f"the disk of {self._path} is full", file=self._path)
        return SpoolBroken(f"{self._path} cannot be used: {error}", file=self._path, cause=code)


def is_damage(error: SpoolBroken) -> bool:
    """Whether the database itself is damaged, rather than the disk or the way to it."""
    return any(error.facts.get("cause", "").startswith(code) for code in DAMAGED)


def _connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA busy_timeout = 5000")
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection


def _name(error: sqlite3.Error) -> str:
    return getattr(error, "sqlite_errorname", "") or type(error).__name__
