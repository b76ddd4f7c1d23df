"""What becomes of a batch after each fault: the table of the specification."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightkeeper import errors
from lightkeeper.backoff import LEAST_SECONDS, Backoff
from lightkeeper.capture.retry import (
    QUICK,
    SLOW,
    SUSPECT_AFTER_ATTEMPTS,
    Quarantine,
    Retry,
    decide,
    is_suspect,
)
from lightkeeper.errors import AgentError, DeliveryFailed, UploadBudgetSpent

TABLE: dict[type[AgentError], Backoff | None] = {
    errors.DestinationUnreachable: QUICK,
    errors.DestinationBusy: QUICK,
    errors.DestinationFull: QUICK,
    errors.DestinationFaulty: QUICK,
    errors.SpoolBroken: QUICK,
    errors.SpoolDiskFull: QUICK,
    errors.CertificateFilesUnusable: SLOW,
    errors.DestinationUntrusted: SLOW,
    errors.DestinationDenied: SLOW,
    errors.DestinationMissing: SLOW,
    errors.DestinationRefusing: SLOW,
    errors.ClockWrong: SLOW,
    errors.TokenKeyUnusable: SLOW,
    errors.TokenToolsMissing: SLOW,
    errors.Unexpected: SLOW,
    errors.ObjectRefused: None,
    errors.PayloadLost: None,
    errors.RecordDamaged: None,
}
"""The wait after each fault, or None for those that are the batch's own."""


@pytest.mark.parametrize("kind", [kind for kind, backoff in TABLE.items() if backoff], ids=lambda kind: kind.reason)
def test_a_fault_of_the_destination_is_retried_for_as_long_as_it_takes(kind: type[AgentError]) -> None:
    """After a thousand attempts too, and never later than the bound."""
    backoff = TABLE[kind]
    assert backoff is not None
    for attempts in (1, 2, 10, 1000):
        decision = decide(kind("away"), attempts, others_pass=False, draw=1.0)
        assert decision == Retry(min(backoff.most_seconds, backoff.first_seconds * 2 ** (attempts - 1)))


@pytest.mark.parametrize("kind", [kind for kind, backoff in TABLE.items() if not backoff], ids=lambda kind: kind.reason)
def test_a_fault_of_the_batch_is_quarantined_at_once(kind: type[AgentError]) -> None:
    """Waiting mends nothing."""
    assert decide(kind("broken"), 1, others_pass=False, draw=0.5) == Quarantine(kind.reason)


@pytest.mark.parametrize("kind", [errors.DestinationRefusing, errors.Unexpected])
def test_a_batch_that_alone_is_refused_is_quarantined(kind: type[AgentError]) -> None:
    """Only after several attempts, and only where another batch gets through."""
    fault = kind("no")
    for attempts in range(1, SUSPECT_AFTER_ATTEMPTS):
        assert not is_suspect(fault, attempts)
        assert isinstance(decide(fault, attempts, others_pass=True, draw=0.5), Retry)
    assert is_suspect(fault, SUSPECT_AFTER_ATTEMPTS)
    assert decide(fault, SUSPECT_AFTER_ATTEMPTS, others_pass=True, draw=0.5) == Quarantine(kind.reason)
    assert isinstance(decide(fault, 50, others_pass=False, draw=0.5), Retry)


@pytest.mark.parametrize("kind", [errors.DestinationUnreachable, errors.DestinationDenied, errors.ClockWrong])
def test_a_fault_that_is_never_the_batchs_own_quarantines_nothing(kind: type[AgentError]) -> None:
    """Even where others get through: a network may fail for one and work for the next."""
    assert isinstance(decide(kind("away"), 50, others_pass=True, draw=0.5), Retry)


def test_a_spent_budget_waits_for_the_next_day() -> None:
    """And a little longer, so that a fleet does not begin all at once."""
    fault = UploadBudgetSpent("spent", wait_seconds=5000.0)
    assert decide(fault, 9, others_pass=True, draw=0.0) == Retry(5000.0 + LEAST_SECONDS)
    assert decide(fault, 9, others_pass=True, draw=1.0) == Retry(5001.0)


@given(attempts=st.integers(1, 10_000), draw=st.floats(0, 1), backoff=st.sampled_from([QUICK, SLOW]))
def test_a_wait_is_spread_between_nothing_and_its_bound(attempts: int, draw: float, backoff: Backoff) -> None:
    """Full jitter: devices that lost the same cloud do not come back together."""
    seconds = backoff.wait_seconds(attempts, draw)
    assert LEAST_SECONDS <= seconds <= backoff.most_seconds
    assert backoff.wait_seconds(attempts, 0.0) == LEAST_SECONDS


def test_every_fault_of_a_delivery_is_in_the_table() -> None:
    """Whoever adds one says what happens then."""
    leaves = set(DeliveryFailed.__subclasses__())
    assert leaves - set(TABLE) == {UploadBudgetSpent, errors.DeliveryInterrupted}
