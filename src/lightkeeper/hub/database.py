"""The database: where everything lies that outlives a request, in SQLite or PostgreSQL, through SQLAlchemy Core.

Invariants:
- `write` is one transaction: whole or not at all. On SQLite it begins IMMEDIATE, so that two writers never deadlock;
  the writers of one process queue for one connection, those of several wait up to `BUSY_SECONDS`.
- A transaction that has ended is on the disk, unless the caller said `durable=False`; then the last ones before a
  power cut may be gone, in order and whole.
- An SQLite file and what lies beside it is readable and writable for its owner alone.
- A database of a newer schema is refused.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Insert, MetaData, Table, create_engine, event, insert, inspect, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError, OperationalError

from lightkeeper.errors import DatabaseUnusable, SchemaNewer
from lightkeeper.hub.tables import METADATA
from lightkeeper.hub.tables.setting import SCHEMA

SCHEMA_NUMBER = 1
BUSY_SECONDS = 30
READERS = 8
"""Connections for reading a process keeps; PostgreSQL's writers share them."""

_PRIVATE = 0o600
_TURNS_LOCK = 0x6C69676874


class Database:
    """One database, shared by the threads of this process and by other processes."""

    def __init__(self, url: str, metadata: MetaData = METADATA) -> None:
        """Connect, and make what is missing of the tables. Raises `DatabaseUnusable`, `SchemaNewer`."""
        self._url = _parsed(url)
        self.is_sqlite = self._url.get_backend_name() == "sqlite"
        try:
            if self.is_sqlite:
                self._reader, self._writer = _sqlite_engines(self._url)
            else:
                self._writer = _postgresql_engine(self._url)
                self._reader = self._writer.execution_options(
                    isolation_level="REPEATABLE READ", postgresql_readonly=True
                )
            try:
                self._create(metadata)
            except BaseException:
                self.close()
                raise
        except (DatabaseError, OSError) as error:
            raise DatabaseUnusable(
                f"the database {self} cannot be used: {_cause(error)}", database=self, cause=_cause(error)
            ) from error

    def __str__(self) -> str:
        """Return the address without its password."""
        return self._url.render_as_string(hide_password=True)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection that sees one state of the database, whatever is written meanwhile."""
        with self._reader.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Connection]:
        """Give a connection whose changes are kept if the block ends, and undone if it raises."""
        with self._writer.connect().execution_options(durable=durable) as connection, connection.begin():
            yield connection

    def close(self) -> None:
        """Let go of all connections."""
        self._reader.dispose()
        self._writer.dispose()

    def _create(self, metadata: MetaData) -> None:
        with self.write() as connection:
            take_turns(connection)
            found = 0
            if inspect(connection).has_table(SCHEMA.name):
                found = connection.scalar(select(SCHEMA.c.number)) or 0
            if found > SCHEMA_NUMBER:
                raise SchemaNewer(
                    f"the database {self} has schema {found}, this build knows {SCHEMA_NUMBER}",
                    database=self,
                    found=found,
                    known=SCHEMA_NUMBER,
                )
            metadata.create_all(connection)
            if not found:
                connection.execute(insert(SCHEMA).values(number=SCHEMA_NUMBER))


def take_turns(connection: Connection) -> None:
    """Keep other transactions that do so waiting until this one ends: for what is made once, by whoever is first."""
    if connection.dialect.name != "sqlite":  # which has one writer anyway
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _TURNS_LOCK})


def put(connection: Connection, table: Table, values: Mapping[str, Any]) -> None:
    """Insert a row, or put the values in place of those of the row with the same primary key."""
    connection.execute(_put_statement(table, tuple(values), connection.dialect.name), dict(values))


def insert_or_skip(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert the rows whose primary key is not taken."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    if rows:
        connection.execute(dialect.insert(table).on_conflict_do_nothing(), [dict(row) for row in rows])


@lru_cache(maxsize=256)
def _put_statement(table: Table, names: tuple[str, ...], dialect: str) -> Insert:
    statement: Any = (sqlite if dialect == "sqlite" else postgresql).insert(table)
    key = [column.name for column in table.primary_key]
    rest = {name: statement.excluded[name] for name in names if name not in key}
    if rest:
        changed: Insert = statement.on_conflict_do_update(index_elements=key, set_=rest)
        return changed
    kept: Insert = statement.on_conflict_do_nothing()
    return kept


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
        if parsed.drivername in {"postgresql", "postgres"}:
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.get_dialect().name not in {"sqlite", "postgresql"}:
            raise NoSuchModuleError(parsed.drivername)  # noqa: TRY301 - one refusal for every kind of wrong address
    except (ArgumentError, NoSuchModuleError) as error:
        raise DatabaseUnusable("the database's address is none that the hub knows", cause=_cause(error)) from error
    return parsed


def _sqlite_engines(url: URL) -> tuple[Engine, Engine]:
    """Return the engine for reading and the one for writing, whose pool of one connection is the writers' queue."""
    path = Path(url.database or "")
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _PRIVATE))
    path.chmod(_PRIVATE)  # SQLite gives the files beside it the same mode
    arguments = {"timeout": BUSY_SECONDS, "check_same_thread": False}
    reader = create_engine(url, connect_args=arguments, pool_size=READERS, max_overflow=READERS, query_cache_size=2000)
    writer = create_engine(url, connect_args=arguments, pool_size=1, max_overflow=0, pool_timeout=BUSY_SECONDS)

    @event.listens_for(reader, "connect")
    @event.listens_for(writer, "connect")
    def _prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # transactions begin where SQLAlchemy says, not where sqlite3 guesses
        for pragma in ("foreign_keys=ON", "case_sensitive_like=ON", "cache_size=-16384"):
            connection.execute(f"PRAGMA {pragma}")
        _write_ahead(connection)

    @event.listens_for(reader, "begin")
    def _begin_to_read(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    @event.listens_for(writer, "begin")
    def _begin_to_write(connection: Connection) -> None:
        durable = connection.get_execution_options().get("durable", True)
        connection.exec_driver_sql(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return reader, writer


def _write_ahead(connection: Any) -> None:
    """Switch a new file's journal; SQLite does not wait by itself for another process that does so just now."""
    deadline = time.monotonic() + BUSY_SECONDS
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _postgresql_engine(url: URL) -> Engine:
    engine = create_engine(url, pool_size=READERS, max_overflow=READERS, pool_pre_ping=True, query_cache_size=2000)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        if not connection.get_execution_options().get("durable", True):
            connection.exec_driver_sql("SET LOCAL synchronous_commit = off")

    return engine


def _cause(error: BaseException) -> str:
    if isinstance(error, OperationalError | DatabaseError) and error.orig is not None:
        error = error.orig
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
