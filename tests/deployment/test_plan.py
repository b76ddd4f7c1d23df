"""What comes next in a deployment, whatever fails: the state machine by itself."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from lightkeeper.deployment.plan import Item, Phase, Plan, Step
from lightkeeper.errors import SwapTooSlow
from lightkeeper.model import PackageIdentity
from lightkeeper.models.record import Version
from lightkeeper.providers.fleet import Definition, Deployment, DesiredState, FailurePolicy

STATES = st.sampled_from(DesiredState)
AFTER = {
    Step.FETCH: Phase.KEPT,
    Step.BEGIN: Phase.CHANGING,
    Step.CHANGE: Phase.CHANGED,
    Step.SETTLE: Phase.SETTLED,
    Step.PUT_BACK: Phase.RETURNED,
}
ERROR = SwapTooSlow("too slow")


def plan_of(*states: DesiredState, policy: FailurePolicy = FailurePolicy.ROLLBACK_ON_FAILURE) -> Plan:
    """Return a new plan with a handle for each state."""
    definitions = tuple(Definition(f"m{number}", state) for number, state in enumerate(states))
    return Plan.begin(Deployment("d", policy, definitions), 1000)


def carried_out(plan: Plan, failing: set[tuple[Step, int]]) -> tuple[Plan, list[tuple[Step, int]]]:
    """Do every step, with those failing that should; return the plan at its end and the steps."""
    steps = []
    while (step := plan.next()) is not None:
        steps.append(step)
        verb, number = step
        item: Item = plan.items[number]
        after = replace(item, phase=AFTER[verb])
        if step in failing:
            after = replace(after, rollback_cause="no") if verb is Step.PUT_BACK else item.failed(ERROR)
        plan = plan.with_item(number, after)
        assert len(steps) < 100
    return plan, steps


def test_everything_is_fetched_before_anything_changes_and_what_goes_goes_last() -> None:
    """A package that cannot be had changes nothing."""
    deploy, undeploy = DesiredState.DEPLOY, DesiredState.UNDEPLOY
    plan, steps = carried_out(plan_of(undeploy, deploy, deploy), set())
    assert steps == [
        (Step.FETCH, 1),
        (Step.FETCH, 2),
        *((step, 1) for step in (Step.BEGIN, Step.CHANGE, Step.SETTLE)),
        *((step, 2) for step in (Step.BEGIN, Step.CHANGE, Step.SETTLE)),
        *((step, 0) for step in (Step.BEGIN, Step.CHANGE, Step.SETTLE)),
    ]
    result = plan.result(2000, frozenset({"m1", "m2"}))
    assert (result.succeeded, result.message, result.started_ms, result.ended_ms) == (True, "done", 1000, 2000)
    assert [model.state for model in result.models] == [undeploy, deploy, deploy]


def test_a_failure_puts_back_what_was_changed_the_last_first() -> None:
    """And the result says of each model why."""
    deploy = DesiredState.DEPLOY
    plan, steps = carried_out(plan_of(deploy, deploy, deploy), {(Step.SETTLE, 2), (Step.PUT_BACK, 0)})
    assert steps[-3:] == [(Step.SETTLE, 2), (Step.PUT_BACK, 1), (Step.PUT_BACK, 0)]
    result = plan.result(2000, frozenset())
    assert not result.succeeded
    assert result.message == "failed: m2; not put back: m0"
    assert [model.reason.partition(":")[0] for model in result.models] == ["TAKEN_BACK", "TAKEN_BACK", "SWAP_TOO_SLOW"]
    assert [model.rollback_failure for model in result.models] == ["no", "", ""]


def test_a_failure_does_nothing_to_the_others_where_that_is_the_policy() -> None:
    """Each model stands by itself."""
    deploy = DesiredState.DEPLOY
    plan, steps = carried_out(plan_of(deploy, deploy, policy=FailurePolicy.DO_NOTHING), {(Step.FETCH, 0)})
    assert steps[-1] == (Step.SETTLE, 1)
    result = plan.result(2000, frozenset({"m1"}))
    assert [model.succeeded for model in result.models] == [False, True]
    assert result.message == "failed: m0; the others are done"


def test_a_handle_that_is_there_twice_fails() -> None:
    """Two versions cannot run under one name."""
    definitions = (Definition("m", DesiredState.DEPLOY), Definition("m", DesiredState.UNDEPLOY))
    plan = Plan.begin(Deployment("d", FailurePolicy.ROLLBACK_ON_FAILURE, definitions), 0)
    assert plan.next() is None
    assert plan.result(0, frozenset()).models[1].reason.startswith("HANDLE_TWICE")


@given(
    st.lists(STATES, max_size=4),
    st.sampled_from(FailurePolicy),
    st.sets(st.tuples(st.sampled_from(Step), st.integers(0, 3))),
)
def test_whatever_fails_it_ends_and_nothing_is_left_half_done(
    states: list[DesiredState], policy: FailurePolicy, failing: set[tuple[Step, int]]
) -> None:
    """Under rollback nothing that was changed stays changed; and only a deployment without failures succeeds."""
    plan, steps = carried_out(plan_of(*states, policy=policy), failing)
    phases = [item.phase for item in plan.items]
    failed = Phase.FAILED in phases
    assert failed == any(step in failing and step[0] is not Step.PUT_BACK for step in steps)
    assert plan.result(0, frozenset()).succeeded == (not failed)
    if failed and policy is FailurePolicy.ROLLBACK_ON_FAILURE:
        assert not {Phase.CHANGING, Phase.CHANGED, Phase.SETTLED} & set(phases)
    elif policy is FailurePolicy.DO_NOTHING:
        assert set(phases) <= {Phase.SETTLED, Phase.FAILED}


def test_a_plan_names_the_packages_that_it_may_still_need() -> None:
    """What is to run, and what ran before."""
    version = Version(PackageIdentity("m", "1", "old"), "/m")
    item = Item(Definition("m", DesiredState.DEPLOY), package=PackageIdentity("m", "2", "new"), before=version)
    plan = plan_of(DesiredState.DEPLOY).with_item(0, item)
    assert plan.digests() == {"old", "new"}
