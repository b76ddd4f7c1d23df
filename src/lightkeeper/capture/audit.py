"""The ledger, looked at from outside: read-only, also while the agent runs, and held against the files it names.

The audit proves that accepted = the sum over the states + what was forgotten, that weights add up, and that payload
files and rows name each other. A file without a row counts only when it stays so: an accept or a delivery may be under
way between the look at the folder and the look at the ledger.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightkeeper import paths
from lightkeeper.capture.ledger import BATCH_OF, FORMAT_VERSION, State, state_in
from lightkeeper.capture.recovery import DATABASE, PAYLOADS
from lightkeeper.errors import LedgerMissing, LedgerUnreadable, SpoolBroken, SpoolTooNew
from lightkeeper.system import file_url

SETTLE_SECONDS = 1.0
"""How long a file may be without its row, or a row without its file, before it counts."""

_ENTRIES = f"""
    SELECT captures.id, captures.state, accepted_ms, captures.ended_ms, weight, captures.reason,
        b.seq, b.name, b.root, b.key, b.size_bytes, b.etag, b.sha256
    FROM captures LEFT JOIN batches b ON b.seq = {BATCH_OF} WHERE """  # noqa: S608  # our own words


@dataclass(frozen=True, slots=True)
class BatchWaiting:
    """A batch that waits for its delivery."""

    name: str
    root: str
    closed_ms: int
    captures: int
    held_bytes: int


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found. `faults` says in words what does not add up; without any, nothing is lost or twice."""

    accepted: int
    states: dict[State, int]
    forgotten: dict[State, int]
    waiting: tuple[BatchWaiting, ...]
    faults: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """What the ledger says of one capture. Batch, key and checksums are None before there are any."""

    id: str
    state: State
    accepted_ms: int
    ended_ms: int | None
    weight: int
    reason: str | None
    batch: str | None
    root: str | None
    key: str | None
    size_bytes: int | None
    etag: str | None
    sha256: str | None


class LedgerReader:
    """Reads the ledger in a spool's folder."""

    def __init__(self, folder: Path, *, sleep: Callable[[float], None] = time.sleep) -> None:
        """Take the spool's folder. Raises `LedgerMissing` or `LedgerUnreadable`."""
        self._path = folder / DATABASE
        self._payloads = folder / PAYLOADS
        self._sleep = sleep
        try:
            if not paths.is_file(self._path):
                raise LedgerMissing(f"there is no ledger in {folder}", folder=folder)
        except OSError as error:
            raise LedgerUnreadable(f"{self._path} cannot be reached: {error.strerror}", file=self._path) from error

    def audit(self) -> Audit:
        """Count everything. Raises `SpoolBroken` where the ledger cannot be read."""
        found = self._files_found()
        with self._snapshot() as database:
            ((accepted,),) = database.execute(
                "SELECT COALESCE((SELECT seq FROM sqlite_sequence WHERE name = 'captures'), 0)"
            )
            states = dict.fromkeys(State, 0)
            for number, in_batch, count in database.execute(
                "SELECT state, seq <= (SELECT COALESCE(MAX(last), 0) FROM batches), COUNT(*) FROM captures"
                " GROUP BY 1, 2"
            ):
                states[state_in(number, 1 if in_batch else None)] += count
            meta = dict(database.execute("SELECT name, value FROM meta WHERE name NOT LIKE 'note:%'"))
            waiting = tuple(
                BatchWaiting(*row)
                for row in database.execute(
                    "SELECT name, root, closed_ms, captures, held_bytes FROM batches WHERE state = 1 ORDER BY seq"
                )
            )
            faults = [*_sums(database, accepted, states, meta), *_integrity(database)]
        forgotten = {state: meta.get(f"forgotten_{state.name}", 0) for state in State if state.is_final}
        return Audit(accepted, states, forgotten, waiting, (*faults, *self._stray(found)))

    def entry(self, capture_id: str) -> Entry | None:
        """Return what the ledger says of a capture, or None where it does not know it."""
        found = list(self._entries("captures.id = ?", capture_id))
        return found[0] if found else None

    def entries(self, states: frozenset[State], limit: int) -> list[Entry]:
        """Return the newest captures of some states."""
        found: list[Entry] = []
        for entry in self._entries("1 ORDER BY captures.seq DESC"):
            if entry.state in states:
                found.append(entry)
                if len(found) == limit:
                    break
        return found

    def _entries(self, which: str, *values: object) -> Iterator[Entry]:
        with self._snapshot() as database:
            for capture_id, number, accepted_ms, ended_ms, weight, reason, batch, *about in database.execute(
                _ENTRIES + which, values
            ):
                state = state_in(number, batch)
                # a thinned one's number may fall into a batch, but it is not in there
                delivery = [None] * len(about) if state is State.THINNED else about
                yield Entry(capture_id, state, accepted_ms, ended_ms, weight, reason, *delivery)

    def _files_found(self) -> dict[str, int]:
        try:
            with os.scandir(self._payloads) as items:
                return {item.name: item.stat(follow_symlinks=False).st_size for item in items}
        except FileNotFoundError:
            return {}

    def _stray(self, found: dict[str, int]) -> list[str]:
        """Return what is wrong between rows and files, after a second look at whatever seems so."""
        with self._snapshot() as database:
            rows = _payload_rows(database)
        if found == rows:
            return []
        self._sleep(SETTLE_SECONDS)
        later = self._files_found()
        with self._snapshot() as database:
            still = _payload_rows(database)
        faults = [
            f"payload file {name} is missing" if name not in later else f"payload file {name} has another size"
            for name, size_bytes in sorted(still.items())
            if rows.get(name) == size_bytes and later.get(name) != size_bytes
        ]
        orphans = sorted(found.keys() & later.keys() - rows.keys() - still.keys())
        return [*faults, *(f"no capture names the payload file {name}" for name in orphans)]

    @contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        """Give a view of the ledger that does not change while it is looked at."""
        try:
            database = sqlite3.connect(f"{file_url(self._path.absolute())}?mode=ro", uri=True, isolation_level=None)
            try:
                database.execute("PRAGMA busy_timeout = 5000")
                ((version,),) = database.execute("PRAGMA user_version")
                if version > FORMAT_VERSION:
                    raise SpoolTooNew(
                        f"{self._path} was written by a later release", file=self._path, format_version=version
                    )
                database.execute("BEGIN")
                yield database
            finally:
                database.close()
        except sqlite3.Error as error:
            cause = getattr(error, "sqlite_errorname", type(error).__name__)
            raise SpoolBroken(f"{self._path} cannot be read: {error}", file=self._path, cause=cause) from error


def _payload_rows(database: sqlite3.Connection) -> dict[str, int]:
    return dict(database.execute("SELECT file, size_bytes FROM payloads"))


def _sums(database: sqlite3.Connection, accepted: int, states: dict[State, int], meta: dict[str, Any]) -> Iterator[str]:
    """Say which sums do not come out."""
    known = sum(states.values())
    forgotten = sum(meta.get(f"forgotten_{state.name}", 0) for state in State)
    if known + forgotten != accepted:
        yield f"{accepted} captures were accepted, but {known} are known and {forgotten} forgotten"
    ((weight,),) = database.execute("SELECT COALESCE(SUM(weight), 0) FROM captures WHERE state <> ?", (State.THINNED,))
    stands_for = weight + sum(meta.get(name, 0) for name in ("forgotten_weight", "thin_carry", "thin_passing"))
    if stands_for != accepted:
        yield f"{accepted} captures were accepted, but those that stayed stand for {stands_for}"
    for name, counted, found in database.execute(
        "SELECT b.name, b.captures, (SELECT COUNT(*) FROM captures c WHERE c.seq BETWEEN b.first AND b.last"
        " AND c.state = 0) AS found FROM batches b WHERE b.state = 1 AND b.captures <> found"
    ):
        yield f"batch {name} counts {counted} captures and has {found}"
    ((lost,),) = database.execute(
        "SELECT COUNT(*) FROM captures c WHERE c.state = 0 AND c.seq <= (SELECT COALESCE(MAX(last), 0) FROM batches)"
        " AND NOT EXISTS (SELECT 1 FROM batches b WHERE b.state = 1 AND c.seq BETWEEN b.first AND b.last)"
    )
    if lost:
        yield f"{lost} captures wait in no batch"


def _integrity(database: sqlite3.Connection) -> Iterator[str]:
    for (finding,) in database.execute("PRAGMA integrity_check(10)"):
        if finding != "ok":
            yield f"the database is damaged: {finding}"
