"""The sessions that certificates were exchanged for: kept so that every process can check what devices sign with them.

Invariant: a session ends with its time, or at once when its certificate is revoked.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, insert, select

from lightkeeper.hub.database import Database
from lightkeeper.hub.keys import DeviceCaller, Key
from lightkeeper.hub.sts import Session
from lightkeeper.hub.tables.identity import CERTIFICATES, SESSIONS

_BY_KEY_ID = (
    select(SESSIONS)
    .join(CERTIFICATES, CERTIFICATES.c.fingerprint == SESSIONS.c.fingerprint)
    .where(SESSIONS.c.access_key_id == bindparam("key_id"), CERTIFICATES.c.revoked_ms.is_(None))
)


class DeviceSessions:
    """The keys of devices, as `sigv4.py` looks them up."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __call__(self, access_key_id: str) -> Key | None:
        """See `keys.Lookup`."""
        with self._database.read() as connection:
            row = connection.execute(_BY_KEY_ID, {"key_id": access_key_id}).first()
        if row is None:
            return None
        caller = DeviceCaller(row.fleet, row.device, access_key_id)
        return Key(row.secret_access_key, caller, row.session_token, row.expires_ms)


def latest(connection: Connection, fingerprint: str, reach: str) -> Row[Any] | None:
    """Return the session of a certificate with this reach that ends last, or None."""
    ours = (SESSIONS.c.fingerprint == fingerprint) & (SESSIONS.c.reach == reach)
    return connection.execute(select(SESSIONS).where(ours).order_by(SESSIONS.c.expires_ms.desc()).limit(1)).first()


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose session it is, and the digest of what it reaches."""

    fingerprint: str
    fleet: str
    device: str
    reach: str


def keep(connection: Connection, session: Session, owner: Owner, now_ms: int) -> None:
    """Put a new session on record, and drop those of the same certificate that have ended."""
    ended = (SESSIONS.c.fingerprint == owner.fingerprint) & (SESSIONS.c.expires_ms <= now_ms)
    connection.execute(delete(SESSIONS).where(ended))
    connection.execute(insert(SESSIONS).values(**asdict(session), **asdict(owner), issued_ms=now_ms))
