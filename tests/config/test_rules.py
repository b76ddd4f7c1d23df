"""Capture rules: what may be written, and that every fault of every rule is told at once."""

from __future__ import annotations

import json
import re
from math import inf
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightkeeper.config.check import examine
from lightkeeper.config.rules import MAX_RULES, Band, CaptureRule, Measure, parse

EVERY = {"name": "few", "model": "text", "every": 100}
SHARE = {"name": "some", "model": "*", "share": 0.01, "per_minute": 6, "per_day": 1000, "inputs": False}
BAND = {
    "name": "doubtful",
    "model": "gate-2",
    "band": {"output": "score", "index": "max", "low": 0.4, "high": 0.6},
    "outputs": False,
}
RULES = (
    CaptureRule("few", "text", every=100),
    CaptureRule("some", "*", share=0.01, per_minute=6, per_day=1000, inputs=False),
    CaptureRule("doubtful", "gate-2", band=Band("score", Measure.MAX, 0.4, 0.6), outputs=False),
)


def as_strings(value: object) -> object:
    """Return JSON with every scalar as a string, as deployment tools write it."""
    if isinstance(value, dict):
        return {name: as_strings(item) for name, item in value.items()}
    return value if isinstance(value, str) else json.dumps(value)


def problem_of(value: object) -> str:
    """Return what is wrong with a value."""
    with pytest.raises(ValueError, match=r".") as caught:
        parse(value)
    return str(caught.value)


@pytest.mark.parametrize("form", [list, json.dumps, lambda rules: json.dumps(list(map(as_strings, rules)))])
def test_rules_are_read_from_a_list_and_from_a_string(form: object) -> None:
    """A deployment tool writes the list as one string, or each value as one (clause 4.1)."""
    assert callable(form)
    assert parse(form([EVERY, SHARE, BAND])) == RULES


@pytest.mark.parametrize("value", [[], "", "  ", "[]"])
def test_no_rule_is_fine(value: object) -> None:
    """Sampling is off by default (clause 4.1)."""
    assert parse(value) == ()


def test_a_band_may_leave_out_output_index_and_one_end() -> None:
    """Then it is about any element of the first output, and open to that side (clause 4.4)."""
    (rule,) = parse([{"name": "a", "model": "m", "band": {"low": 0.5}}])
    assert rule.band == Band("", Measure.ANY, 0.5, inf)
    (rule,) = parse([{"name": "a", "model": "m", "band": {"index": 3, "high": -1}}])
    assert rule.band == Band("", 3, -inf, -1.0)


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ({}, "rule 1 has no `name`"),
        ({**EVERY, "name": "a b"}, "`name` must be 1 to 63 letters"),
        ({**EVERY, "name": 7}, "`name` must be a string, not a number"),
        ({"name": "few", "every": 2}, "rule 1 (few) has no `model`; `*` stands for every model"),
        ({**EVERY, "model": "-"}, "`model` is neither a model's name nor `*`"),
        ({**EVERY, "every": 0}, "`every` is less than 1"),
        ({**EVERY, "every": 1.5}, "`every` is not a whole number"),
        ({**EVERY, "every": None}, "must have exactly one of every, share, band; it has none"),
        ({**EVERY, "share": 0.5}, "must have exactly one of every, share, band; it has every and share"),
        ({**SHARE, "share": 0}, "`share` must be more than 0 and at most 1"),
        ({**SHARE, "share": 1.01}, "`share` must be more than 0 and at most 1"),
        ({**SHARE, "share": True}, "`share` must be a number, not a boolean"),
        ({**SHARE, "share": "often"}, "`share` is not a number"),
        ({**SHARE, "share": "nan"}, "`share` is not a finite number"),
        ({**SHARE, "share": 10**400}, "`share` is not a number"),
        ({**SHARE, "per_minute": 0}, "`per_minute` is less than 1"),
        ({**SHARE, "per_day": "many"}, "`per_day` is not a whole number"),
        ({**SHARE, "inputs": "perhaps"}, "`inputs` is neither true nor false"),
        ({**SHARE, "outputs": False}, "keeps neither inputs nor outputs"),
        ({**BAND, "band": 0.5}, "rule 1 (doubtful) `band` must be an object, not a number"),
        ({**BAND, "band": {"output": "y"}}, "has neither `low` nor `high`"),
        ({**BAND, "band": {"low": 2, "high": 1}}, "has its `low` 2 above its `high` 1"),
        ({**BAND, "band": {"low": 2, "index": "best"}}, "must be an element's number from 0, or any, max, min, margin"),
        ({**BAND, "band": {"low": 2, "index": -1}}, "must be an element's number from 0"),
        ({**BAND, "band": {"low": 2, "hihg": 3}}, "has no member `hihg`; allowed: output, index, low, high"),
        ({**EVERY, "evrey": 1}, "has no member `evrey`"),
        ("few", "rule 1 must be an object, not a string"),
        ((("name", "a"), ("name", "b")), "rule 1 names a member twice"),
    ],
)
def test_a_wrong_rule_is_refused_with_what_is_wrong(rule: object, problem: str) -> None:
    """In words that a person can act on, with the rule's number and name (clause 4.2)."""
    assert problem in problem_of([rule])


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("every 3", "is a string that holds no JSON"),
        ("[" * 100_000, "is a string that holds no JSON"),
        ({"name": "a"}, "must be a list of rules"),
        ("7", "must be a list of rules, not a number"),
        ([EVERY] * (MAX_RULES + 1), f"has {MAX_RULES + 1} rules, more than {MAX_RULES}"),
        ([EVERY, EVERY], "two rules are named few"),
    ],
)
def test_what_is_no_list_of_rules_is_refused(value: object, problem: str) -> None:
    """The value as a whole is judged too (clause 4.2)."""
    assert problem in problem_of(value)


def test_every_fault_of_every_rule_is_told_at_once() -> None:
    """Nobody corrects a file fault by fault (clause 4.2)."""
    problem = problem_of([{**EVERY, "every": 0, "more": 1}, {**SHARE, "share": 2}])
    assert problem == (
        "has wrong rules: rule 1 (few) `every` is less than 1; rule 1 (few) has no member `more`; "
        "allowed: name, model, every, share, band, per_minute, per_day, inputs, outputs; "
        "rule 2 (some) `share` must be more than 0 and at most 1"
    )


def test_wrong_rules_are_faults_of_the_configuration_beside_the_others() -> None:
    """The agent does not start, and says everything that is wrong."""
    report = examine((("lightkeeper_capture_rules", [(("name", "a"),)]), ("lightkeeper_threads", "many")), {})
    assert {fault.key for fault in report.faults} >= {"lightkeeper_capture_rules", "lightkeeper_threads"}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner) | st.lists(st.tuples(st.sampled_from([*SHARE, *BAND]) | st.text(), inner)).map(tuple)
        ),
    )
)
def test_no_value_is_refused_with_anything_but_words(value: object) -> None:
    """Whatever a file holds, it is rules or a fault."""
    try:
        rules = parse(value)
    except ValueError as error:
        assert str(error)  # noqa: PT017 - either outcome is right
    else:
        assert all(isinstance(rule, CaptureRule) for rule in rules)


def test_the_rules_of_the_documentation_are_rules() -> None:
    """Whoever copies them has what the page says."""
    page = (Path(__file__).parents[2] / "docs" / "captures.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    undecided, background = parse(json.loads(example)["lightkeeper_capture_rules"])
    assert (undecided.band, undecided.per_minute) == (Band("score", Measure.MAX, 0.4, 0.6), 6)
    assert (background.model, background.share, background.per_day, background.inputs) == ("*", 0.001, 500, False)
