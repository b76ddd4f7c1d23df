"""The hub's secrets: made once, kept in the database, the same for every process. Who reads the database has them all.

They are its device authority, its package authority, the key that SeaweedFS signs sessions with, and the access key
that may get sessions.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import select

from lightkeeper.hub.database import Database, insert_or_skip, put
from lightkeeper.hub.tables.identity import SECRETS


def find(database: Database, name: str) -> str | None:
    """Return a secret, or None."""
    with database.read() as connection:
        return connection.scalar(select(SECRETS.c.value).where(SECRETS.c.name == name))


def made_once(database: Database, name: str, make: Callable[[], str], now_ms: int) -> str:
    """Return a secret; where there is none it is made, and of several processes that make it one wins for all."""
    found = find(database, name)
    if found is not None:
        return found
    made = make()
    with database.write() as connection:
        insert_or_skip(connection, SECRETS, [{"name": name, "value": made, "created_ms": now_ms}])
        kept: str = connection.execute(select(SECRETS.c.value).where(SECRETS.c.name == name)).scalar_one()
    return kept


def replace(database: Database, name: str, value: str, now_ms: int) -> None:
    """Keep another value under the name."""
    with database.write() as connection:
        put(connection, SECRETS, {"name": name, "value": value, "created_ms": now_ms})
