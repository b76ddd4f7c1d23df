"""Which devices a stage is for."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightkeeper.hub.selection import Selection, Subset, allot

FLEET = [f"cam-{number}" for number in range(10)] + [f"turbine-{number}" for number in range(5)]


def percentage(share: int) -> Selection:
    """Make a selection of a share."""
    return Selection(Subset.PERCENTAGE, percentage=share)


@given(shares=st.lists(st.integers(1, 100), max_size=6), devices=st.sets(st.text("abc", min_size=1), max_size=40))
def test_percentages_are_of_those_not_yet_selected(shares: list[int], devices: set[str]) -> None:
    """No device is in two stages; each stage has its share of what is left, rounded up; 100 takes all."""
    chosen = allot([(number, percentage(share)) for number, share in enumerate(shares)], devices, {}, seed="plan")
    left = len(devices)
    for number, share in enumerate(shares):
        assert len(chosen[number]) == math.ceil(left * share / 100)
        left -= len(chosen[number])
    everybody = [name for names in chosen.values() for name in names]
    assert len(everybody) == len(set(everybody)) == len(devices) - left


def test_the_choice_does_not_depend_on_the_order_of_devices_and_differs_from_plan_to_plan() -> None:
    """A restart chooses the same devices; another plan begins with others."""
    fleet = [f"device-{number}" for number in range(1000)]
    first = percentage(10).choose(fleet, "plan-a")
    assert percentage(10).choose(list(reversed(fleet)), "plan-a") == first
    assert percentage(20).choose(fleet, "plan-a")[:100] == first
    assert percentage(10).choose(fleet, "plan-b") != first


def test_a_stage_that_has_chosen_keeps_its_devices() -> None:
    """A device that joins the fleet later is for the stages that have not started."""
    chosen = allot([(1, percentage(50)), (2, percentage(100))], FLEET, {1: FLEET[:3]}, seed="plan")
    assert chosen[1] == FLEET[:3]
    assert set(chosen[2]) == set(FLEET[3:])


def test_earlier_stages_that_have_not_started_keep_their_share() -> None:
    """Starting the second stage first takes nothing from the first."""
    stages = [(1, Selection(Subset.NAMECONTAINS, contains="turbine")), (2, percentage(100))]
    assert set(allot(stages, FLEET, {}, seed="plan")[2]) == {name for name in FLEET if "cam" in name}


def test_names_are_taken_in_the_order_given_and_once() -> None:
    """The operator's order is the order of turns; who is not in the fleet any more is left out."""
    given_names = Selection.parse(
        {"DeviceSubsetType": "SELECTION", "DeviceNames": ["turbine-2", "gone", "cam-1", "turbine-2"]}
    )
    assert given_names.choose(FLEET, "plan") == ["turbine-2", "cam-1"]


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"DeviceSubsetType": "PERCENTAGE"}, "needs Percentage"),
        ({"DeviceSubsetType": "PERCENTAGE", "Percentage": 0}, "needs Percentage"),
        ({"DeviceSubsetType": "PERCENTAGE", "Percentage": -5}, "from 1 to 100"),
        ({"DeviceSubsetType": "PERCENTAGE", "Percentage": 5, "DeviceNames": ["a"]}, "not with DeviceNames"),
        ({"DeviceSubsetType": "SELECTION"}, "needs DeviceNames"),
        ({"DeviceSubsetType": "SELECTION", "DeviceNames": []}, "needs DeviceNames"),
        ({"DeviceSubsetType": "NAMECONTAINS", "Percentage": 5}, "not with Percentage"),
        ({"DeviceSubsetType": "NAMECONTAINS"}, "needs DeviceNameContains"),
    ],
)
def test_a_selection_that_does_not_say_who_is_refused(document: dict[str, Any], problem: str) -> None:
    """The member that goes with the subset's type is there, and no other."""
    with pytest.raises(ValueError, match=problem):
        Selection.parse(document)
