"""The tree of refusals: every leaf can be understood, matched on and acted upon."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from lightkeeper import errors
from lightkeeper.errors import AgentError, ConfigInvalid, Finding, concrete_errors


def tree(error: type[AgentError] = AgentError) -> Iterator[type[AgentError]]:
    """Yield every class of the tree."""
    yield error
    for child in error.__subclasses__():
        yield from tree(child)


LEAVES = [error for error in tree() if error.reason]
BRANCHES = [error for error in tree() if not error.reason]


def test_reason_codes_are_unique_and_all_are_found() -> None:
    """A script that matches on a code gets one meaning."""
    assert len({error.reason for error in LEAVES}) == len(LEAVES)
    assert list(concrete_errors().values()) == LEAVES


@pytest.mark.parametrize("error", LEAVES, ids=lambda error: error.reason)
def test_a_leaf_has_a_code_like_its_name_a_meaning_and_a_next_step(error: type[AgentError]) -> None:
    """Nothing is refused without saying what to do."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", error.__name__).upper()
    assert error.reason == words
    assert "reason" in vars(error)
    assert (error.__doc__ or "").splitlines()[0].endswith(".")
    assert "next_step" in vars(error)
    assert error.next_step
    assert not error.next_step.endswith(".")
    assert not error.__subclasses__()


@pytest.mark.parametrize("error", BRANCHES, ids=lambda error: error.__name__)
def test_a_branch_has_no_code_and_is_not_bare(error: type[AgentError]) -> None:
    """Only leaves are raised, so a branch has some."""
    assert error.next_step == ""
    assert error.__subclasses__()


def test_the_drawing_shows_every_branch() -> None:
    """The module's own picture of the tree is up to date."""
    drawn = set(re.findall(r"(?:--|^ {4})\s?([A-Z]\w+)", errors.__doc__ or "", re.MULTILINE))
    assert drawn == {error.__name__ for error in BRANCHES}


def test_facts_become_text() -> None:
    """They travel as text, and are kept as text from the beginning."""
    error = errors.TensorShapeMismatch("wrong shape", tensor="x", expected=(1, 3), given=7)
    assert error.facts == {"tensor": "x", "expected": "(1, 3)", "given": "7"}
    assert str(error) == "wrong shape"


def test_diagnostics_say_what_the_facts_and_what_next() -> None:
    """One text for an operator."""
    assert errors.ModelNotFound("no model a", model="a").diagnostics().splitlines() == [
        "no model a [MODEL_NOT_FOUND]",
        "  model: a",
        f"  next step: {errors.ModelNotFound.next_step}",
    ]


def test_an_invalid_configuration_lists_every_fault() -> None:
    """Two faults of one key share its line."""
    faults = [
        Finding("a", "is wrong", given="1", allowed="2"),
        Finding("a", "is there twice"),
        Finding("b", "is required"),
    ]
    error = ConfigInvalid("two keys", faults)
    assert error.faults == tuple(faults)
    assert error.facts == {"a": "is wrong (given: 1); allowed: 2; is there twice", "b": "is required"}
