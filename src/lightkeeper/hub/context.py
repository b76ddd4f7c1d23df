"""What an operation is called with: who calls, when, and where the hub's state lies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, insert
from sqlalchemy.exc import IntegrityError

from lightkeeper.errors import RequestReplayed
from lightkeeper.hub.database import Database
from lightkeeper.hub.keys import Caller
from lightkeeper.hub.settings import Settings
from lightkeeper.hub.sigv4 import SKEW_SECONDS
from lightkeeper.hub.tables.key import SPENT_SIGNATURES

SPENT_FOR_MS = (2 * SKEW_SECONDS + 60) * 1000
"""How long a signature stays in the table: longer than it could pass."""


class Context:
    """One call's surroundings. `now_ms` is when it came: every row the call writes has that time.

    `signed_ms` is when its client signed it, by the client's clock, which is at most `SKEW_SECONDS` off.

    Invariant: a call that changes something does so once. The first transaction that ends well leaves the request's
    signature in the database, in the same transaction, so a copy of the request is refused by every process.
    """

    __slots__ = ("_signature", "caller", "database", "now_ms", "settings", "signed_ms")

    def __init__(  # noqa: PLR0913 - what is known of a call
        self,
        database: Database,
        settings: Settings,
        caller: Caller,
        now_ms: int,
        signature: bytes | None = None,
        *,
        signed_ms: int | None = None,
    ) -> None:
        self.database = database
        self.settings = settings
        self.caller = caller
        self.now_ms = now_ms
        self.signed_ms = now_ms if signed_ms is None else signed_ms
        self._signature = signature

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """See `Database.read`."""
        with self.database.read() as connection:
            yield connection

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Connection]:
        """See `Database.write`; for handlers, in its place. Raises `RequestReplayed`."""
        with self.database.write(durable=durable) as connection:
            if self._signature is not None:
                try:
                    connection.execute(
                        insert(SPENT_SIGNATURES),
                        {"signature": self._signature, "expires_ms": self.now_ms + SPENT_FOR_MS},
                    )
                except IntegrityError as error:
                    raise RequestReplayed("this request was carried out before") from error
            yield connection
        self._signature = None
