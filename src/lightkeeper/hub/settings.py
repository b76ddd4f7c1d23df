"""What is set for a whole hub, kept in its database so that every process does alike."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from sqlalchemy import select

from lightkeeper.errors import HubSettingInvalid
from lightkeeper.hub.database import Database, put
from lightkeeper.hub.tables.setting import SETTINGS


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting with its default; names carry their units."""

    region: str = "us-east-1"
    """The region in the hub's ARNs and in hub.json."""

    account: str = "000000000000"
    """The account in the hub's ARNs, twelve digits."""

    connected_seconds: int = 900
    """How long after its last heartbeat a device counts as connected: three heartbeats of five minutes."""

    fleets_limit: int = 1000
    devices_limit: int = 100_000
    """Devices a fleet may have."""

    jobs_limit: int = 1000
    """Compilation and packaging jobs that may wait or run at once."""

    plans_limit: int = 1000

    rollout_batch_size: str = "0.1"
    rollout_failure_threshold: str = "0.1"
    rollout_silence_threshold: str = "0.5"
    rollout_device_timeout_seconds: int = 3600
    """What a deployment plan does without tags (see `plansettings.py`)."""

    rollout_tick_ms: int = 1000
    """How often the stages under way are looked at."""

    registration_cache_seconds: int = 3600
    """For how long a device may rely on its registration."""

    heartbeat_days: int = 14
    """How long hourly sums of heartbeats are kept."""


def load(database: Database) -> Settings:
    """Return the hub's settings."""
    with database.read() as connection:
        stored = {row.name: row.value for row in connection.execute(select(SETTINGS))}
    known = {field.name for field in fields(Settings)}
    return Settings(**{name: value for name, value in stored.items() if name in known})


def change(database: Database, given: Mapping[str, Any]) -> Settings:
    """Keep settings, and return all. Raises `HubSettingInvalid`."""
    defaults = asdict(Settings())
    checked = {name: _checked(name, value, defaults) for name, value in given.items()}
    with database.write() as connection:
        for name, value in checked.items():
            put(connection, SETTINGS, {"name": name, "value": value})
    return load(database)


_PATTERNS = {"region": r"[a-z0-9-]{1,63}", "account": r"[0-9]{12}"} | dict.fromkeys(
    ("rollout_batch_size", "rollout_failure_threshold", "rollout_silence_threshold"),
    r"[1-9][0-9]{0,6}|0\.(?!0+\Z)[0-9]{1,6}|1\.0{1,6}",
)


def _checked(name: str, value: Any, defaults: Mapping[str, Any]) -> Any:
    if name not in defaults:
        raise HubSettingInvalid(f"no setting is named {name}", name=name, known=", ".join(sorted(defaults)))
    if isinstance(defaults[name], int):
        if not str(value).isascii() or not str(value).isdigit() or not 0 < int(value) <= 2**31 - 1:
            raise HubSettingInvalid(f"{name} takes a whole number from 1 on, not {value}", name=name, given=value)
        return int(value)
    if not re.fullmatch(_PATTERNS[name], str(value), re.ASCII):
        raise HubSettingInvalid(f"{name} does not take {value}", name=name, given=value, pattern=_PATTERNS[name])
    return str(value)
