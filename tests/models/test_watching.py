"""When a version that has just taken over is taken back: by its counters, and by a measurement beside the old one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightkeeper.errors import ModelRunFailed, SwapRunFailed, SwapTooSlow
from lightkeeper.loader import Opened
from lightkeeper.metrics import Reading
from lightkeeper.model import PackageIdentity
from lightkeeper.modelpackage.manifest import SwapLimits
from lightkeeper.models.record import Entry, ModelRecord
from lightkeeper.models.stock import Stock, version_of
from lightkeeper.models.watching import CALLS_LEAST, FAILURES_LEAST, Watching, fault
from lightkeeper.registry import LoadedModel, Registry
from lightkeeper.runtimes.base import Array
from lightkeeper.tensor import DataType, TensorMetadata

LIMITS = SwapLimits(latency_ratio=3.0, failure_share=0.1)
OLD = Reading(inferences=100, failures=0, total_seconds=1.0)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (Reading(), None),
        (Reading(inferences=100, total_seconds=2.9), None),
        (Reading(inferences=100, total_seconds=3.1), SwapTooSlow),
        (Reading(inferences=CALLS_LEAST - 1, total_seconds=99.0), None),
        (Reading(inferences=20, failures=FAILURES_LEAST), SwapRunFailed),
        (Reading(inferences=0, failures=FAILURES_LEAST - 1), None),
        (Reading(inferences=100, failures=10), None),
    ],
)
def test_counters_beyond_a_limit_are_a_fault(now: Reading, expected: type[Exception] | None) -> None:
    """A few calls prove nothing; many within the limits are fine."""
    found = fault(OLD, Reading(), now, LIMITS)
    assert (type(found) if found else None) is expected


def test_a_version_is_judged_by_what_the_old_one_did() -> None:
    """Callers that send what fails did so before."""
    often = Reading(inferences=50, failures=50)
    assert fault(often, Reading(), Reading(inferences=45, failures=55), LIMITS) is None
    assert isinstance(fault(often, Reading(), Reading(inferences=30, failures=70), LIMITS), SwapRunFailed)


def test_without_limits_nothing_is_a_fault() -> None:
    """Whoever takes the limits away gets no way back by itself."""
    assert fault(OLD, Reading(), Reading(inferences=100, failures=100, total_seconds=1e6), SwapLimits()) is None


class Timed:
    """A session that takes as long as `seconds` says, or fails."""

    inputs = outputs = (TensorMetadata("x", DataType.FLOAT32, (1,)),)
    optional_inputs = ()

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.fails = False
        self.closed = False

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """Take the time."""
        assert not self.closed
        if self.fails:
            raise ModelRunFailed("as told")
        time.sleep(self.seconds)
        return [inputs["x"]]

    def close(self) -> None:
        """Note it."""
        self.closed = True


class Shop:
    """A loader that opens what the test made, and says whether memory is short."""

    def __init__(self) -> None:
        self.kept: dict[str, Callable[[], Timed]] = {}
        self.short = False

    def load_kept(self, digest: str, _url: str) -> Opened:
        """Open a session of that digest."""
        return Opened(self.kept[digest](), PackageIdentity("m", digest, digest), None, SwapLimits())

    def memory_is_short(self) -> bool:
        """As told."""
        return self.short


class Bench:
    """One model `m`, swapped from `old` to `new`, and being watched."""

    def __init__(self, folder: Path, old: Timed, new: Timed) -> None:
        self.shop: Any = Shop()
        self.registry = Registry()
        self.record = ModelRecord(folder / "models.json")
        stock = Stock(registry=self.registry, loader=self.shop, record=self.record, shelf=None, recent_inputs=4)
        self.clock = 0.0
        self.watching = Watching(stock, seconds=60, monotonic=lambda: self.clock)
        self.old = stock.model("m", "/old", Opened(old, PackageIdentity("m", "1", "old"), None, SwapLimits()))
        opened = Opened(new, PackageIdentity("m", "2", "new"), None, SwapLimits())
        self.new = stock.model("m", "/new", opened, self.old.recent)
        with self.registry.reserve("m"):
            stock.publish(self.old, Entry("m", version_of(self.old), asked="old"))
        self.call(CALLS_LEAST)
        before = version_of(self.old)
        stock.replace(self.old, self.new, Entry("m", version_of(self.new), before, "old", on_trial=True))
        self.watching.begin(self.old, self.new, before, LIMITS, self.old.metrics.read())

    def call(self, times: int) -> None:
        """Run the model as Predict does."""
        for _ in range(times):
            model = self.registry.acquire("m")
            try:
                model.run({"x": np.zeros(1, np.float32)})
            except ModelRunFailed:
                pass
            finally:
                model.leave()

    def resume(self, baseline: Reading) -> None:
        """Go on as after a restart: the old version is not open, and the record says what it had done."""
        trial = self.watching.take("m")
        assert trial is not None
        self.old.close()
        self.watching.begin(None, self.new, version_of(self.old), LIMITS, baseline)

    @property
    def running(self) -> LoadedModel:
        """What answers now."""
        return self.registry.find("m")


def test_a_version_that_keeps_the_limits_stays(tmp_path: Path) -> None:
    """When the watch is over the old one is closed, and the record no longer speaks of a trial."""
    old, new = Timed(), Timed()
    bench = Bench(tmp_path, old, new)
    bench.call(50)
    bench.watching.look()
    assert bench.watching.seconds_left("m") == 60
    assert not old.closed
    bench.clock = 61
    bench.watching.look()
    assert bench.watching.seconds_left("m") is None
    assert (old.closed, new.closed) == (True, False)
    entry = bench.record.get("m")
    assert entry is not None
    assert (entry.current.package.digest, entry.on_trial) == ("new", False)


def test_a_version_that_is_slow_beside_the_old_one_is_taken_back(tmp_path: Path) -> None:
    """The old session was open all the while: it goes on where it stood."""
    old, new = Timed(0.001), Timed(0.02)
    bench = Bench(tmp_path, old, new)
    bench.call(CALLS_LEAST)
    bench.watching.look()
    assert bench.running is bench.old
    assert (old.closed, new.closed) == (False, True)
    entry = bench.record.get("m")
    assert entry is not None
    assert (entry.current.package.digest, entry.previous, entry.asked) == ("old", None, "old")
    assert entry.returned is not None
    assert (entry.returned.digest, entry.returned.reason) == ("new", "SWAP_TOO_SLOW")


def test_a_device_that_got_slower_takes_nothing_back(tmp_path: Path) -> None:
    """Both versions are slow then: the comparison beside each other tells."""
    old, new = Timed(), Timed(0.01)
    bench = Bench(tmp_path, old, new)
    old.seconds = 0.01
    bench.call(CALLS_LEAST)
    bench.watching.look()
    assert bench.running is bench.new
    assert not old.closed
    new.seconds = 0.04
    old.seconds = 0.0
    bench.call(CALLS_LEAST)
    bench.watching.look()
    assert bench.running is bench.old


def test_where_memory_gets_short_the_old_version_is_closed_and_opened_again_if_need_be(tmp_path: Path) -> None:
    """Going back then takes a load, and works all the same."""
    old, new, reopened = Timed(), Timed(), Timed()
    bench = Bench(tmp_path, old, new)
    bench.shop.short = True
    bench.shop.kept["old"] = lambda: reopened
    bench.watching.look()
    assert old.closed
    new.fails = True
    bench.call(FAILURES_LEAST)
    bench.watching.look()
    assert bench.running.session is reopened
    assert new.closed


def test_a_watch_after_a_restart_goes_by_what_the_old_version_had_done(tmp_path: Path) -> None:
    """Callers that sent what fails before the restart send it after it too."""
    new = Timed()
    bench = Bench(tmp_path, Timed(), new)
    bench.resume(Reading(inferences=50, failures=50))
    bench.call(10)
    new.fails = True
    bench.call(10)
    bench.watching.look()
    assert bench.running is bench.new
    bench.call(50)
    bench.shop.kept["old"] = Timed
    bench.watching.look()
    assert bench.running is not bench.new


@pytest.mark.parametrize(("now_seconds", "comes_back"), [(0.0, True), (0.02, False)])
def test_a_slow_version_after_a_restart_is_measured_beside_the_old_one(
    tmp_path: Path, now_seconds: float, comes_back: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Which is opened again for it, and is what runs then; a device that got slower takes nothing back."""
    old = Timed(now_seconds)
    bench = Bench(tmp_path, Timed(), Timed(0.02))
    bench.shop.kept["old"] = lambda: old
    bench.resume(Reading(inferences=CALLS_LEAST, total_seconds=0.001))
    bench.call(CALLS_LEAST)
    bench.watching.look()
    assert (bench.running.session is old) is comes_back
    assert not old.closed
    assert [record.getMessage() for record in caplog.records] == ["model_rolled_back"] * comes_back


def test_a_model_that_was_unloaded_is_watched_no_more(tmp_path: Path) -> None:
    """Its old version is closed as well."""
    old, new = Timed(), Timed()
    bench = Bench(tmp_path, old, new)
    bench.registry.take("m").close()
    bench.watching.look()
    assert (old.closed, bench.watching.seconds_left("m")) == (True, None)
