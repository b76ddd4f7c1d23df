"""Jobs: what was asked for, how far it is, and who works on it."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Index, Integer, String, Table, Text

from lightkeeper.hub.tables.metadata import METADATA, NAME

JOBS = Table(
    "jobs",
    METADATA,
    Column("kind", String(16), primary_key=True),
    Column("name", NAME, primary_key=True),
    Column("identity", String(32), nullable=False, unique=True),
    Column("status", String(16), nullable=False),
    Column("model_name", NAME),
    Column("request", JSON, nullable=False),
    Column("result", JSON(none_as_null=True)),
    Column("reason", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("modified_ms", BigInteger, nullable=False),
    Column("started_ms", BigInteger),
    Column("ended_ms", BigInteger),
    Column("attempt", Integer, nullable=False),
    Column("holder", String(32)),
    Column("due_ms", BigInteger, nullable=False),
    Index(None, "status", "due_ms"),
    comment="identity: a job created anew under an old name is another; due_ms: when it may be taken up (again)",
)
"""`holder` is who has the lease, until `due_ms`; `result` is what the work gave (`jobs.Artifact`)."""
