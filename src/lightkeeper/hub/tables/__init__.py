"""The database's tables, one module a group of them, all on one `METADATA`.

Conventions: times are integers, milliseconds since 1970 UTC, in columns named `…_ms`; documents of the API are JSON
columns, as the API has them; names are primary keys; a row that cannot be without another has a foreign key to it.
"""

from __future__ import annotations

from lightkeeper.hub.tables import fleet, heartbeat, identity, job, key, rollout, setting
from lightkeeper.hub.tables.metadata import METADATA

__all__ = ["METADATA", "fleet", "heartbeat", "identity", "job", "key", "rollout", "setting"]
