"""The door to what happens to a name: load, unload, swap, roll back, and what is known of it.

Threads: `restore` loads what was loaded before the agent stopped, then ends; `watch` looks after versions that have
just taken over. Everything else happens in the thread that calls.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

from lightkeeper.errors import ModelNotFound
from lightkeeper.metrics import Reading
from lightkeeper.model import ModelDescription, PackageIdentity
from lightkeeper.modelpackage.manifest import SwapLimits
from lightkeeper.models.record import Entry, Returned, Version
from lightkeeper.models.restoring import Restoring
from lightkeeper.models.stock import Stock, version_of
from lightkeeper.models.swapping import Progress, Swapping, SwapReport
from lightkeeper.models.watching import Watching
from lightkeeper.names import check_model_name
from lightkeeper.registry import LoadedModel

JOIN_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """A loaded model, its version and the one before, and what it has done since it was loaded."""

    name: str
    url: str
    package: PackageIdentity
    previous: PackageIdentity | None
    watch_seconds_left: float | None
    """How long it is still being watched since it took over, or None where it is not."""
    returned: Returned | None
    """The last version that was taken back by itself, if one was."""
    reading: Reading


class Models:
    """Every model of an agent. Any number of threads may use it at once."""

    def __init__(self, stock: Stock, *, limits: SwapLimits, watch_seconds: float, restore: bool) -> None:
        """Take what the models are made of; what the record has of an earlier run waits for `start`."""
        self._stock = stock
        self._watching = Watching(stock, seconds=watch_seconds)
        self._swapping = Swapping(stock, self._watching, limits=limits)
        self._restoring = Restoring(stock, self._watching, limits=limits, wanted=restore)
        self._threads = [
            threading.Thread(target=self._restoring.run, name="restore", daemon=True),
            threading.Thread(target=self._watching.run, name="watch", daemon=True),
        ]

    def start(self) -> None:
        """Restore models, and watch versions, in the background."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the threads. What is on trial was not cut short: its watch goes on at the next start."""
        self._restoring.stop()
        self._watching.stop()
        for thread in self._threads:
            thread.join(JOIN_SECONDS)
        for entry in self._stock.record.all():
            self._stock.record.put(replace(entry, crashes=0))

    def wait_until_restored(self) -> None:
        """Wait until nothing is left to restore."""
        self._threads[0].join()

    def load(self, url: str, name: str) -> ModelDescription:
        """Verify the package at a url and publish its model under a name, or adopt the restored one (`restoring.py`).

        Raises `NameInvalid`, `ModelAlreadyLoaded`, or what `ModelLoader.load` raises.
        """
        check_model_name(name)
        with self._stock.change():
            adopted = self._restoring.adopt(name, url)
            if adopted is not None:
                return adopted.description
            return self._load(url, name, url).description

    def deploy(self, url: str, name: str, *, known_as: str) -> SwapReport | None:
        """Have the package at a url run under a name: loaded where nothing is, else swapped in.

        An application may adopt what was loaded so. Returns None where nothing was swapped. Raises what `load` and
        `swap` raise.
        """
        check_model_name(name)
        self._restoring.finish(name)
        if self.version(name) is not None:
            return self.swap(name, url, known_as=known_as)
        with self._stock.change():
            self._load(url, name, known_as)
        self._restoring.unclaim(name)
        return None

    def put_back(self, name: str, version: Version | None) -> None:
        """Have a version run again under a name, or nothing; where it does, nothing happens.

        Raises `ModelAlreadyLoaded` or `SwapUnderway` where the name is being changed, or what opening it raises.
        """
        self._restoring.finish(name)
        current, entry = self.version(name), self._stock.record.get(name)
        if version is None:
            if current is not None:
                self.unload(name)
        elif current is None:
            with self._stock.change(), self._stock.registry.reserve(name):
                self._stock.publish(self._stock.reopen(name, version), Entry(name, version))
            self._restoring.unclaim(name)
        elif current.package.digest != version.package.digest:
            if entry is None or entry.previous != version:
                entry = entry or Entry(name, current)
                self._stock.record.put(Entry(name, current, previous=version, asked=entry.asked))
            self.roll_back(name)

    def unload(self, name: str) -> None:
        """Wait for the calls that use the model, then give its memory back. Raises `ModelNotFound`."""
        self._restoring.finish(name)
        with self._stock.change():
            model = self._stock.take(name)
            self._restoring.forget(name)
            trial = self._watching.take(name)
            model.close()
            if trial is not None and trial.old is not None:
                trial.old.close()

    def swap(self, name: str, url: str, *, known_as: str = "") -> SwapReport:
        """Put the package at a url in the place of the loaded model (see `Swapping.swap`)."""
        self._restoring.finish(name)
        return self._swapping.swap(name, url, known_as=known_as)

    def swap_progress(self, name: str) -> Progress | None:
        """Return how far the swap of a name is, or None where none is under way."""
        return self._swapping.progress(name)

    def roll_back(self, name: str) -> SwapReport:
        """Put the version before in the place of the loaded model (see `Swapping.roll_back`)."""
        self._restoring.finish(name)
        return self._swapping.roll_back(name)

    def version(self, name: str) -> Version | None:
        """Return which version runs under a name, or None where nothing is loaded."""
        try:
            return version_of(self._stock.registry.find(name))
        except ModelNotFound:
            return None

    def entry(self, name: str) -> Entry | None:
        """Return what is remembered of a name, or None."""
        return self._stock.record.get(name)

    def status(self) -> list[ModelStatus]:
        """Return what there is to say of every loaded model, in the order they were loaded."""
        found = []
        for model in self._stock.registry.models():
            name = model.description.name
            entry = self._stock.record.get(name)
            previous = entry.previous if entry else None
            found.append(
                ModelStatus(
                    name,
                    model.description.url,
                    model.package,
                    previous.package if previous else None,
                    self._watching.seconds_left(name),
                    entry.returned if entry else None,
                    model.metrics.read(),
                )
            )
        return found

    def _load(self, url: str, name: str, known_as: str) -> LoadedModel:
        with self._stock.registry.reserve(name):
            opened = self._stock.loader.load(url)
            model = self._stock.model(name, known_as, opened)
            asked = opened.package.digest if known_as == url else ""
            self._stock.publish(model, Entry(name, version_of(model), asked=asked))
        return model
