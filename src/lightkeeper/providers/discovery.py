"""Finds the provider: a plug-in of the entry point group `lightkeeper.providers`, the built-in ones among them."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import EntryPoint

from lightkeeper.errors import AgentError, ProviderUnusable
from lightkeeper.plugins import PROVIDERS, installed
from lightkeeper.providers.base import Provider, ProviderOptions


def make(name: str, options: ProviderOptions, plugins: Iterable[EntryPoint] | None = None) -> Provider:
    """Return the provider of a name; `plugins` stands in for the installed ones. Raises `ProviderUnusable`."""
    found = {plugin.name: plugin for plugin in installed(PROVIDERS, plugins)}
    if name not in found:
        raise ProviderUnusable(f"there is no provider {name}", given=name, expected=", ".join(found) or "(none)")
    try:
        provider: Provider = found[name].load()(options)
    except AgentError:
        raise
    except Exception as fault:  # a plug-in's code may raise anything
        raise ProviderUnusable(
            f"the provider {name} cannot be made: {fault!r}", given=name, source=found[name].value
        ) from fault
    return provider
