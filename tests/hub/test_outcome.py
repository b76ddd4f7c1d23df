"""What a device's DeploymentResult says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightkeeper.hub.outcome import MESSAGE_MAXIMUM, outcome


def model(handle: str, status: str | None = None, **more: str) -> dict[str, str]:
    """Make one model's result."""
    return {"ModelHandle": handle, **({} if status is None else {"Status": status}), **more}


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"DeploymentStatus": "SUCCESS"}, True),
        ({"DeploymentStatus": "deployed"}, True),
        ({"DeploymentStatus": "FAIL"}, False),
        ({"DeploymentStatus": "SUCCESS", "DeploymentModels": [model("eye", "FAIL")]}, False),
        ({"DeploymentModels": [model("eye", "SUCCESS"), model("ear", "SUCCESS")]}, True),
        ({"DeploymentModels": [model("eye", "SUCCESS")]}, None),
        ({"DeploymentStatus": "INPROGRESS"}, None),
        ({"DeploymentStatus": "E1234"}, None),
        ({"DeploymentStatus": "E1234", "DeploymentEndTime": 1}, False),
        ({"DeploymentEndTime": 1}, None),
        ({}, None),
    ],
)
def test_a_result_is_a_success_a_failure_or_not_final(result: dict[str, Any], expected: bool | None) -> None:
    """A model that failed outweighs the word; an unknown word is a code, final with an end time."""
    said = outcome(result, {"eye", "ear"})
    assert (None if said is None else said.succeeded) is expected


def test_a_failure_that_left_something_behind_is_not_clean() -> None:
    """A device that could not go back, or did half of it, is between old and new."""
    failed = outcome({"DeploymentStatus": "FAIL", "DeploymentModels": [model("eye", "FAIL")]}, {"eye"})
    half = outcome({"DeploymentModels": [model("eye", "SUCCESS"), model("ear", "FAIL")]}, {"eye", "ear"})
    stuck = outcome({"DeploymentModels": [model("eye", "FAIL", RollbackFailureReason="no space")]}, {"eye"})
    assert [said and said.clean for said in (failed, half, stuck)] == [True, False, False]
    assert half is not None
    assert half.done == {"eye"}


def test_the_message_says_what_failed_and_why() -> None:
    """One line, with every failed model's handle and reasons."""
    said = outcome(
        {
            "DeploymentStatus": "FAIL",
            "DeploymentStatusMessage": "two\nlines",
            "DeploymentModels": [model("eye", "FAIL", StatusReason="bad sum", RollbackFailureReason="no space")],
        },
        {"eye"},
    )
    assert said is not None
    assert said.message == "two lines; eye: bad sum; not rolled back: no space"


models = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "ModelHandle": st.sampled_from(["eye", "ear", "other"]),
            "Status": st.sampled_from(["SUCCESS", "FAIL"]),
            "StatusReason": st.text(),
            "RollbackFailureReason": st.text(),
        },
    )
)


@given(
    result=st.fixed_dictionaries(
        {},
        optional={
            "DeploymentStatus": st.text(max_size=20),
            "DeploymentStatusMessage": st.text(),
            "DeploymentEndTime": st.integers(),
            "DeploymentModels": models,
        },
    ),
    handles=st.sets(st.sampled_from(["eye", "ear"])),
)
def test_any_result_is_judged(result: dict[str, Any], handles: set[str]) -> None:
    """Nothing a device may send breaks the judgement; a success leaves no handle undone."""
    said = outcome(result, handles)
    if said is not None:
        assert len(said.message) <= MESSAGE_MAXIMUM
        assert said.done <= handles
        assert not said.succeeded or (said.done == handles and said.clean)
