"""The certificates the hub has issued: each attached to one thing of one fleet, valid until it ends or is revoked.

Invariants: a certificate that is not on record is unknown, whoever signed it; one that was revoked stays so. Revoking
ends the sessions it was exchanged for in the same transaction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Connection, Row, delete, insert, select, update

from lightkeeper.hub.tables.identity import CERTIFICATES, SESSIONS


def fingerprint(der: bytes) -> str:
    """Return what a certificate is known by."""
    return hashlib.sha256(der).hexdigest()


def record(connection: Connection, certificate: x509.Certificate, fleet: str, thing: str, now_ms: int) -> str:
    """Put a new certificate on record, attached to a thing of a fleet, and return its fingerprint."""
    known_by = fingerprint(certificate.public_bytes(Encoding.DER))
    connection.execute(
        insert(CERTIFICATES).values(
            fingerprint=known_by,
            fleet=fleet,
            thing=thing,
            begins_ms=_ms(certificate.not_valid_before_utc),
            ends_ms=_ms(certificate.not_valid_after_utc),
            issued_ms=now_ms,
        )
    )
    return known_by


def find(connection: Connection, known_by: str) -> Row[Any] | None:
    """Return what is on record of a certificate, or None."""
    return connection.execute(select(CERTIFICATES).where(CERTIFICATES.c.fingerprint == known_by)).first()


def standing(connection: Connection, fleet: str, thing: str) -> list[Row[Any]]:
    """Return the certificates of a thing that were not revoked, the newest first."""
    ours = (CERTIFICATES.c.fleet == fleet) & (CERTIFICATES.c.thing == thing) & CERTIFICATES.c.revoked_ms.is_(None)
    return list(connection.execute(select(CERTIFICATES).where(ours).order_by(CERTIFICATES.c.issued_ms.desc())))


def revoke(connection: Connection, fingerprints: Sequence[str], now_ms: int) -> None:
    """Revoke certificates, and end their sessions."""
    ours = CERTIFICATES.c.fingerprint.in_(fingerprints) & CERTIFICATES.c.revoked_ms.is_(None)
    connection.execute(update(CERTIFICATES).where(ours).values(revoked_ms=now_ms))
    connection.execute(delete(SESSIONS).where(SESSIONS.c.fingerprint.in_(fingerprints)))


def _ms(time: datetime) -> int:
    return int(time.timestamp() * 1000)
