"""What all tables share: one `METADATA`, and the widths of names."""

from __future__ import annotations

from sqlalchemy import MetaData, String

METADATA = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    }
)

NAME = String(63)
"""A name of the API's: fleet, device, job, plan, stage, model."""

ARN = String(256)
