"""Access keys: whose key id is it, and which secret signs for it. Operators' keys live here; devices' are sessions.

Invariant: nothing is remembered in the process, so that a key or session that ends in one process has ended in all.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import bindparam, insert, select

from lightkeeper.hub.database import Database, take_turns
from lightkeeper.hub.tables.key import OPERATOR_KEYS

KEY_ID_PREFIX = "LKOP"
"""An operator's key id; those of device sessions begin with what their issuer gives."""

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


@dataclass(frozen=True, slots=True)
class Operator:
    """Whoever holds an operator's key: may call everything."""

    access_key_id: str


@dataclass(frozen=True, slots=True)
class DeviceCaller:
    """A device with a running session: may call the data plane, for itself."""

    fleet: str
    device: str
    access_key_id: str


Caller = Operator | DeviceCaller


@dataclass(frozen=True, slots=True, repr=False)
class Key:
    """What a signature is checked with. `token` is the session token that must come with it; operators have none."""

    secret: str
    caller: Caller
    token: str | None = None
    expires_ms: int | None = None


Lookup = Callable[[str], Key | None]
"""From an access key id to its key, or None."""


@dataclass(frozen=True, slots=True, repr=False)
class OperatorKey:
    """A key as it is handed out."""

    access_key_id: str
    secret_access_key: str


_SECRET = select(OPERATOR_KEYS.c.secret_access_key).where(OPERATOR_KEYS.c.access_key_id == bindparam("key_id"))


class OperatorKeys:
    """The operators' keys of one hub."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __call__(self, access_key_id: str) -> Key | None:
        """See `Lookup`."""
        with self._database.read() as connection:
            secret = connection.scalar(_SECRET, {"key_id": access_key_id})
        return None if secret is None else Key(secret, Operator(access_key_id))

    def first(self, now_ms: int) -> OperatorKey:
        """Return the hub's first key; it is made where there is none, once, however many processes ask."""
        with self._database.write() as connection:
            take_turns(connection)
            row = connection.execute(select(OPERATOR_KEYS).order_by(OPERATOR_KEYS.c.created_ms).limit(1)).first()
            if row is not None:
                return OperatorKey(row.access_key_id, row.secret_access_key)
            made = OperatorKey(
                KEY_ID_PREFIX + "".join(secrets.choice(_LETTERS) for _ in range(16)), secrets.token_urlsafe(30)
            )
            connection.execute(
                insert(OPERATOR_KEYS).values(
                    access_key_id=made.access_key_id, secret_access_key=made.secret_access_key, created_ms=now_ms
                )
            )
            return made
