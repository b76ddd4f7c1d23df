"""The rollout's rules, held against fleets whose devices succeed, fail, vanish, return, and answer twice and late."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lightkeeper.hub.rollout import (
    DEVICE_STATUS,
    HAS_TAKEN,
    IN_FLIGHT,
    OPEN,
    TO_REVERT,
    Amount,
    Counters,
    InFlight,
    Progress,
    RolloutSettings,
    Stage,
    StageStatus,
    Step,
    advance,
    answered,
    asked,
    started_again,
)

TIMEOUT_MS = 1000
OLD, NEW = "old", "new"


@dataclass
class Fleet:
    """A stage's devices in memory, to which steps are applied as they say."""

    settings: RolloutSettings
    progress: dict[str, Progress]
    since_ms: dict[str, int] = field(default_factory=dict)
    has: dict[str, str] = field(default_factory=dict)
    status: StageStatus = StageStatus.IN_PROGRESS
    message: str = ""
    took: set[str] = field(default_factory=set)

    @property
    def stage(self) -> Stage:
        """The stage as `advance` sees it."""
        in_flight = tuple(
            InFlight(name, progress, self.since_ms[name])
            for name, progress in self.progress.items()
            if progress in IN_FLIGHT
        )
        return Stage(self.status, self.settings, Counter(self.progress.values()), in_flight)

    def move(self, name: str, progress: Progress, now_ms: int) -> None:
        """Put a device where it stands now."""
        if progress is not self.progress[name]:
            self.progress[name], self.since_ms[name] = progress, now_ms
            if progress is Progress.TAKEN:
                self.took.add(name)

    def tick(self, now_ms: int) -> Step:
        """Do what the stage needs."""
        step = advance(self.stage, now_ms)
        for name in step.absent:
            self.move(name, Progress.ABSENT, now_ms)
        for name in step.silent:
            self.move(name, Progress.SILENT, now_ms)
        for name, progress in self.progress.items():
            if step.withdraw and progress is Progress.OFFERED:
                self.move(name, Progress.WAITING, now_ms)
            elif step.revert and progress in TO_REVERT:
                self.move(name, Progress.REVERTING, now_ms)
        waiting = [name for name, progress in self.progress.items() if progress is Progress.WAITING]
        for name in waiting[: step.offer]:
            self.move(name, Progress.OFFERED, now_ms)
        self.status, self.message = step.status, step.message or self.message
        return step

    def ask(self, name: str, now_ms: int) -> Progress:
        """Let a device ask for its deployments."""
        is_open, before = self.status is StageStatus.IN_PROGRESS, self.progress[name]
        after = asked(before, is_open=is_open, has_place=self.stage.has_place)
        offered = [one for one, progress in self.progress.items() if progress is Progress.OFFERED]
        if before is not Progress.OFFERED and after is Progress.TAKEN and offered:
            self.move(offered[-1], Progress.WAITING, now_ms)
        self.move(name, after, now_ms)
        return after

    def answer(self, name: str, now_ms: int, *, succeeded: bool) -> None:
        """Let a device answer."""
        self.move(name, answered(self.progress[name], succeeded=succeeded), now_ms)


amounts = st.one_of(
    st.integers(1, 8).map(lambda number: Amount(number=number)),
    st.sampled_from([0.01, 0.1, 0.34, 0.5, 1.0]).map(lambda share: Amount(share=share)),
)
rollout_settings = st.builds(
    RolloutSettings,
    batch=amounts,
    failures=amounts,
    silence=amounts,
    device_timeout_ms=st.just(TIMEOUT_MS),
    rolls_back=st.booleans(),
)


class RolloutMachine(RuleBasedStateMachine):
    """Any order of what devices, operators and the clock do."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 0
        self.fleet = Fleet(RolloutSettings(), {})
        self.size = 0

    @initialize(settings=rollout_settings, size=st.integers(0, 12))
    def begin(self, settings: RolloutSettings, size: int) -> None:
        """Start a stage of some devices, all with the old version."""
        names = [f"device-{number}" for number in range(size)]
        self.fleet = Fleet(settings, dict.fromkeys(names, Progress.WAITING), has=dict.fromkeys(names, OLD))
        self.took_when_closed: set[str] | None = None
        self.size = size

    def device(self, data: st.DataObject, *progress: Progress) -> str | None:
        """Draw a device that stands at one of these."""
        names = [name for name, one in self.fleet.progress.items() if one in progress]
        return data.draw(st.sampled_from(names)) if names else None

    @rule(passed_ms=st.sampled_from([0, 1, TIMEOUT_MS // 2, TIMEOUT_MS]))
    def time_passes(self, passed_ms: int) -> None:
        """The ticker looks at the stage, and once more: the second look finds nothing to do."""
        self.now_ms += passed_ms
        step = self.fleet.tick(self.now_ms)
        if step.offer:
            batch = self.fleet.settings.batch.of(self.fleet.stage.total)
            assert self.fleet.stage.count(*IN_FLIGHT) <= batch
        if step.status is StageStatus.DEPLOYED:
            assert Counters.of(self.fleet.stage.counts).pending == 0
        assert advance(self.fleet.stage, self.now_ms) == (
            replace(Step(step.status), withdraw=step.status is StageStatus.STOPPING)
        )

    @rule(data=st.data(), times=st.integers(1, 2))
    def device_asks(self, data: st.DataObject, times: int) -> None:
        """A device asks, perhaps twice."""
        name = self.device(data, *Progress)
        for _ in range(times):
            if name is not None and self.fleet.ask(name, self.now_ms) is Progress.TAKEN:
                assert self.fleet.stage.count(*IN_FLIGHT) <= self.largest_batch

    @rule(data=st.data(), succeeded=st.booleans(), times=st.integers(1, 2))
    def device_answers(self, data: st.DataObject, succeeded: bool, times: int) -> None:
        """A device that took the new version answers in time or late, perhaps twice and not the same."""
        name = self.device(data, *HAS_TAKEN, Progress.REVERTING, Progress.REVERTED)
        if name is None:
            return
        before = self.fleet.progress[name]
        for turn in range(times):
            self.fleet.answer(name, self.now_ms, succeeded=succeeded ^ bool(turn))
        if before in {Progress.TAKEN, Progress.SILENT}:
            assert self.fleet.progress[name] is (Progress.SUCCEEDED if succeeded else Progress.FAILED)
            self.fleet.has[name] = NEW if succeeded else OLD
        else:
            assert self.fleet.progress[name] is before

    @rule(data=st.data())
    def device_is_back(self, data: st.DataObject) -> None:
        """A device has gone back to what it had."""
        name = self.device(data, Progress.REVERTING)
        if name is not None:
            self.fleet.has[name] = OLD
            self.fleet.move(name, Progress.REVERTED, self.now_ms)

    @rule(data=st.data(), removed=st.booleans())
    def device_leaves_the_stage(self, data: st.DataObject, removed: bool) -> None:
        """A later plan takes a device over, or it is deregistered."""
        name = self.device(data, *OPEN)
        if name is not None and removed:
            del self.fleet.progress[name], self.fleet.has[name]
        elif name is not None:
            self.fleet.move(name, Progress.SUPERSEDED, self.now_ms)

    @precondition(lambda self: self.fleet.status is StageStatus.IN_PROGRESS)
    @rule()
    def operator_stops(self) -> None:
        """The operator stops the stage; what was offered is taken back with it."""
        self.fleet.status = StageStatus.STOPPING
        self.fleet.tick(self.now_ms)

    @precondition(lambda self: self.fleet.status in {StageStatus.STOPPED, StageStatus.FAILED})
    @rule()
    def operator_starts_again(self) -> None:
        """The operator starts a stopped or failed stage again."""
        for name, progress in self.fleet.progress.items():
            self.fleet.move(name, started_again(progress), self.now_ms)
        self.fleet.status = StageStatus.IN_PROGRESS
        self.took_when_closed = None

    @property
    def largest_batch(self) -> int:
        """The batch of all devices there were at first: a share of fewer is no more."""
        return self.fleet.settings.batch.of(self.size)

    @invariant()
    def the_batch_holds(self) -> None:
        """Never are more devices in flight than a batch has."""
        assert self.fleet.stage.count(*IN_FLIGHT) <= self.largest_batch

    @invariant()
    def a_closed_stage_reaches_no_other_device(self) -> None:
        """Nobody takes the new version from a stage that has failed, stopped or is stopping."""
        if self.fleet.status is StageStatus.IN_PROGRESS:
            self.took_when_closed = None
            return
        if self.took_when_closed is None:
            self.took_when_closed = set(self.fleet.took)
        assert self.fleet.took == self.took_when_closed
        assert self.fleet.stage.count(Progress.OFFERED) == 0

    @invariant()
    def every_device_is_counted_once(self) -> None:
        """The three counters add up to the stage's devices."""
        counters = Counters.of(self.fleet.stage.counts)
        assert min(counters.success, counters.pending, counters.failed) >= 0
        assert counters.success + counters.pending + counters.failed == self.fleet.stage.total

    @invariant()
    def every_device_has_what_its_progress_says(self) -> None:
        """SUCCEEDED has the new version; who was rolled back or failed has the old one."""
        for name, progress in self.fleet.progress.items():
            if progress is Progress.SUCCEEDED:
                assert self.fleet.has[name] == NEW
            elif progress in {Progress.FAILED, Progress.REVERTED}:
                assert self.fleet.has[name] == OLD

    @invariant()
    def a_failed_stage_keeps_nobody_on_the_new_version(self) -> None:
        """Where the policy is to roll back, all that may have it are on the way back."""
        if self.fleet.status is StageStatus.FAILED and self.fleet.settings.rolls_back:
            assert self.fleet.stage.count(*TO_REVERT) == 0


TestRolloutMachine = RolloutMachine.TestCase
TestRolloutMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@given(
    how=rollout_settings,
    fates=st.lists(st.sampled_from(["succeeds", "fails", "vanishes", "never comes", "returns"]), max_size=30),
)
@settings(deadline=None)
def test_every_stage_comes_to_where_only_devices_that_are_away_hold_it(how: RolloutSettings, fates: list[str]) -> None:
    """Whatever devices do, the stage ends; or waits for none but those that never came or fell silent."""
    names = {f"device-{number}": fate for number, fate in enumerate(fates)}
    fleet = Fleet(how, dict.fromkeys(names, Progress.WAITING), has=dict.fromkeys(names, OLD))
    now_ms, asks = 0, Counter[str]()
    for _ in range(10 * len(names) + 5):
        fleet.tick(now_ms)
        for name, fate in names.items():
            away = fate == "never comes" or (fate == "returns" and fleet.progress[name] is not Progress.ABSENT)
            if fate == "returns" and asks[name]:
                away = False
            if away:
                continue
            asks[name] += 1
            if fleet.ask(name, now_ms) is Progress.TAKEN and fate != "vanishes":
                fleet.answer(name, now_ms, succeeded=fate != "fails")
        now_ms += TIMEOUT_MS // 2
    left = {progress for progress in fleet.progress.values() if progress in OPEN}
    if fleet.status is StageStatus.IN_PROGRESS:
        assert left
        assert left <= {Progress.ABSENT, Progress.SILENT}
    elif fleet.status is StageStatus.DEPLOYED:
        assert not left
        assert fleet.stage.count(Progress.FAILED) < how.failures.of(max(1, len(names))) or not names
    else:
        assert fleet.status is StageStatus.FAILED
        assert {"fails", "vanishes"} & set(fates)


def fleet_of(size: int, **how: object) -> Fleet:
    """Make a fleet that waits."""
    given_settings = RolloutSettings(device_timeout_ms=TIMEOUT_MS)
    return Fleet(
        replace(given_settings, **how),  # type: ignore[arg-type]  # the test's own words
        {f"device-{number}": Progress.WAITING for number in range(size)},
    )


def test_a_device_that_never_comes_frees_its_place_and_gets_its_turn_when_it_returns() -> None:
    """It stays pending, the batch goes on without it, and it takes the version as soon as it asks."""
    fleet = fleet_of(3, batch=Amount(number=1))
    fleet.tick(0)
    fleet.tick(TIMEOUT_MS)
    assert fleet.progress == {
        "device-0": Progress.ABSENT,
        "device-1": Progress.OFFERED,
        "device-2": Progress.WAITING,
    }
    for name in ("device-1", "device-2"):
        fleet.ask(name, TIMEOUT_MS)
        fleet.answer(name, TIMEOUT_MS, succeeded=True)
        fleet.tick(TIMEOUT_MS)
    assert fleet.status is StageStatus.IN_PROGRESS
    assert Counters.of(fleet.stage.counts) == Counters(success=2, pending=1, failed=0)
    assert fleet.ask("device-0", TIMEOUT_MS) is Progress.TAKEN
    fleet.answer("device-0", TIMEOUT_MS, succeeded=True)
    assert fleet.tick(TIMEOUT_MS).status is StageStatus.DEPLOYED


def test_an_absent_device_that_returns_to_a_full_batch_waits_for_a_place() -> None:
    """Its return does not make the batch larger."""
    fleet = fleet_of(2, batch=Amount(number=1))
    fleet.tick(0)
    fleet.tick(TIMEOUT_MS)
    assert fleet.ask("device-1", TIMEOUT_MS) is Progress.TAKEN
    assert fleet.ask("device-0", TIMEOUT_MS) is Progress.WAITING


@pytest.mark.parametrize("waited_ms", [0, TIMEOUT_MS])
def test_a_device_that_asks_takes_the_place_of_one_that_has_not(waited_ms: int) -> None:
    """Whoever is there goes first, however long the other's offer stands; the batch does not grow."""
    fleet = fleet_of(3, batch=Amount(number=1))
    fleet.tick(0)
    fleet.tick(waited_ms)
    (offered,) = (name for name, progress in fleet.progress.items() if progress is Progress.OFFERED)
    assert fleet.ask("device-2", waited_ms) is Progress.TAKEN
    assert fleet.progress[offered] is Progress.WAITING
    assert fleet.stage.count(*IN_FLIGHT) == 1
    assert fleet.ask(offered, waited_ms) is Progress.WAITING
    fleet.answer("device-2", waited_ms, succeeded=True)
    fleet.tick(waited_ms)
    assert fleet.ask(offered, waited_ms) is Progress.TAKEN


def test_a_version_that_takes_devices_down_stops_the_stage() -> None:
    """Devices that took it and fell silent send no result, which is a result."""
    fleet = fleet_of(20, batch=Amount(number=4))
    fleet.tick(0)
    for name in list(fleet.progress)[:4]:
        fleet.ask(name, 0)
    step = fleet.tick(TIMEOUT_MS)
    assert step.status is StageStatus.FAILED
    assert step.message == "4 of the 4 devices that took the deployment fell silent: rolling back"
    assert fleet.stage.count(Progress.REVERTING) == 4


def test_one_silent_device_stops_nothing() -> None:
    """A lost connection is no pattern."""
    fleet = fleet_of(1)
    fleet.tick(0)
    fleet.ask("device-0", 0)
    assert fleet.tick(TIMEOUT_MS).status is StageStatus.IN_PROGRESS
    assert Counters.of(fleet.stage.counts).pending == 1


def test_do_nothing_leaves_devices_where_they_are() -> None:
    """The stage fails and nobody is sent back."""
    fleet = fleet_of(4, batch=Amount(number=2), failures=Amount(number=1), rolls_back=False)
    fleet.tick(0)
    for name, succeeded in (("device-0", True), ("device-1", False)):
        fleet.ask(name, 0)
        fleet.answer(name, 0, succeeded=succeeded)
    step = fleet.tick(0)
    assert (step.status, step.message) == (
        StageStatus.FAILED,
        "1 of 4 devices failed, the threshold is 1: stopped where it is",
    )
    assert Counters.of(fleet.stage.counts) == Counters(success=1, pending=2, failed=1)


@pytest.mark.parametrize(
    ("text", "of_ten"), [("1", 1), ("20", 10), ("0.1", 1), ("0.25", 3), ("1.0", 10), ("0.000001", 1)]
)
def test_an_amount_is_a_number_or_a_share(text: str, of_ten: int) -> None:
    """A share is rounded up; never less than one device, never more than all."""
    assert Amount.parse(text).of(10) == of_ten


@pytest.mark.parametrize("text", ["", "0", "-1", "0.0", "1.5", "10%", "ten", "01", "1e3", "99999999", ".5"])
def test_an_amount_that_says_nothing_is_refused(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ValueError, match="share"):
        Amount.parse(text)


def test_every_progress_has_a_word_of_the_api() -> None:
    """No device is without a status."""
    assert set(DEVICE_STATUS) == set(Progress)
