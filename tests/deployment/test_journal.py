"""The journal of deployments: what is read back, and how long results are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightkeeper.deployment.journal import DONE_MOST, RESULTS_MOST, Journal
from lightkeeper.deployment.plan import Item, Phase, Plan
from lightkeeper.model import PackageIdentity
from lightkeeper.models.record import Version
from lightkeeper.providers.fleet import Definition, Deployment, DesiredState, FailurePolicy

DEFINITION = Definition("m", DesiredState.DEPLOY, "s3://b/m.tar.gz", "0" * 40)
ITEM = Item(
    DEFINITION,
    Phase.CHANGING,
    PackageIdentity("m", "2.0", "1" * 64),
    Version(PackageIdentity("m", "1.0", "0" * 64), "/m"),
    "a cause",
    "another",
)


def deployment(name: str = "d") -> Deployment:
    """Return a deployment of one model."""
    return Deployment(name, FailurePolicy.DO_NOTHING, (DEFINITION,))


def test_a_plan_is_read_back_as_it_was(tmp_path: Path) -> None:
    """With everything that its next step needs."""
    plan = Plan(deployment(), 1000, (ITEM, Item(Definition("n", DesiredState.UNDEPLOY))), crashes=2)
    Journal(tmp_path / "journal.json").save(plan)
    assert Journal(tmp_path / "journal.json").plan == plan


def test_a_result_is_kept_until_it_is_acknowledged(tmp_path: Path) -> None:
    """Over restarts, and in the order of the deployments."""
    journal = Journal(tmp_path / "journal.json")
    plans = [Plan.begin(deployment(name), 1000) for name in ("first", "second")]
    results = [plan.result(2000, frozenset({"m"})) for plan in plans]
    for plan, result in zip(plans, results, strict=True):
        journal.save(plan)
        journal.finish(plan, result)
    journal = Journal(tmp_path / "journal.json")
    assert journal.plan is None
    assert journal.result() == results[0]
    journal.acknowledge(results[0])
    assert Journal(tmp_path / "journal.json").result() == results[1]
    journal.acknowledge(results[0])
    journal.acknowledge(results[1])
    assert Journal(tmp_path / "journal.json").result() is None


def test_what_is_done_is_known_by_its_definitions(tmp_path: Path) -> None:
    """A deployment of the same name with other definitions is another one."""
    journal = Journal(tmp_path / "journal.json")
    plan = Plan.begin(deployment(), 0)
    assert not journal.is_done(plan.deployment)
    journal.finish(plan, plan.result(0, frozenset()))
    assert Journal(tmp_path / "journal.json").is_done(plan.deployment)
    assert not journal.is_done(Deployment("d", FailurePolicy.ROLLBACK_ON_FAILURE, (DEFINITION,)))


def test_what_is_kept_is_bounded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A device that is offline for years does not fill its disk with results."""
    journal = Journal(tmp_path / "journal.json")
    for number in range(DONE_MOST + 1):
        plan = Plan.begin(deployment(f"d{number}"), 0)
        journal.finish(plan, plan.result(0, frozenset()))
    oldest = journal.result()
    assert oldest is not None
    assert oldest.name == f"d{DONE_MOST + 1 - RESULTS_MOST}"
    assert "deployment_result_dropped" in caplog.text
    assert (journal.is_done(deployment("d0")), journal.is_done(deployment("d1"))) == (False, True)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"format_version": 9}', b'{"format_version": 1, "plan": {}}'])
def test_a_journal_that_cannot_be_understood_is_set_aside(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The agent starts, and says so."""
    path = tmp_path / "journal.json"
    path.write_bytes(content)
    assert Journal(path).plan is None
    assert "deployment_journal_unreadable" in caplog.text
    assert path.with_suffix(".unreadable").read_bytes() == content


def test_a_journal_that_cannot_be_written_keeps_what_it_knew(tmp_path: Path) -> None:
    """What was not written was not done."""
    journal = Journal(tmp_path / "journal.json")
    (tmp_path / "journal.json.new").mkdir()
    with pytest.raises(OSError, match="directory"):
        journal.save(Plan.begin(deployment(), 0))
    assert journal.plan is None
