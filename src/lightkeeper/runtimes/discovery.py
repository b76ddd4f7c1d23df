"""Finds the runtimes: plug-ins of the entry point group `lightkeeper.runtimes`, the built-in ones among them.

A plug-in that cannot be imported or made is passed over with one WARNING `runtime_unavailable`; the others work on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from importlib.metadata import EntryPoint

from lightkeeper.errors import FormatUnsupported
from lightkeeper.plugins import RUNTIMES, installed
from lightkeeper.runtimes.base import Runtime, RuntimeOptions

_log = logging.getLogger(__name__)


class Runtimes:
    """The runtimes of this device, by the format they take. Where two take the same format, the first name wins."""

    def __init__(self, options: RuntimeOptions, plugins: Iterable[EntryPoint] | None = None) -> None:
        """Make every runtime; `plugins` stands in for the installed ones."""
        self._by_format: dict[str, Runtime] = {}
        for plugin in installed(RUNTIMES, plugins):
            try:
                runtime: Runtime = plugin.load()(options)
                formats = runtime.formats
            except Exception as fault:  # noqa: BLE001 -- a plug-in's code may raise anything, and must not end the agent
                _log.warning(
                    "runtime_unavailable", extra={"runtime": plugin.name, "source": plugin.value, "reason": repr(fault)}
                )
                continue
            for name in formats:
                self._by_format.setdefault(name, runtime)

    @property
    def formats(self) -> list[str]:
        """The formats that can be opened here, sorted."""
        return sorted(self._by_format)

    def for_format(self, name: str) -> Runtime:
        """Return the runtime that opens models of a format, or raise `FormatUnsupported`."""
        runtime = self._by_format.get(name)
        if runtime is None:
            raise FormatUnsupported(
                f"no runtime on this device opens models of the format {name!r}",
                given=name,
                expected=", ".join(self.formats) or "(no runtime is installed)",
            )
        return runtime
