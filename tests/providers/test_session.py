"""A device's session with boto3's own bookkeeping of credentials, and a clock that the test sets."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from heapq import heapify, heapreplace
from typing import Any

import pytest

from lightkeeper import errors
from lightkeeper.capture.retry import Retry, decide
from lightkeeper.heartbeat import JITTER
from lightkeeper.providers.exchange import DeviceCredentials
from lightkeeper.providers.session import (
    ENDING,
    PAUSES,
    REFRESH_SHARE,
    REFRESH_SPREAD,
    RENEWAL_SECONDS,
    DeviceSession,
)

START = datetime(2026, 11, 24, tzinfo=UTC)
HOUR = 3600.0


class World:
    """A clock, and an endpoint that gives credentials or a fault, and notes when it was asked."""

    def __init__(self, life_seconds: float = HOUR) -> None:
        self.seconds = 0.0
        self.ahead_seconds = 0.0
        self.life_seconds = life_seconds
        self.fault: errors.DeliveryFailed | None = None
        self.asked: list[float] = []

    def monotonic(self) -> float:
        """Return the seconds since the start."""
        return self.seconds

    def now(self) -> datetime:
        """Return the time of the day, by a clock that may be ahead."""
        return START + timedelta(seconds=self.seconds + self.ahead_seconds)

    def credentials(self) -> DeviceCredentials:
        """See `CredentialExchange.credentials`."""
        self.asked.append(self.seconds)
        if self.fault is not None:
            raise self.fault
        return DeviceCredentials(f"AK{len(self.asked)}", "s", "t", self.now() + timedelta(seconds=self.life_seconds))


def session_in(world: World, draw: Any = lambda: 0.0) -> DeviceSession:
    """Return a session in a world; with draws of 0 refreshes are as late, and pauses as short, as they get."""
    return DeviceSession(world, "eu-central-1", draw=draw, monotonic=world.monotonic, now=world.now)


def key(session: DeviceSession) -> str:
    """Return the id of the access key that a request would be signed with now."""
    return str(session.boto3().get_credentials().get_frozen_credentials().access_key)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[list[tuple[str, object]]]:
    """The events of the log with their reasons, as they come."""
    found: list[tuple[str, object]] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append((record.getMessage(), record.__dict__.get("reason")))

    handler = Handler()
    log = logging.getLogger("lightkeeper.providers.session")
    caplog.set_level(logging.INFO, log.name)
    log.addHandler(handler)
    yield found
    log.removeHandler(handler)


@pytest.mark.parametrize("life_seconds", [900.0, HOUR, 12 * HOUR])
@pytest.mark.parametrize("draw", [0.0, 1.0])
def test_credentials_are_exchanged_anew_long_before_they_end(life_seconds: float, draw: float) -> None:
    """At a share of their life, whatever that is, and never at each request."""
    world = World(life_seconds)
    session = session_in(world, lambda: draw)
    due_seconds = life_seconds * REFRESH_SHARE * (1 - REFRESH_SPREAD * draw)
    for world.seconds in (0.0, 1.0, due_seconds - 1):
        assert key(session) == "AK1"
    world.seconds = due_seconds + 1
    assert key(session) == "AK2"
    assert len(world.asked) == 2


def test_credentials_serve_to_their_end_while_the_endpoint_is_away(said: list[tuple[str, object]]) -> None:
    """Requests go on being signed, and the log has one line when it goes, one when it is back."""
    world = World()
    session = session_in(world, lambda: 1.0)
    assert key(session) == "AK1"
    world.fault = errors.DestinationUnreachable("gone")
    last = HOUR - ENDING.total_seconds()
    for world.seconds in range(2000, int(last), 10):
        assert key(session) == "AK1"
    world.seconds = last + 1
    with pytest.raises(errors.DestinationUnreachable):
        key(session)
    assert said == [("cloud_unreachable", "DESTINATION_UNREACHABLE")]
    assert len(world.asked) < 20
    world.fault = None
    world.seconds += PAUSES.most_seconds
    assert key(session) == f"AK{len(world.asked)}"
    assert said[1:] == [("cloud_reachable", None)]


def test_a_clock_that_was_ahead_and_is_right_again_is_the_end_of_the_failure(said: list[tuple[str, object]]) -> None:
    """Credentials that had ended by it serve again, nothing is exchanged, and the next failure is said again."""
    world = World()
    session = session_in(world)
    assert key(session) == "AK1"
    world.ahead_seconds, world.fault = 2 * HOUR, errors.ClockWrong("ahead")
    for _ in range(2):
        with pytest.raises(errors.ClockWrong):
            key(session)
    world.ahead_seconds = 0.0
    assert key(session) == "AK1"
    assert session.renew()
    with pytest.raises(errors.ClockWrong):
        key(session)
    unreachable = ("cloud_unreachable", "CLOCK_WRONG")
    assert said == [unreachable, ("cloud_reachable", None), unreachable]


def test_nobody_asks_again_before_the_pause_is_over() -> None:
    """Whoever comes meanwhile gets the failure that was, and the pauses grow to their bound."""
    world = World()
    world.fault = errors.DestinationUnreachable("gone")
    session = session_in(world, lambda: 1.0)
    for world.seconds in range(4000):
        with pytest.raises(errors.DestinationUnreachable):
            key(session)
    pauses = [later - earlier for earlier, later in zip(world.asked, world.asked[1:], strict=False)]
    assert pauses[:5] == [2, 4, 8, 16, 32]
    assert set(pauses[8:]) == {PAUSES.most_seconds}


def test_each_change_of_the_cause_is_said_once(said: list[tuple[str, object]]) -> None:
    """A clock that was set right, and then a certificate that is refused, are two things to know."""
    world = World()
    session = session_in(world)
    for fault in (errors.ClockWrong("off"), errors.ClockWrong("off"), errors.DestinationDenied("403")):
        world.fault = fault
        world.seconds += 1
        with pytest.raises(type(fault)):
            key(session)
    assert said == [("cloud_unreachable", "CLOCK_WRONG"), ("cloud_unreachable", "DESTINATION_DENIED")]


def test_refused_credentials_are_exchanged_anew_and_never_used_again() -> None:
    """At most once in a while, so that a service that refuses everything does not have the endpoint asked each time."""
    world = World()
    session = session_in(world)
    assert key(session) == "AK1"
    assert session.renew()
    assert not session.renew()
    assert session.renew(again=True)
    world.fault = errors.DestinationUnreachable("gone")
    with pytest.raises(errors.DestinationUnreachable):
        key(session)
    world.fault = None
    world.seconds += RENEWAL_SECONDS
    assert key(session) == "AK3"
    assert session.renew()
    assert session.renew(again=True)  # for a new package, in any case
    assert key(session) == "AK4"
    assert not session.renew()


@pytest.mark.parametrize("life_seconds", [-7200.0, 0.0, 20.0])
def test_credentials_that_end_at_once_are_a_fault_of_the_endpoint(life_seconds: float) -> None:
    """Not an error of boto3's."""
    world = World(life_seconds)
    with pytest.raises(errors.DestinationBusy, match="end at"):
        key(session_in(world))


class Device(World):
    """One of many: it reports every five minutes, and delivers captures by the capture line's own rule of retries."""

    def __init__(self, seed: int, away: tuple[float, float]) -> None:
        super().__init__()
        self.draw = random.Random(seed).random  # noqa: S311  # no secret
        self.away = away
        self.credentials_held = session_in(self, self.draw)._refreshable()
        self.beat_at, self.deliver_at = self.draw() * 30, self.draw() * 600
        self.attempts = 0

    @property
    def next_at(self) -> float:
        """When something happens next."""
        return min(self.beat_at, self.deliver_at)

    def live(self) -> None:
        """Do what is due next."""
        self.seconds = self.next_at
        begins, ends = self.away
        self.fault = errors.DestinationUnreachable("gone") if begins <= self.seconds < ends else None
        try:
            self.credentials_held.get_frozen_credentials()
        except errors.DestinationUnreachable as fault:
            outcome = decide(fault, self.attempts + 1, others_pass=False, draw=self.draw())
        else:
            outcome = None
        if self.beat_at <= self.deliver_at:
            self.beat_at += 300 * (1 - JITTER * self.draw())
        elif isinstance(outcome, Retry):
            self.attempts += 1
            self.deliver_at += outcome.after_seconds
        else:
            self.attempts = 0
            self.deliver_at += 600


def test_a_thousand_devices_whose_network_returns_do_not_ask_together() -> None:
    """After an hour without the endpoint, its load is spread over minutes, and so is each one after it."""
    away = (HOUR / 2, 1.5 * HOUR)
    devices = [Device(seed, away) for seed in range(1000)]
    queue = [(device.next_at, number) for number, device in enumerate(devices)]
    heapify(queue)
    while queue[0][0] < 3.5 * HOUR:
        device = devices[queue[0][1]]
        device.live()
        heapreplace(queue, (device.next_at, queue[0][1]))

    back = [min(second for second in device.asked if second >= away[1]) - away[1] for device in devices]
    assert max(back) < 2.5 * PAUSES.most_seconds  # nobody is forgotten either
    asked = [second for device in devices for second in device.asked]
    later = [second for second in asked if second > away[1] + HOUR / 2]
    assert len(later) >= 1000
    assert busiest(back) <= 20  # of a thousand
    assert busiest(later) <= 12


def busiest(seconds: list[float]) -> int:
    """Return how many fall into the fullest second."""
    return max(Counter(map(int, seconds)).values())
