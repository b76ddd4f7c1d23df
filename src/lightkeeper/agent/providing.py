"""The agent's provider, made of its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path

from lightkeeper.config import Config
from lightkeeper.config.model import every_key
from lightkeeper.config.values import Provider as Name
from lightkeeper.device import DeviceIdentity
from lightkeeper.providers import discovery
from lightkeeper.providers.base import Provider, ProviderOptions


def custom(config: Config, stack: ExitStack) -> Provider | None:
    """Return the Custom provider where the configuration names one; the stack closes it. Raises `ProviderUnusable`."""
    if config.provider is not Name.CUSTOM:
        return None
    options = ProviderOptions(
        device=DeviceIdentity(config.device_name, config.device_fleet_name, config.thing_name, config.region),
        endpoint=config.endpoint_override,
        s3_endpoint=config.s3_endpoint,
        library=config.provider_path,
        configuration=as_strings(config),
    )
    provider = discovery.make(config.provider.value, options)
    stack.callback(provider.close)
    return provider


def as_strings(config: Config) -> Mapping[str, str]:
    """Return every key that has a value of one line, its defaults too, as a file would have it."""
    pairs = ((key.name, getattr(config, key.field)) for key in every_key())
    return {name: _string(value) for name, value in pairs if isinstance(value, str | bool | int | float | Path)}


def _string(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value.value if isinstance(value, StrEnum) else str(value)
