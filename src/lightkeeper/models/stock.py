"""Registry, record and shelf, kept in step: every change of a name goes through here.

Invariants
1. A change of a name in the registry and the change of its entry in the record happen under one lock, so that the
   record never names what was unloaded meanwhile. Models are opened before and closed after.
2. The registry changes first: a process that dies between the two comes back with what ran before, whole.
3. Packages leave the shelf only while no change is under way, so that none goes between its load and its entry.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from lightkeeper.errors import ModelNotFound
from lightkeeper.loader import ModelLoader, Opened
from lightkeeper.model import ModelDescription
from lightkeeper.modelpackage.shelf import Shelf
from lightkeeper.models.record import Entry, ModelRecord, Version
from lightkeeper.recent import RecentInputs
from lightkeeper.registry import LoadedModel, Registry


class Stock:
    """What runs, what is remembered, and what is kept. Any number of threads may use it."""

    def __init__(
        self,
        *,
        registry: Registry,
        loader: ModelLoader,
        record: ModelRecord,
        shelf: Shelf | None,
        recent_inputs: int,
    ) -> None:
        self.registry = registry
        self.loader = loader
        self.record = record
        self._shelf = shelf
        self._recent_inputs = recent_inputs
        self._lock = threading.RLock()
        self._counting = threading.Lock()
        self._changes = 0
        self._held: frozenset[str] = frozenset()

    def hold_also(self, digest: str) -> None:
        """Keep one more package on the shelf."""
        with self._counting:
            self._held |= {digest}

    def hold(self, digests: frozenset[str]) -> None:
        """Keep these packages on the shelf too, until others are named."""
        with self._counting:
            self._held = digests

    @contextmanager
    def change(self) -> Iterator[None]:
        """Say that a name is being changed; packages that nobody names any more go when the last change is over."""
        with self._counting:
            self._changes += 1
        try:
            yield
        finally:
            with self._counting:
                self._changes -= 1
                if not self._changes and self._shelf is not None:
                    self._shelf.retain(self.record.digests() | self._held)

    def model(self, name: str, url: str, opened: Opened, recent: RecentInputs | None = None) -> LoadedModel:
        """Return an open session as a model of a name; a successor takes the recent inputs over."""
        description = ModelDescription(name, url, tuple(opened.session.inputs), tuple(opened.session.outputs))
        return LoadedModel(description, opened.package, opened.session, recent or RecentInputs(self._recent_inputs))

    def reopen(self, name: str, version: Version, recent: RecentInputs | None = None) -> LoadedModel:
        """Return a model of a version that was loaded before. Raises what `ModelLoader.load_kept` does."""
        return self.model(name, version.url, self.loader.load_kept(version.package.digest, version.url), recent)

    def publish(self, model: LoadedModel, entry: Entry) -> None:
        """Make a model reachable under its name, which the caller has reserved."""
        with self._lock:
            self.registry.publish(model)
            self.record.put(entry)

    def replace(self, old: LoadedModel, new: LoadedModel, entry: Entry) -> None:
        """Put a model in another's place. Raises `ModelNotFound` where the old one is not there any more."""
        with self._lock:
            self.registry.replace(old, new)
            self.record.put(entry)

    def take(self, name: str) -> LoadedModel:
        """Take a model away, for the caller to close, and forget its name. Raises `ModelNotFound`."""
        with self._lock:
            model = self.registry.take(name)
            self.record.drop(name)
        return model

    def note(self, model: LoadedModel, **changes: object) -> None:
        """Change what the record says of a model, if it still runs."""
        name = model.description.name
        with self._lock:
            entry = self.record.get(name)
            try:
                runs = self.registry.find(name) is model
            except ModelNotFound:
                return
            if runs and entry is not None:
                self.record.put(replace(entry, **changes))  # type: ignore[arg-type]  # fields of Entry


def version_of(model: LoadedModel) -> Version:
    """Return the version that a model is."""
    return Version(model.package, model.description.url)
