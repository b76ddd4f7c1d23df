"""The door to what happens to a name: load, unload, swap, roll back, and what is known of it.

Threads: `restore` loads what was loaded before the agent stopped, then ends; `watch` looks after versions that have
just taken over. Everything else happens in the thread that calls.
"""

from __future__ import annotations

import threading
from dataclasses import replace

from lightkeeper.errors import ModelNotFound
from lightkeeper.model import ModelDescription, PackageIdentity
from lightkeeper.modelpackage.manifest import SwapLimits
from lightkeeper.models.record import Entry, Version
from lightkeeper.models.report import ModelStatus, Progress, SwapReport
from lightkeeper.models.restoring import Restoring
from lightkeeper.models.stock import Stock, version_of
from lightkeeper.models.swapping import Swapping
from lightkeeper.models.watching import Watching
from lightkeeper.names import check_model_name

JOIN_SECONDS = 5.0


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

    def wait_until_restored(self, timeout_seconds: float) -> bool:
        """Wait until nothing is left to restore; return whether that is so within the time."""
        self._threads[0].join(timeout_seconds)
        return not self._threads[0].is_alive()

    def load(self, url: str, name: str) -> ModelDescription:
        """Verify the package at a url and publish its model under a name, or adopt the restored one (`restoring.py`).

        Raises `NameInvalid`, `ModelAlreadyLoaded`, or what `ModelLoader.load` raises.
        """
        check_model_name(name)
        with self._stock.change():
            adopted = self._restoring.adopt(name, url)
            if adopted is not None:
                return adopted.description
            with self._stock.registry.reserve(name):
                opened = self._stock.loader.load(url)
                model = self._stock.model(name, url, opened)
                self._stock.publish(model, Entry(name, version_of(model), asked=opened.package.digest))
            return model.description

    def keep(self, url: str) -> PackageIdentity:
        """Verify the package at a url and hold it, to be deployed. Raises what `ModelLoader.load` raises."""
        with self._stock.change():
            package = self._stock.loader.keep(url)
            self._stock.hold_also(package.digest)
        return package

    def hold(self, digests: frozenset[str]) -> None:
        """Keep these packages, whether a model needs them or not, and no longer those that were held before."""
        self._stock.hold(digests)

    def deploy(self, name: str, version: Version) -> None:
        """Have a kept version run under a name: loaded where nothing is, else swapped in, unless it runs already.

        An application may adopt what was loaded so. Raises what `load` and `swap` raise.
        """
        check_model_name(name)
        self._restoring.finish(name)
        current = self.version(name)
        if current is None:
            self._load_kept(name, version)
        elif current.package.digest != version.package.digest:
            self._swapping.swap_kept(name, version)

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
            self._load_kept(name, version)
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

    def swap(self, name: str, url: str) -> SwapReport:
        """Put the package at a url in the place of the loaded model (see `Swapping.swap`)."""
        self._restoring.finish(name)
        return self._swapping.swap(name, url)

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

    def forget_returned(self, name: str) -> None:
        """Forget which version of a name was last taken back by itself: another try begins."""
        entry = self._stock.record.get(name)
        if entry is not None and entry.returned is not None:
            self._stock.record.put(replace(entry, returned=None))

    def _load_kept(self, name: str, version: Version) -> None:
        with self._stock.change(), self._stock.registry.reserve(name):
            self._stock.publish(self._stock.reopen(name, version), Entry(name, version))
        self._restoring.unclaim(name)
