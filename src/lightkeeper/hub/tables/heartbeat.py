"""Heartbeats: the latest of every metric with the running hour's sums, and the hours that are over."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, ForeignKeyConstraint, Table

from lightkeeper.hub.tables.fleet import DEVICES
from lightkeeper.hub.tables.metadata import METADATA, NAME

HEARTBEATS = Table(
    "heartbeats",
    METADATA,
    Column("fleet", NAME, primary_key=True),
    Column("device", NAME, primary_key=True),
    Column("sent_ms", BigInteger, nullable=False),
    Column("hour_ms", BigInteger, nullable=False),
    Column("metrics", JSON, nullable=False),
    ForeignKeyConstraint(["fleet", "device"], [DEVICES.c.fleet, DEVICES.c.name], ondelete="CASCADE"),
    comment="one row a device; metrics: see hub/metrics.py, with the sums of the hour that began at hour_ms",
)

HOURS = Table(
    "heartbeat_hours",
    METADATA,
    Column("hour_ms", BigInteger, primary_key=True),
    Column("fleet", NAME, primary_key=True),
    Column("device", NAME, primary_key=True),
    Column("sums", JSON, nullable=False),
    ForeignKeyConstraint(["fleet", "device"], [DEVICES.c.fleet, DEVICES.c.name], ondelete="CASCADE"),
    comment="one row a device and hour in which it sent metrics; sums: see hub/metrics.py",
)
"""The hour comes first in the key: what is past its keeping lies together."""
