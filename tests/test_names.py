"""What models and their versions may be called."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightkeeper.errors import NameInvalid, VersionInvalid
from lightkeeper.names import check_model_name, check_model_version

PUBLISHED = re.compile(r"^[a-zA-Z0-9](-*[a-zA-Z0-9])*\Z")
"""The pattern as the local API states it."""


@given(st.text(st.sampled_from("aZ0-_./ \né"), max_size=12) | st.text(max_size=5))
def test_name_is_accepted_as_the_published_pattern_says(name: str) -> None:
    """The pattern used here and the published one accept the same names."""
    if PUBLISHED.match(name):
        check_model_name(name)
    else:
        with pytest.raises(NameInvalid):
            check_model_name(name)


def test_long_name_is_refused_at_once() -> None:
    """A name has at most 63 characters; one of a million costs no time."""
    check_model_name("a" * 63)
    for name in ("a" * 64, "-" * 1_000_000, "a" + "-" * 1_000_000):
        with pytest.raises(NameInvalid) as refused:
            check_model_name(name)
        assert len(refused.value.message) < 200


@pytest.mark.parametrize("version", ["1", "1.0", "2026-11-22", "1.20261122.81f481f", "1.0+gpu_2", "v" * 64])
def test_version_is_a_short_plain_text(version: str) -> None:
    """Versions as people write them are accepted, and fit a file's name."""
    check_model_version(version)
    assert "/" not in version


@pytest.mark.parametrize("version", ["", ".", "..", "1.", "-1", "1/2", "1 0", "1\n", "é", "v" * 65])
def test_version_that_fits_no_file_name_is_refused(version: str) -> None:
    """What could not stand in a file's name is no version."""
    with pytest.raises(VersionInvalid):
        check_model_version(version)
