"""The delivery: what it closes and when, in which order batches go, and what it does when they do not."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lightkeeper.capture.delivery import Delivery
from lightkeeper.capture.disk import DiskSink
from lightkeeper.capture.files import RealFiles
from lightkeeper.capture.ledger import Batch, Receipt, State, Waiting
from lightkeeper.capture.retry import SUSPECT_AFTER_ATTEMPTS
from lightkeeper.capture.sink import Sink
from lightkeeper.capture.spool import Spool
from lightkeeper.capture.undelivered import Undelivered
from lightkeeper.errors import (
    DeliveryInterrupted,
    DestinationRefusing,
    DestinationUnreachable,
    ObjectRefused,
)
from tests.support.batches import LAYOUT, Clock, open_spool, picture, stored, tree

PERIOD_SECONDS = 4.0


@dataclass
class FaultySink:
    """A disk that fails as a test says: for all batches, or for those that hold a certain capture."""

    disk: DiskSink
    fault: BaseException | None = None
    poison: dict[str, BaseException] = field(default_factory=dict)
    tried: list[str] = field(default_factory=list)

    def deliver(self, batch: Batch, captures: Sequence[Waiting]) -> Receipt:
        """See `Sink.deliver`."""
        self.tried.append(",".join(capture.id for capture in captures))
        for fault in [self.fault, *(self.poison.get(capture.id) for capture in captures)]:
            if fault is not None:
                raise fault
        return self.disk.deliver(batch, captures)


@dataclass
class Bench:
    """A spool, a sink and a delivery, on a clock that the test turns."""

    folder: Path
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        """Make them."""
        self.disk = self.folder / "captures"
        self.spool: Spool = open_spool(self.folder / "spool", root=self.disk.as_uri(), now_ms=self.clock.ms)
        self.sink = FaultySink(DiskSink(self.disk, layout=LAYOUT, files=RealFiles()))
        self.stopping = threading.Event()
        self.delivery = self.start(self.sink)

    def start(self, sink: Sink) -> Delivery:
        """Return a delivery whose clock is the test's."""
        return Delivery(
            self.spool,
            sink,
            undelivered=Undelivered(self.spool.quarantine, layout=LAYOUT, files=RealFiles()),
            push_period_seconds=PERIOD_SECONDS,
            stopping=self.stopping,
            now_ns=self.clock.ns,
            monotonic=self.clock.seconds,
            draw=lambda: 1.0,
        )

    def accept(self, *ids: str) -> None:
        """Accept captures; two make a batch."""
        for capture_id in ids:
            self.delivery.accepted(self.spool.accept(stored(capture_id)))

    def run(self, seconds: float) -> None:
        """Let so much time go by, taking steps when they are due."""
        end_ms = self.clock.now_ms + seconds * 1000
        while True:
            wait_seconds = self.delivery.step()
            if self.clock.now_ms + wait_seconds * 1000 > end_ms:
                self.clock.now_ms = end_ms
                return
            self.clock.now_ms += wait_seconds * 1000

    def delivered(self) -> list[str]:
        """Return the ids on the disk, in the order of their files."""
        lines = [
            line for name, data in tree(self.disk).items() if name.endswith(".jsonl") for line in data.splitlines()
        ]
        return [json.loads(line)["eventMetadata"]["eventId"] for line in lines]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A bench in a folder."""
    bench = Bench(tmp_path)
    yield bench
    bench.spool.close()


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the event words that were logged."""
    return [record.getMessage() for record in caplog.records]


def test_a_full_batch_is_delivered_at_once(bench: Bench) -> None:
    """No period has to end for it."""
    bench.accept("a", "b")
    bench.run(0)
    assert bench.delivered() == ["a", "b"]
    assert bench.spool.state_of("a") is State.WRITTEN


def test_an_open_batch_is_closed_when_its_period_ends(bench: Bench) -> None:
    """Counted from its oldest capture, not from a tick."""
    bench.run(1.0)
    bench.accept("a")
    bench.run(PERIOD_SECONDS - 0.01)
    assert bench.delivered() == []
    bench.run(0.01)
    assert bench.delivered() == ["a"]


def test_a_clock_that_is_set_back_holds_up_nothing(bench: Bench) -> None:
    """A capture from the future says nothing of its age, so it is written."""
    bench.accept("a")
    bench.clock.now_ms -= 3_600_000
    bench.run(0)
    assert bench.delivered() == ["a"]


def test_nothing_is_due_while_nothing_is_there(bench: Bench) -> None:
    """The thread sleeps until it is woken."""
    assert bench.delivery.step() == float("inf")


def test_batches_go_in_order_and_wait_for_the_first(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """With the destination away only the oldest is tried; all go when it is back, and each change is said once."""
    caplog.set_level(logging.INFO)
    bench.sink.fault = DestinationUnreachable("cut")
    bench.accept("a", "b", "c", "d")
    bench.run(2000)
    assert set(bench.sink.tried) == {"a,b"}
    assert events(caplog) == ["destination_away"]
    bench.sink.fault = None
    bench.run(301)
    assert bench.delivered() == ["a", "b", "c", "d"]
    assert events(caplog) == ["destination_away", "destination_back"]


def test_open_captures_are_closed_while_the_destination_is_away(bench: Bench) -> None:
    """So that the buffer has room again."""
    bench.sink.fault = DestinationUnreachable("cut")
    bench.accept("a", "b")
    bench.run(1)
    bench.accept("c")
    bench.run(PERIOD_SECONDS)
    assert bench.spool.state_of("c") is State.WAITING


def test_waits_double_up_to_their_bound(bench: Bench) -> None:
    """1, 2, 4 ... 300 seconds, as the specification says, where the jitter draws the most."""
    bench.sink.fault = DestinationUnreachable("cut")
    bench.accept("a", "b")
    waits = []
    for _ in range(11):
        assert bench.delivery.step() == 0
        waits.append(round(bench.delivery.step(), 6))
        bench.clock.now_ms += waits[-1] * 1000
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_a_success_begins_the_waits_anew(bench: Bench) -> None:
    """The next fault is a new one."""
    bench.sink.fault = DestinationUnreachable("cut")
    bench.accept("a", "b")
    bench.run(100)
    bench.sink.fault = None
    bench.run(300)
    bench.sink.fault = DestinationUnreachable("cut")
    bench.accept("c", "d")
    bench.delivery.step()
    assert bench.delivery.step() == 1.0


@pytest.mark.parametrize("fault", [ObjectRefused("too large"), DestinationRefusing("400"), ZeroDivisionError("a bug")])
def test_a_poisoned_batch_goes_to_quarantine_and_the_others_arrive(
    bench: Bench, fault: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """Its captures say where they are, its content is kept, and a WARNING and a counter tell."""
    bench.sink.poison["b"] = fault
    bench.spool.accept(stored("a", large=picture(1)))
    bench.accept("b", "c", "d", "e", "f")
    bench.run(500)
    assert bench.delivered() == ["c", "d", "e", "f"]
    assert bench.spool.state_of("a") is State.QUARANTINED
    assert bench.spool.state_of("b") is State.QUARANTINED
    assert bench.delivery.counts["quarantined"] == 1
    assert "batch_quarantined" in events(caplog)
    kept = tree(bench.folder / "spool" / "quarantine")
    assert picture(1) in kept.values()
    assert any(name.endswith(".cause.json") for name in kept)


def test_a_destination_that_refuses_every_batch_quarantines_none(bench: Bench) -> None:
    """A wrong setting is mended by a person, and then all arrive."""
    bench.sink.fault = DestinationRefusing("400")
    bench.accept("a", "b", "c", "d")
    bench.run(24 * 3600)
    assert len(bench.sink.tried) > 2 * SUSPECT_AFTER_ATTEMPTS
    assert bench.delivery.counts["quarantined"] == 0
    bench.sink.fault = None
    bench.run(900)
    assert sorted(bench.delivered()) == ["a", "b", "c", "d"]


def test_an_interrupted_delivery_leaves_the_batch(bench: Bench) -> None:
    """Nothing failed: the agent stops."""
    bench.sink.fault = DeliveryInterrupted("stopping")
    bench.accept("a", "b")
    bench.delivery.step()
    assert bench.delivery.counts["failed"] == 0
    assert bench.spool.state_of("a") is State.WAITING


def test_a_new_delivery_goes_on_where_the_last_one_stopped(bench: Bench) -> None:
    """After a restart, everything that waits is delivered."""
    bench.sink.fault = DestinationUnreachable("cut")
    bench.accept("a", "b", "c", "d")
    bench.run(10)
    bench.spool.close()
    again = Bench(bench.folder, clock=bench.clock)
    again.run(0)
    assert again.delivered() == ["a", "b", "c", "d"]
    again.spool.close()


@dataclass
class Running:
    """A delivery in a thread of its own, on the real clock."""

    folder: Path
    period_seconds: float = 3600.0

    def __post_init__(self) -> None:
        """Start it."""
        self.disk = self.folder / "captures"
        self.spool = open_spool(
            self.folder / "spool", root=self.disk.as_uri(), now_ms=lambda: time.time_ns() // 1_000_000
        )
        self.sink = FaultySink(DiskSink(self.disk, layout=LAYOUT, files=RealFiles()))
        self.delivery = Delivery(
            self.spool,
            self.sink,
            undelivered=Undelivered(self.spool.quarantine, layout=LAYOUT, files=RealFiles()),
            push_period_seconds=self.period_seconds,
            stopping=threading.Event(),
        )
        self.thread = threading.Thread(target=self.delivery.run, name="delivery")
        self.thread.start()

    def accept(self, *ids: str) -> None:
        """Accept captures as the recorder does."""
        for capture_id in ids:
            self.delivery.accepted(self.spool.accept(stored(capture_id)))

    def wait_for(self, state: State, capture_id: str, seconds: float = 10.0) -> bool:
        """Wait until a capture is in a state; False if it is not within the time."""
        deadline = time.monotonic() + seconds
        while self.spool.state_of(capture_id) is not state:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return True

    def stop(self) -> float:
        """Stop, and return how many seconds that took."""
        began = time.monotonic()
        self.delivery.stop()
        self.thread.join(10)
        assert not self.thread.is_alive()
        self.spool.close()
        return time.monotonic() - began


def test_the_thread_wakes_for_a_full_batch_and_for_a_period_that_ends(tmp_path: Path) -> None:
    """Both from a sleep without an end."""
    running = Running(tmp_path, period_seconds=0.2)
    running.accept("a", "b")
    assert running.wait_for(State.WRITTEN, "a")
    time.sleep(0.1)
    running.accept("c")
    assert running.wait_for(State.WRITTEN, "c")
    running.stop()


def test_the_thread_uses_no_processor_while_it_waits(tmp_path: Path) -> None:
    """Neither with nothing to do nor while the destination is away."""
    running = Running(tmp_path)
    running.sink.fault = DestinationUnreachable("cut")
    running.accept("a", "b", "c")
    time.sleep(0.3)
    before, tried = time.process_time(), len(running.sink.tried)
    time.sleep(0.7)
    assert time.process_time() - before < 0.2
    assert len(running.sink.tried) - tried < 12
    running.stop()


def test_flush_closes_and_delivers_what_is_open_and_says_so(tmp_path: Path) -> None:
    """True once everything that was there has arrived."""
    running = Running(tmp_path)
    running.accept("a", "b", "c")
    assert running.delivery.flush(10)
    assert running.spool.state_of("c") is State.WRITTEN
    assert running.delivery.flush(0)
    running.stop()


def test_flush_tries_at_once_and_says_when_it_is_in_vain(tmp_path: Path) -> None:
    """A back-off of minutes does not hold it up; a destination that is away makes it False in time."""
    running = Running(tmp_path)
    running.sink.fault = DestinationRefusing("400")  # waits of up to 30 seconds
    running.accept("a", "b")
    assert not running.delivery.flush(0.3)
    running.sink.fault = None
    assert running.delivery.flush(10)
    assert running.spool.state_of("a") is State.WRITTEN
    running.stop()


def test_stop_ends_a_wait_at_once(tmp_path: Path) -> None:
    """And what waits stays in the spool."""
    running = Running(tmp_path)
    running.sink.fault = DestinationUnreachable("cut")
    running.accept("a", "b")
    time.sleep(0.1)
    assert running.stop() < 1.0
    spool = open_spool(tmp_path / "spool", root="file:///x")
    assert spool.state_of("a") is State.WAITING
    spool.close()


def test_a_broken_spool_is_a_fault_like_others(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """The thread lives on, says so once, and tries again."""
    bench.accept("a", "b")
    bench.spool.journal.close()
    for _ in range(3):
        bench.run(10)
    assert events(caplog) == ["destination_away"]
