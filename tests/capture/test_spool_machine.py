"""The spool against a list, with a crash possible at every step: clauses 2.1 to 2.5 of docs/spec/capture.md."""

from __future__ import annotations

import errno
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from lightkeeper.capture.spool import Keep, Receipt, Room, Spool, State
from lightkeeper.capture.sums import read
from lightkeeper.capture.upkeep import DAY_MS
from lightkeeper.errors import CaptureIdTaken, SpoolBroken, SpoolDiskFull, SpoolFull
from tests.support.spools import IN_MEMORY, Clock, Disk, audited, crashed, is_whole, open_spool, stored

IDS = st.integers(0, 40).map(lambda number: f"id-{number}")
SIZES = st.lists(st.sampled_from([0, 1, 24, 64, 65, 300]), min_size=1, max_size=3)
ERRORS = st.sampled_from([errno.EIO, errno.ENOSPC])


class SpoolMachine(RuleBasedStateMachine):
    """What an agent may do to a spool, in any order; the model is what every capture's state must be."""

    room = Room(buffer=1000, batch=3, spool_max_bytes=1 << 40, free_floor_bytes=0)

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(dir=IN_MEMORY))
        self.opened: list[Spool] = []
        self.clock = Clock()
        self.states: dict[str, State] = {}
        self.order: list[str] = []
        self.ended_ms: dict[str, int] = {}
        self.accepted = 0

    @initialize()
    def begin(self) -> None:
        """Start with a new spool."""
        self._open(self.home / "spool-0")

    def _open(self, folder: Path) -> None:
        self.disk = Disk()
        self.disk_failed = False
        self.folder = folder
        keep = Keep(expire_days=7, ledger_days=30)
        self.spool = open_spool(folder, room=self.room, clock=self.clock, disk=self.disk, keep=keep)
        self.opened.append(self.spool)

    @rule(capture_id=IDS, sizes=SIZES)
    def accept(self, capture_id: str, sizes: list[int]) -> None:
        """A new id is accepted, a known one is refused."""
        if capture_id in self.states:
            with pytest.raises(CaptureIdTaken):
                self.spool.accept(stored(capture_id, *sizes))
            return
        try:
            closed = self.spool.accept(stored(capture_id, *sizes))
        except SpoolFull:
            assert self.room.thin
            return
        self._note_accepted(capture_id)
        if closed is not None:
            self._close()

    def _note_accepted(self, capture_id: str) -> None:
        self.accepted += 1
        self.states[capture_id] = State.OPEN
        self.order.append(capture_id)
        self._note_thinned()

    def _note_thinned(self) -> None:
        """Follow the spool where it thins: what waits may go, nothing else."""
        for capture_id, state in self.states.items():
            if self.room.thin and not state.is_final and self.spool.state_of(capture_id) is State.THINNED:
                self._finish(capture_id, State.THINNED)

    def _finish(self, capture_id: str, state: State) -> None:
        self.states[capture_id] = state
        self.ended_ms.setdefault(capture_id, self.clock.ms)
        if state is State.UPLOADED:
            self.ended_ms[capture_id] = self.clock.ms

    def _close(self) -> None:
        for capture_id, state in self.states.items():
            if state is State.OPEN:
                self.states[capture_id] = State.WAITING

    @rule()
    def close(self) -> None:
        """The push period ends."""
        is_open = State.OPEN in self.states.values()
        assert (self.spool.close_batch() is not None) == is_open
        self._close()

    @rule(state=st.sampled_from([State.WRITTEN, State.UPLOADED]))
    def deliver(self, state: State) -> None:
        """The oldest batch is delivered: its captures come whole, in the order they were accepted."""
        batch = self.spool.next_batch()
        waiting = [capture_id for capture_id in self.order if self.states.get(capture_id) is State.WAITING]
        if batch is None:
            assert waiting == []
            return
        captures = self.spool.captures_of(batch)
        assert [capture.id for capture in captures] == waiting[: len(captures)]
        assert all(is_whole(capture) for capture in captures)
        self.spool.settle(batch, Receipt(state, f"{batch.name}.jsonl", 1, "ab"))
        for capture in captures:
            self._finish(capture.id, state)

    @rule()
    def upload_written(self) -> None:
        """What was written to the disk is uploaded; nobody's room changes."""
        batch = self.spool.next_written()
        if batch is None:
            return
        held_bytes = self.spool.held_bytes
        self.spool.settle(batch, Receipt(State.UPLOADED, f"{batch.name}.jsonl", 1, "ab"))
        assert self.spool.held_bytes == held_bytes
        for capture_id, state in self.states.items():
            if state is State.WRITTEN and self.spool.state_of(capture_id) is State.UPLOADED:
                self._finish(capture_id, State.UPLOADED)

    @rule()
    def give_up(self) -> None:
        """The oldest batch cannot be delivered."""
        batch = self.spool.next_batch()
        if batch is None:
            return
        captures = self.spool.captures_of(batch)
        self.spool.give_up(batch, State.QUARANTINED, "PAYLOAD_LOST")
        for capture in captures:
            self._finish(capture.id, State.QUARANTINED)

    @rule(days=st.sampled_from([0, 1, 8, 31]))
    def let_time_pass(self, days: int) -> None:
        """What waited too long expires, what is long done with is forgotten, and nothing else."""
        self.clock.ms += days * DAY_MS
        for _ in range(30):
            self.spool.maintain()
        for capture_id in list(self.states):
            if self.states[capture_id] is State.WAITING and self.spool.state_of(capture_id) is State.EXPIRED:
                assert days
                self._finish(capture_id, State.EXPIRED)
            if capture_id in self.ended_ms and self.clock.ms - self.ended_ms[capture_id] > 30 * DAY_MS:
                del self.states[capture_id], self.ended_ms[capture_id]
                self.order.remove(capture_id)

    @rule()
    def crash(self) -> None:
        """The agent is gone, and starts on what the disk has."""
        self._open(crashed(self.folder, self.home / f"spool-{len(self.opened)}"))

    @rule(capture_id=IDS, sizes=SIZES, after=st.integers(0, 6), error=ERRORS, dies=st.booleans())
    def accept_on_a_failing_disk(self, capture_id: str, sizes: list[int], after: int, error: int, dies: bool) -> None:
        """A capture that was refused for the disk's sake is not there, whether the agent goes on or dies."""
        if capture_id in self.states:
            return
        self.disk.fail(after, error, lasting=dies)
        refused = False
        try:
            closed = self.spool.accept(stored(capture_id, *sizes))
        except (SpoolBroken, SpoolDiskFull, SpoolFull):
            refused = True
        self.disk.fail(-1)
        self.disk_failed = True
        if not refused:
            self._note_accepted(capture_id)
            if closed is not None:
                self._close()
        if dies:
            self.crash()

    @invariant()
    def every_capture_is_where_it_should_be(self) -> None:
        """Each id in its one state, and those that were never accepted in none."""
        if not self.opened:
            return
        self._note_thinned()
        known = self.spool.journal.read("SELECT id FROM captures")
        assert {capture_id: self.spool.state_of(capture_id) for (capture_id,) in known} == self.states

    @rule()
    def audit(self) -> None:
        """Accepted = states + forgotten; weights; files and rows.

        A file that a failing disk did not let go of is found at the next start, and at no other time left behind.
        """
        left_behind = audited(self.folder).faults if self.disk_failed else ()
        if left_behind:
            assert all(fault.startswith("no capture names the payload file ") for fault in left_behind), left_behind
            self.crash()
        audit = audited(self.folder)
        assert audit.faults == ()
        assert audit.accepted == self.accepted
        sums = read(self.spool.journal)
        assert sums.accepted == audit.accepted
        assert sums.states == {state: audit.states[state] + audit.forgotten.get(state, 0) for state in State}
        open_and_waiting = audit.states[State.OPEN] + audit.states[State.WAITING]
        assert (self.spool.held_bytes > 0) == (open_and_waiting > 0)

    def teardown(self) -> None:
        """Look once more, and leave nothing."""
        self.audit()
        for spool in self.opened:
            spool.close()
        shutil.rmtree(self.home)


class ThinningMachine(SpoolMachine):
    """The same with a spool that is small, and thins."""

    room = Room(buffer=1000, batch=3, spool_max_bytes=9000, free_floor_bytes=0, thin=True)

    @invariant()
    def the_bound_holds(self) -> None:
        """What is held never passes what may be."""
        if self.opened:
            assert self.spool.held_bytes <= self.room.spool_max_bytes


@pytest.mark.parametrize("machine", [SpoolMachine, ThinningMachine])
def test_the_spool_does_what_a_list_would_whatever_happens_in_whatever_order(machine: Any, fault_effort: int) -> None:
    """Accepting, closing, delivering, giving up, time, failing disks and crashes, mixed at random."""
    effort = settings(
        max_examples=25 * fault_effort,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=effort)
    assert machine.audit  # every run ends with it
