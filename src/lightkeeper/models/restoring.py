"""Restoring: what was loaded when the agent stopped, or died, is loaded again when it starts.

Names that are to be restored are known before the socket is served; a thread (`run`) then loads them, one after the
other, from their kept packages, which are verified as at any load. An application that loads its model after a
restart, as it always has, adopts the restored one: LoadModel of the same package under the same name answers OK once.
So does the package that LoadModel had loaded before a swap or a deployment replaced it: the application did not change.

Invariants
1. A name is pending, restored and unclaimed, or none of this business. A pending name is restored by whoever comes
   first, this thread or a call that needs it; the others wait for that.
2. A restoration that is refused is a WARNING, and its entry stays for the next start. A model with which the agent died
   `CRASHES_MOST` times in a row is left out once, with an ERROR, so that an agent that dies of a model comes up.
3. A version on trial that the agent died with twice is not loaded again: the one before it is.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace

from lightkeeper.errors import AgentError, ModelAlreadyLoaded, ModelNotFound, SwapCutShort
from lightkeeper.modelpackage.manifest import SwapLimits
from lightkeeper.models.record import Entry
from lightkeeper.models.report import Returned
from lightkeeper.models.stock import Stock
from lightkeeper.models.watching import Watching
from lightkeeper.registry import LoadedModel

CRASHES_MOST = 3
TRIAL_CRASHES_MOST = 1
"""Counted from the first restoration on: the death that made it necessary comes before."""

log = logging.getLogger(__name__)


class Restoring:
    """The names that the record has, on their way back. Any number of threads may use it."""

    def __init__(self, stock: Stock, watching: Watching, *, limits: SwapLimits, wanted: bool) -> None:
        """Find what there is to restore; where it is not `wanted`, that is nothing, and the record is emptied."""
        self._stock = stock
        self._watching = watching
        self._limits = limits
        entries = stock.record.all()
        if not wanted:
            for entry in entries:
                stock.record.drop(entry.name)
            entries = []
        self._turns = {entry.name: threading.Lock() for entry in entries}
        self._pending = {entry.name for entry in entries}
        self._unclaimed: set[str] = set()
        self._claiming = threading.Lock()
        self._stopping = False

    def run(self) -> None:
        """Restore every name, and remove the packages that no name needs any more."""
        started = time.monotonic()
        with self._stock.change():
            for name in tuple(self._turns):
                if self._stopping:
                    return
                try:
                    self.finish(name)
                except Exception:
                    log.exception("model_not_restored", extra={"model": name})
        restored = len(self._unclaimed)
        if self._turns:
            log.info("models_restored", extra={"models": restored, "seconds": round(time.monotonic() - started, 3)})

    def stop(self) -> None:
        """Begin no further restoration; what is left stays in the record."""
        self._stopping = True

    def finish(self, name: str) -> None:
        """Restore a name now if it is pending; where another thread is at it, wait."""
        turn = self._turns.get(name)
        if turn is None or name not in self._pending:
            return
        with turn:
            if name in self._pending:
                try:
                    self._restore(name)
                finally:
                    self._pending.discard(name)

    def adopt(self, name: str, url: str) -> LoadedModel | None:
        """Return the restored model of a name for an application that loads its package, or None if there is none.

        Raises `ModelAlreadyLoaded` where another package runs under the name, and what verifying this one raises.
        """
        self.finish(name)
        if name not in self._unclaimed:
            return None
        digest = self._stock.loader.digest(url)
        with self._claiming:
            if name not in self._unclaimed:
                return None
            try:
                model = self._stock.registry.find(name)
            except ModelNotFound:
                return None
            entry = self._stock.record.get(name)
            if digest not in {model.package.digest, entry.asked if entry else ""}:
                raise ModelAlreadyLoaded(
                    f"version {model.package.version} of another package was restored under the name {name}",
                    model=name,
                    state="restored",
                    version=model.package.version,
                )
            self._unclaimed.discard(name)
        if digest == model.package.digest:
            model.description = replace(model.description, url=url)
        self._stock.note(model, asked=digest)
        return model

    def unclaim(self, name: str) -> None:
        """Let an application adopt a model that it did not load itself."""
        with self._claiming:
            self._unclaimed.add(name)

    def forget(self, name: str) -> None:
        """Let nobody adopt a name any more: it was unloaded."""
        with self._claiming:
            self._unclaimed.discard(name)

    def _restore(self, name: str) -> None:
        entry = self._stock.record.get(name)
        if entry is None:
            return
        if entry.crashes >= CRASHES_MOST and not entry.on_trial:
            log.error("model_restoration_left_out", extra={"model": name, "crashes": entry.crashes})
            self._stock.record.put(replace(entry, crashes=0))
            return
        if entry.on_trial and entry.crashes >= TRIAL_CRASHES_MOST and entry.previous is not None:
            entry = self._sent_back(entry)
        self._stock.record.put(replace(entry, crashes=entry.crashes + 1))
        try:
            with self._stock.registry.reserve(name):
                version = entry.current
                opened = self._stock.loader.load_kept(version.package.digest, version.url)
                model = self._stock.model(name, version.url, opened)
                crashes = entry.crashes + 1 if entry.on_trial else 0
                self._stock.publish(model, replace(entry, crashes=crashes))
        except AgentError as error:
            self._stock.record.put(entry)
            log.warning(
                "model_not_restored",
                extra={"model": name, "url": entry.current.url, "reason": error.reason, "detail": error.message},
            )
            return
        self.unclaim(name)
        if entry.on_trial and entry.previous is not None:
            limits = opened.swap_limits.over(self._limits)
            self._watching.begin(None, model, entry.previous, limits, entry.baseline)
        log.info("model_restored", extra={"model": name, "version": entry.current.package.version})

    def _sent_back(self, entry: Entry) -> Entry:
        previous = entry.previous or entry.current
        why = SwapCutShort(
            f"the agent died {entry.crashes + 1} times while it watched version {entry.current.package.version}"
        )
        log.warning(
            "model_rolled_back",
            extra={
                "model": entry.name,
                "version": previous.package.version,
                "from_version": entry.current.package.version,
                "reason": why.reason,
                "detail": why.message,
            },
        )
        returned = Returned(entry.current.package.digest, why.reason, why.message)
        return Entry(entry.name, previous, asked=entry.asked, returned=returned)
