"""Swapping: a new version is loaded beside the running one, answers the same inputs, and only then takes its place.

Steps:

1. The name is claimed; an earlier version that is still being watched counts as kept.
2. The package is verified and opened as by LoadModel (`loader.py`): memory is checked with the old version still open.
3. Callers of the old version must fit the new one (`comparison.check_interface`).
4. Both answer the last inputs of Predict; without any, the package's golden input; without that, zeros.
5. The differences must lie within the limits of the package, and of the configuration where the package says nothing.
6. The new version takes the name in one step: calls from then on go to it, those under way end on the old one.
7. It is watched (`watching.py`); then the old one is closed, after its last call has left.

A step that fails leaves the old version as it was.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lightkeeper.errors import ModelNotFound, PreviousVersionMissing, SwapUnderway
from lightkeeper.loader import Opened
from lightkeeper.modelpackage.manifest import SwapLimits
from lightkeeper.models import comparison
from lightkeeper.models.record import Entry, Version
from lightkeeper.models.report import GOLDEN, RECENT, ZEROS, Comparison, Progress, SwapReport
from lightkeeper.models.stock import Stock, version_of
from lightkeeper.models.watching import Watching
from lightkeeper.recent import Inputs
from lightkeeper.registry import LoadedModel
from lightkeeper.runtimes.base import zeros

log = logging.getLogger(__name__)


class Swapping:
    """Swaps versions. Any number of threads may use it; a name is changed by one at a time."""

    def __init__(self, stock: Stock, watching: Watching, *, limits: SwapLimits) -> None:
        """Take the configuration's limits."""
        self._stock = stock
        self._watching = watching
        self._limits = limits
        self._claiming = threading.Lock()
        self._progress: dict[str, Progress] = {}

    def progress(self, name: str) -> Progress | None:
        """Return how far the swap of a name is, or None where none is under way."""
        return self._progress.get(name)

    def swap(self, name: str, url: str) -> SwapReport:
        """Put the package at a url in the place of the loaded model.

        Raises `ModelNotFound`, what `ModelLoader.load` raises, or a `SwapRefused`.
        """
        return self._change(name, lambda: self._stock.loader.load(url, self._advance(name)), url)

    def swap_kept(self, name: str, version: Version) -> SwapReport:
        """Put a version whose package is kept in the place of the loaded model. Raises what `swap` does."""
        return self._change(
            name, lambda: self._stock.loader.load_kept(version.package.digest, version.url), version.url
        )

    def _change(self, name: str, open_version: Callable[[], Opened], url: str) -> SwapReport:
        started = time.monotonic()
        with self._claimed(name), self._stock.change():
            old = self._entered(name)
            try:
                opened = open_version()
                try:
                    report = self._swap(old, opened, url)
                except BaseException:
                    opened.session.close()
                    raise
            finally:
                old.leave()
            if report.comparison is None:
                opened.session.close()  # it runs already
            elif not report.watch_seconds:
                old.close()
        log.info(
            "model_swapped",
            extra={
                "model": name,
                "version": report.new.version,
                "from_version": report.old.version,
                "seconds": round(time.monotonic() - started, 3),
            },
        )
        return report

    def roll_back(self, name: str) -> SwapReport:
        """Put the version before in the place of the loaded one, without comparing them.

        Raises `ModelNotFound`, `PreviousVersionMissing`, `SwapUnderway`, or what opening the version before raises.
        """
        with self._claimed(name), self._stock.change():
            current = self._stock.registry.find(name)
            trial = self._watching.take(name)
            if trial is not None:
                self._watching.bring_back(trial, None)
                return SwapReport(name, current.package, trial.before.package)
            entry = self._stock.record.get(name)
            if entry is None or entry.previous is None:
                raise PreviousVersionMissing(f"no version of {name} before this one is known", model=name)
            back = self._stock.reopen(name, entry.previous, current.recent)
            after = Entry(name, entry.previous, previous=entry.current, asked=entry.asked)
            self._put(current, back, after)
            log.info(
                "model_rolled_back",
                extra={
                    "model": name,
                    "version": back.package.version,
                    "from_version": current.package.version,
                    "reason": "ASKED_FOR",
                },
            )
            current.close()
            return SwapReport(name, current.package, back.package)

    @contextmanager
    def _claimed(self, name: str) -> Iterator[None]:
        with self._claiming:
            if name in self._progress:
                raise SwapUnderway(f"another change of {name} is under way", model=name)
            self._progress[name] = Progress("verifying")
        try:
            yield
        finally:
            del self._progress[name]

    def _entered(self, name: str) -> LoadedModel:
        """Return the model with a call entered, so that it stays open, and not being watched any more."""
        self._watching.settle(name)
        return self._stock.registry.acquire(name)

    def _advance(self, name: str) -> Callable[[int], None]:
        def advance(size_bytes: int) -> None:
            self._progress[name] = Progress("verifying", self._progress[name].done + size_bytes)

        return advance

    def _swap(self, old: LoadedModel, opened: Opened, url: str) -> SwapReport:
        name = old.description.name
        if opened.package.digest == old.package.digest:
            return SwapReport(name, old.package, opened.package)
        comparison.check_interface(old.session, opened.session)
        limits = opened.swap_limits.over(self._limits)
        compared = self._compare(old, opened)
        for fault in comparison.faults(compared, limits):
            raise fault
        new = self._stock.model(name, url, opened, old.recent)
        entry = self._stock.record.get(name)
        watched = self._watching.seconds > 0
        before = version_of(old)
        asked, baseline = entry.asked if entry else "", old.metrics.read() if watched else None
        after = Entry(name, version_of(new), before, asked=asked, on_trial=watched, baseline=baseline)
        self._stock.replace(old, new, after)
        if watched:
            self._watching.begin(old, new, before, limits, baseline)
        return SwapReport(name, old.package, new.package, compared, self._watching.seconds)

    def _compare(self, old: LoadedModel, opened: Opened) -> Comparison:
        name = old.description.name
        inputs, source = _inputs(old, opened.golden_inputs)

        def advance(done: int, total: int) -> None:
            self._progress[name] = Progress("comparing", done, total)

        return comparison.compare(old.session, opened.session, inputs, source, advance)

    def _put(self, old: LoadedModel, new: LoadedModel, entry: Entry) -> None:
        try:
            self._stock.replace(old, new, entry)
        except ModelNotFound:
            new.session.close()
            raise


def _inputs(old: LoadedModel, golden: Inputs | None) -> tuple[list[Inputs], str]:
    recent = old.recent.all()
    if recent:
        return recent, RECENT
    if golden is not None:
        return [golden], GOLDEN
    return [{tensor.name: zeros(tensor) for tensor in old.session.inputs}], ZEROS
