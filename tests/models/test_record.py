"""The record of names: what is read back, after whatever happened to the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightkeeper.metrics import Reading
from lightkeeper.model import PackageIdentity
from lightkeeper.models.record import Entry, ModelRecord, Version
from lightkeeper.models.report import Returned

NAMES = st.text("abc-1", min_size=1, max_size=5)
VERSIONS = st.builds(
    Version, st.builds(PackageIdentity, NAMES, NAMES, st.text("0123456789abcdef", max_size=64)), st.text()
)
ENTRIES = st.builds(
    Entry,
    NAMES,
    VERSIONS,
    st.none() | VERSIONS,
    st.text(max_size=5),
    st.booleans(),
    st.integers(0, 9),
    st.none() | st.builds(Returned, NAMES, NAMES, st.text()),
    st.none() | st.builds(Reading, st.integers(0, 9), st.integers(0, 9), st.floats(0, 9)),
)


@settings(max_examples=30)  # each is synced to the disk several times
@given(entries=st.lists(ENTRIES, max_size=5))
def test_what_was_put_is_read_back(entries: list[Entry], tmp_path_factory: pytest.TempPathFactory) -> None:
    """In the order of the names' first load."""
    path = tmp_path_factory.mktemp("record") / "models.json"
    record = ModelRecord(path)
    for entry in entries:
        record.put(entry)
    expected = {entry.name: entry for entry in entries}
    assert ModelRecord(path).all() == list(expected.values())
    digests = {
        version.package.digest for entry in expected.values() for version in (entry.current, entry.previous) if version
    }
    assert ModelRecord(path).digests() == digests
    for name in expected:
        record.drop(name)
    assert ModelRecord(path).all() == []


ENTRY = Entry("m", Version(PackageIdentity("m", "1.0", "0" * 64), "/m"))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"format_version": 2, "models": []}',
        b'{"format_version": 1, "models": [{"name": "m"}]}',
        b"\xff",
    ],
)
def test_a_file_that_cannot_be_understood_is_set_aside(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The agent starts with nothing, says so, and the file can be looked at."""
    path = tmp_path / "models.json"
    path.write_bytes(content)
    record = ModelRecord(path)
    assert record.all() == []
    assert "model_record_unreadable" in caplog.text
    record.put(ENTRY)
    assert ModelRecord(path).all() == [ENTRY]
    assert (tmp_path / "models.unreadable").read_bytes() == content


def test_a_file_that_cannot_be_written_is_said_and_the_record_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Models run without it."""
    (tmp_path / "models.json.new").mkdir()
    record = ModelRecord(tmp_path / "models.json")
    record.put(ENTRY)
    assert record.all() == [ENTRY]
    assert "model_record_unwritable" in caplog.text


def test_nothing_is_written_where_nothing_changes(tmp_path: Path) -> None:
    """Flash is spared."""
    path = tmp_path / "models.json"
    record = ModelRecord(path)
    record.put(ENTRY)
    path.unlink()
    record.put(ENTRY)
    assert not path.exists()


def test_the_file_is_the_users_own_and_says_its_format(tmp_path: Path) -> None:
    """A later release knows what it reads."""
    path = tmp_path / "state" / "models.json"
    ModelRecord(path).put(ENTRY)
    assert json.loads(path.read_text())["format_version"] == 1
    assert path.parent.stat().st_mode & 0o777 == 0o700
