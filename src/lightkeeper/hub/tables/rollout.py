"""Deployment plans, their stages, what each device was told to do, and what each device has."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from lightkeeper.hub.tables.fleet import DEVICES, FLEETS
from lightkeeper.hub.tables.metadata import METADATA, NAME

PLANS = Table(
    "plans",
    METADATA,
    Column("name", NAME, primary_key=True),
    Column("fleet", NAME, ForeignKey(FLEETS.c.name), nullable=False, index=True),
    Column("model_configs", JSON, nullable=False),
    Column("packages", JSON, nullable=False),
    Column("settings", JSON, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("modified_ms", BigInteger, nullable=False),
)
"""`packages`: by model handle, what `DEPLOYMENTS` calls a package. `settings`: the tags' texts, as they were."""

STAGES = Table(
    "stages",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("plan", NAME, ForeignKey(PLANS.c.name, ondelete="CASCADE"), nullable=False),
    Column("name", NAME, nullable=False),
    Column("position", Integer, nullable=False),
    Column("selection", JSON, nullable=False),
    Column("policy", String(32), nullable=False),
    Column("status", String(16), nullable=False),
    Column("message", Text, nullable=False),
    Column("started_ms", BigInteger),
    Column("selected", Boolean, nullable=False),
    Column("ticking", Boolean, nullable=False, index=True),
    UniqueConstraint("plan", "name"),
    sqlite_autoincrement=True,
    comment="selected: its devices are rows of deployments; ticking: the ticker has something to do or to watch",
)

DEPLOYMENTS = Table(
    "deployments",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("name", NAME, nullable=False, unique=True),
    Column("fleet", NAME, nullable=False),
    Column("device", NAME, nullable=False),
    Column("stage", Integer, ForeignKey(STAGES.c.id, ondelete="SET NULL")),
    Column("plan", NAME, nullable=False),
    Column("reverts", Boolean, nullable=False),
    Column("progress", String(16), nullable=False),
    Column("turn", Integer, nullable=False),
    Column("policy", String(32), nullable=False),
    Column("definitions", JSON, nullable=False),
    Column("previous", JSON, nullable=False),
    Column("since_ms", BigInteger, nullable=False),
    Column("taken_ms", BigInteger),
    Column("ended_ms", BigInteger),
    Column("message", Text, nullable=False),
    ForeignKeyConstraint(["fleet", "device"], [DEVICES.c.fleet, DEVICES.c.name], ondelete="CASCADE"),
    Index(None, "fleet", "device", "progress"),
    Index(None, "stage", "reverts", "progress", "turn"),
    Index(None, "ended_ms"),
    sqlite_autoincrement=True,
    comment="ids grow with time: of two that set one handle, the larger id is the later will",
)
"""One row is one thing a device is told to do: what a stage brings (one a device), or the way back (`reverts`).

`definitions` and `previous`: by model handle a package, `{"job", "url", "sha1", "model", "version"}`, or null for none.
`previous` is what the device had when the offer was made. `since_ms`: when it came to where it stands.
"""

SLOTS = Table(
    "slots",
    METADATA,
    Column("fleet", NAME, primary_key=True),
    Column("device", NAME, primary_key=True),
    Column("handle", NAME, primary_key=True),
    Column("owner", Integer, nullable=False),
    Column("package", JSON(none_as_null=True)),
    Column("deployment", Integer, nullable=False),
    ForeignKeyConstraint(["fleet", "device"], [DEVICES.c.fleet, DEVICES.c.name], ondelete="CASCADE"),
    comment="what a device has under a handle by its own word, and the id of the stage that may change it",
)

LEASES = Table(
    "leases",
    METADATA,
    Column("name", NAME, primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("until_ms", BigInteger, nullable=False),
)
