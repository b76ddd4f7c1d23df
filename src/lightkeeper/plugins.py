"""Plug-ins: what is installed under the entry point groups of the project, the built-in ones among them.

A plug-in's code may raise anything while it is imported or made; whoever makes one says what becomes of that.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points

RUNTIMES = "lightkeeper.runtimes"
PROVIDERS = "lightkeeper.providers"


def installed(group: str, stand_in: Iterable[EntryPoint] | None = None) -> list[EntryPoint]:
    """Return the plug-ins of a group by name; `stand_in` takes the place of what is installed."""
    found = entry_points(group=group) if stand_in is None else stand_in
    return sorted(found, key=lambda plugin: plugin.name)
