"""Device fleets, their devices with the latest that each said of itself, and the tags of every resource."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, ForeignKey, Index, String, Table, Text

from lightkeeper.hub.tables.metadata import ARN, METADATA, NAME

FLEETS = Table(
    "fleets",
    METADATA,
    Column("name", NAME, primary_key=True),
    Column("role_arn", Text),
    Column("description", Text),
    Column("output_config", JSON, nullable=False),
    Column("role_alias", Boolean, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("modified_ms", BigInteger, nullable=False),
)

DEVICES = Table(
    "devices",
    METADATA,
    Column("fleet", NAME, ForeignKey(FLEETS.c.name), primary_key=True),
    Column("name", NAME, primary_key=True),
    Column("description", Text),
    Column("thing", String(128)),
    Column("registered_ms", BigInteger, nullable=False),
    Column("heartbeat_ms", BigInteger),
    Column("agent_version", String(64)),
    Column("models", JSON(none_as_null=True)),
    Column("model_names", Text),
    Index(None, "thing"),
    comment="one row a heartbeat writes; models: a list as SendHeartbeat has it, without metrics, times in ms",
)
"""`model_names` is each model's name between line ends, so that a name is found by LIKE (see `hub/latest.py`)."""

TAGS = Table(
    "tags",
    METADATA,
    Column("arn", ARN, primary_key=True),
    Column("key", String(128), primary_key=True),
    Column("value", String(256), nullable=False),
)
