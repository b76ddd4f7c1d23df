"""What is set for every process of one hub."""

from __future__ import annotations

from sqlalchemy import JSON, Column, Integer, String, Table

from lightkeeper.hub.tables.metadata import METADATA

SETTINGS = Table(
    "settings",
    METADATA,
    Column("name", String(63), primary_key=True),
    Column("value", JSON, nullable=False),
)

SCHEMA = Table("schema_number", METADATA, Column("number", Integer, primary_key=True, autoincrement=False))
"""One row: which schema the tables have."""
