"""What a reader sees while others write, on both kinds of database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select, update

from lightkeeper.hub.database import SCHEMA_NUMBER, Database
from lightkeeper.hub.tables.setting import SCHEMA

NUMBER = select(SCHEMA.c.number)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A new database; its table of one row will do."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'hub.sqlite'}"
    else:
        url = request.getfixturevalue("postgres").database()
    made = Database(url)
    yield made
    made.close()


def test_a_reader_sees_one_state_while_others_write(database: Database) -> None:
    """Two questions of one reader have answers that fit each other; the next reader sees what was written."""
    with database.read() as reading:
        before = reading.scalar(NUMBER)
        with database.write() as writing:
            writing.execute(update(SCHEMA).values(number=77))
        assert (before, reading.scalar(NUMBER)) == (SCHEMA_NUMBER, SCHEMA_NUMBER)
    with database.read() as reading:
        assert reading.scalar(NUMBER) == 77


def test_a_writer_reads_what_was_written_last(database: Database) -> None:
    """A writer decides by what stands there now, its own changes included."""
    with database.write() as writing:
        writing.execute(update(SCHEMA).values(number=78))
        assert writing.scalar(NUMBER) == 78
