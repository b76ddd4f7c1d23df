"""Who may call: the operators' keys; and which signed requests were carried out, so that none is carried out twice."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, LargeBinary, String, Table, Text

from lightkeeper.hub.tables.metadata import METADATA

OPERATOR_KEYS = Table(
    "operator_keys",
    METADATA,
    Column("access_key_id", String(128), primary_key=True),
    Column("secret_access_key", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)

SPENT_SIGNATURES = Table(
    "spent_signatures",
    METADATA,
    Column("signature", LargeBinary(32), primary_key=True),
    Column("expires_ms", BigInteger, nullable=False, index=True),
)
