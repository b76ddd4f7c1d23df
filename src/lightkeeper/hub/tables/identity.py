"""Who a device is: the hub's secrets, the certificates it has issued, the sessions they brought, the audit."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, String, Table, Text

from lightkeeper.hub.tables.metadata import METADATA, NAME

THING = String(128)
FINGERPRINT = String(64)
"""SHA-256 of a certificate in DER, hexadecimal."""

SECRETS = Table(
    "secrets",
    METADATA,
    Column("name", String(63), primary_key=True),
    Column("value", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)

CERTIFICATES = Table(
    "certificates",
    METADATA,
    Column("fingerprint", FINGERPRINT, primary_key=True),
    Column("fleet", NAME, nullable=False),
    Column("thing", THING, nullable=False),
    Column("begins_ms", BigInteger, nullable=False),
    Column("ends_ms", BigInteger, nullable=False),
    Column("issued_ms", BigInteger, nullable=False),
    Column("revoked_ms", BigInteger),
    Index(None, "fleet", "thing"),
)

SESSIONS = Table(
    "sessions",
    METADATA,
    Column("access_key_id", String(128), primary_key=True),
    Column("secret_access_key", Text, nullable=False),
    Column("session_token", Text, nullable=False),
    Column("fingerprint", FINGERPRINT, ForeignKey(CERTIFICATES.c.fingerprint), nullable=False),
    Column("fleet", NAME, nullable=False),
    Column("device", NAME, nullable=False),
    Column("reach", FINGERPRINT, nullable=False),
    Column("issued_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False, index=True),
    Index(None, "fingerprint", "reach"),
    comment="reach: SHA-256 of the policy the session was issued with, hexadecimal",
)

AUDIT = Table(
    "audit",
    METADATA,
    Column("hour_ms", BigInteger, primary_key=True),
    Column("event", String(63), primary_key=True),
    Column("fingerprint", FINGERPRINT, primary_key=True),
    Column("remote", String(63), primary_key=True),
    Column("thing", THING, nullable=False),
    Column("detail", String(256), nullable=False),
    Column("first_ms", BigInteger, nullable=False),
    Column("last_ms", BigInteger, nullable=False),
    Column("count", Integer, nullable=False),
    comment="one row for what happened to one certificate from one address within one hour, and how often",
)
