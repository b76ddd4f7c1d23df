"""The queue of jobs: who may work on what, and what is written down at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import delete

from lightkeeper.errors import JobEnded, JobLimit, JobNameTaken, JobNotEnded, JobUnknown, ObjectMissing
from lightkeeper.hub.database import Database
from lightkeeper.hub.jobs import (
    ATTEMPTS_MAXIMUM,
    REASON_MAXIMUM,
    Artifact,
    Claim,
    Hold,
    Jobs,
    Kind,
    Status,
    failure_reason,
)
from lightkeeper.hub.tables.job import JOBS

LEASE_SECONDS = 10
ARTIFACT = Artifact("s3://bucket/key", 1, "a", "b", "c", {"digest": "d"})


class Clock:
    """A clock that is set by hand, in milliseconds."""

    def __init__(self) -> None:
        self.now_ms = 1_800_000_000_000

    def __call__(self) -> int:
        """Return the time."""
        return self.now_ms

    def pass_seconds(self, seconds: float) -> None:
        """Let time pass."""
        self.now_ms += round(1000 * seconds)


@pytest.fixture
def clock() -> Clock:
    """A clock of the test's own."""
    return Clock()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A database of either kind."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('queue') / 'hub.db'}"
    else:
        url = request.getfixturevalue("postgres").database()
    database = Database(url)
    yield database
    database.close()


@pytest.fixture
def database(shared: Database) -> Database:
    """The database, with an empty queue."""
    with shared.write() as connection:
        connection.execute(delete(JOBS))
    return shared


@pytest.fixture
def jobs(database: Database, clock: Clock) -> Jobs:
    """An empty queue."""
    return Jobs(database, clock, LEASE_SECONDS)


def claimed(jobs: Jobs, name: str = "job") -> Claim:
    """Put a job into the queue, and claim it."""
    jobs.create(Kind.COMPILATION, name, {"a": 1})
    claim = jobs.claim()
    assert claim is not None
    assert claim.job.name == name
    return claim


def status(jobs: Jobs, name: str = "job") -> Status:
    """Return how far a job is."""
    return jobs.get(Kind.COMPILATION, name).status


def test_a_job_goes_from_starting_over_inprogress_to_completed(jobs: Jobs, clock: Clock) -> None:
    """Its times and its artefact are kept."""
    jobs.create(Kind.PACKAGING, "job", {"a": [1]}, model_name="model")
    before = jobs.get(Kind.PACKAGING, "job")
    assert (before.status, before.request) == (Status.STARTING, {"a": [1]})
    assert (before.started_ms, before.artifact) == (None, None)
    clock.pass_seconds(1)
    claim = jobs.claim()
    assert claim is not None
    assert jobs.get(Kind.PACKAGING, "job").status is Status.INPROGRESS
    clock.pass_seconds(1)
    assert jobs.complete(claim, ARTIFACT)
    after = jobs.get(Kind.PACKAGING, "job")
    assert (after.status, after.artifact, after.reason) == (Status.COMPLETED, ARTIFACT, "")
    assert after.started_ms == before.created_ms + 1000
    assert after.ended_ms == before.created_ms + 2000
    assert jobs.claim() is None


def test_a_name_is_taken_once_a_kind(jobs: Jobs) -> None:
    """A compilation job and a packaging job may share one."""
    jobs.create(Kind.COMPILATION, "job", {})
    jobs.create(Kind.PACKAGING, "job", {})
    with pytest.raises(JobNameTaken):
        jobs.create(Kind.COMPILATION, "job", {})


def test_a_queue_that_is_full_takes_no_more(jobs: Jobs) -> None:
    """What has ended does not count."""
    jobs.create(Kind.COMPILATION, "one", {}, limit=1)
    with pytest.raises(JobLimit):
        jobs.create(Kind.COMPILATION, "two", {}, limit=1)
    jobs.stop(Kind.COMPILATION, "one")
    jobs.create(Kind.COMPILATION, "two", {}, limit=1)
    assert status(jobs, "two") is Status.STARTING


def test_no_two_claim_the_same_job(jobs: Jobs, database: Database, clock: Clock) -> None:
    """Eight threads with queues of their own work off one database."""
    names = {f"job-{number}" for number in range(30)}
    for name in names:
        jobs.create(Kind.COMPILATION, name, {})

    def work(_: int) -> list[str]:
        mine = Jobs(database, clock, LEASE_SECONDS)
        found = []
        while (claim := mine.claim()) is not None:
            found.append(claim.job.name)
        return found

    with ThreadPoolExecutor(8) as pool:
        taken = [name for found in pool.map(work, range(8)) for name in found]
    assert sorted(taken) == sorted(names)


def test_a_job_is_claimed_again_only_when_its_lease_has_ended(jobs: Jobs, clock: Clock) -> None:
    """The first holder then can no longer write its end."""
    first = claimed(jobs)
    clock.pass_seconds(LEASE_SECONDS - 1)
    assert jobs.claim() is None
    clock.pass_seconds(1)
    second = jobs.claim()
    assert second is not None
    assert second.job.attempt == 2
    assert jobs.renew(first) is Hold.LOST
    assert not jobs.complete(first, ARTIFACT)
    assert not jobs.fail(first, "no")
    assert not jobs.give_back(first, after_seconds=0)
    assert status(jobs) is Status.INPROGRESS
    assert jobs.complete(second, ARTIFACT)


def test_a_renewed_lease_lasts(jobs: Jobs, clock: Clock) -> None:
    """As long as somebody renews it, nobody else gets the job."""
    claim = claimed(jobs)
    for _ in range(5):
        clock.pass_seconds(LEASE_SECONDS - 1)
        assert jobs.renew(claim) is Hold.HELD
        assert jobs.claim() is None


def test_a_job_given_back_waits_for_its_time(jobs: Jobs, clock: Clock) -> None:
    """What was no attempt is not counted as one."""
    claim = claimed(jobs)
    assert jobs.give_back(claim, after_seconds=5, reason="busy")
    assert jobs.claim() is None
    clock.pass_seconds(5)
    second = jobs.claim()
    assert second is not None
    assert second.job.attempt == 2
    assert jobs.give_back(second, after_seconds=0, counts=False)
    third = jobs.claim()
    assert third is not None
    assert third.job.attempt == 2


def test_a_job_that_kills_every_worker_fails_in_the_end(jobs: Jobs, clock: Clock) -> None:
    """Its reason says what happened and what to do."""
    claimed(jobs)
    for _ in range(ATTEMPTS_MAXIMUM - 1):
        clock.pass_seconds(LEASE_SECONDS)
        assert jobs.claim() is not None
    clock.pass_seconds(LEASE_SECONDS)
    assert jobs.claim() is None
    job = jobs.get(Kind.COMPILATION, "job")
    assert job.status is Status.FAILED
    assert f"begun {ATTEMPTS_MAXIMUM} times" in job.reason
    assert "JOB_ATTEMPTS_SPENT" in job.reason


def test_a_waiting_job_stops_at_once(jobs: Jobs) -> None:
    """Nobody has to notice."""
    jobs.create(Kind.COMPILATION, "job", {})
    jobs.stop(Kind.COMPILATION, "job")
    assert status(jobs) is Status.STOPPED
    assert jobs.claim() is None


def test_a_running_job_stops_when_its_holder_sees_it(jobs: Jobs) -> None:
    """Its holder hears of it with the next renewal; a second stop changes nothing."""
    claim = claimed(jobs)
    jobs.stop(Kind.COMPILATION, "job")
    jobs.stop(Kind.COMPILATION, "job")
    assert status(jobs) is Status.STOPPING
    assert jobs.renew(claim) is Hold.STOPPING
    assert jobs.stopped(claim)
    assert status(jobs) is Status.STOPPED


def test_a_job_that_was_stopping_when_its_holder_died_stops_with_its_lease(jobs: Jobs, clock: Clock) -> None:
    """It is not begun anew."""
    claimed(jobs)
    jobs.stop(Kind.COMPILATION, "job")
    clock.pass_seconds(LEASE_SECONDS)
    assert jobs.claim() is None
    assert status(jobs) is Status.STOPPED


def test_work_that_was_done_before_the_stop_arrived_counts(jobs: Jobs) -> None:
    """Its artefact is there; to call it stopped would hide that."""
    claim = claimed(jobs)
    jobs.stop(Kind.COMPILATION, "job")
    assert jobs.complete(claim, ARTIFACT)
    assert status(jobs) is Status.COMPLETED


ENDS: list[Callable[[Jobs, Claim], bool]] = [
    lambda jobs, claim: jobs.complete(claim, ARTIFACT),
    lambda jobs, claim: jobs.fail(claim, "no"),
]


@pytest.mark.parametrize("end", ENDS, ids=["completed", "failed"])
def test_a_job_that_has_ended_is_not_stopped_and_can_be_deleted(jobs: Jobs, end: Callable[[Jobs, Claim], bool]) -> None:
    """Before that it is the other way round."""
    claim = claimed(jobs)
    with pytest.raises(JobNotEnded):
        jobs.delete(Kind.COMPILATION, "job")
    assert end(jobs, claim)
    with pytest.raises(JobEnded):
        jobs.stop(Kind.COMPILATION, "job")
    jobs.delete(Kind.COMPILATION, "job")
    with pytest.raises(JobUnknown):
        jobs.get(Kind.COMPILATION, "job")
    with pytest.raises(JobUnknown):
        jobs.stop(Kind.COMPILATION, "job")


def test_a_job_made_anew_under_an_old_name_is_another(jobs: Jobs, clock: Clock) -> None:
    """Whoever still works on the old one cannot end the new one."""
    old = claimed(jobs)
    clock.pass_seconds(LEASE_SECONDS)
    other = jobs.claim()
    assert other is not None
    assert jobs.fail(other, "no")
    jobs.delete(Kind.COMPILATION, "job")
    jobs.create(Kind.COMPILATION, "job", {})
    new = jobs.claim()
    assert new is not None
    assert new.job.identity != old.job.identity
    assert not jobs.complete(old, ARTIFACT)
    assert status(jobs) is Status.INPROGRESS


def test_a_failure_reason_fits_its_place_and_keeps_its_end() -> None:
    """The message is cut, the next step and the code are not."""
    reason = failure_reason(ObjectMissing("x" * 5000))
    assert len(reason) == REASON_MAXIMUM
    assert reason.startswith("ClientError: xxx")
    assert reason.endswith(f"…; {ObjectMissing.next_step} [OBJECT_MISSING]")
