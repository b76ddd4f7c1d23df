"""What a device remembers of time and packages, through restarts, damage and full disks."""

from __future__ import annotations

import json
import logging
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lightkeeper.modelpackage.trustrecord import ACCEPTED_MAXIMUM, TrustRecord

RELEASED = datetime(2026, 11, 1, tzinfo=UTC)
LATER = RELEASED + timedelta(days=100)


def test_record_outlives_a_restart(tmp_path: Path) -> None:
    """Floor and digests are there again after a restart (invariants 1 and 2)."""
    path = tmp_path / "state" / "trust.json"
    TrustRecord(path, RELEASED).accept("a" * 64, LATER)
    again = TrustRecord(path, RELEASED)
    assert again.floor == LATER
    assert again.accepted == {"a" * 64}


def test_floor_never_falls(tmp_path: Path) -> None:
    """Neither an older package nor an older agent takes the floor back (invariant 1)."""
    path = tmp_path / "trust.json"
    record = TrustRecord(path, RELEASED)
    record.accept("a" * 64, LATER)
    record.accept("b" * 64, RELEASED - timedelta(days=1))
    assert record.floor == LATER
    assert TrustRecord(path, RELEASED - timedelta(days=999)).floor == LATER
    assert TrustRecord(path, LATER + timedelta(days=1)).floor == LATER + timedelta(days=1)


def test_nothing_new_is_not_written(tmp_path: Path) -> None:
    """A package that is accepted again costs no write (invariant 3)."""
    path = tmp_path / "trust.json"
    record = TrustRecord(path, RELEASED)
    record.accept("a" * 64, LATER)
    path.unlink()
    record.accept("a" * 64, LATER)
    assert not path.exists()


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\0" * 100,
        b"[]",
        b'{"format_version": 2}',
        b'{"format_version": 1, "floor": "soon", "accepted": []}',
        b'{"format_version": 1, "floor": "2027-01-01T00:00:00", "accepted": []}',
        b'{"format_version": 1, "floor": "2027-01-01T00:00:00+00:00", "accepted": [1]}',
    ],
)
def test_damaged_record_starts_fresh_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: bytes
) -> None:
    """A record that cannot be read is said to be so, and written anew with the next package (invariant 4)."""
    path = tmp_path / "trust.json"
    path.write_bytes(damage)
    record = TrustRecord(path, RELEASED)
    assert record.floor == RELEASED
    assert record.accepted == frozenset()
    assert [entry.message for entry in caplog.records] == ["trust_record_unreadable"]
    record.accept("a" * 64, LATER)
    assert TrustRecord(path, RELEASED).accepted == {"a" * 64}


def test_record_that_cannot_be_written_is_kept_in_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where the record cannot be written, the package still counts until the restart (invariant 4)."""
    (tmp_path / "file").touch()
    record = TrustRecord(tmp_path / "file" / "trust.json", RELEASED)
    record.accept("a" * 64, LATER)
    assert record.accepted == {"a" * 64}
    assert caplog.records[-1].message == "trust_record_unwritable"


def test_oldest_package_is_forgotten_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The record has a limit, and says what it forgets."""
    path = tmp_path / "trust.json"
    digests = [f"{number:064x}" for number in range(ACCEPTED_MAXIMUM)]
    path.write_text(json.dumps({"format_version": 1, "floor": RELEASED.isoformat(), "accepted": digests}))
    record = TrustRecord(path, RELEASED)
    with caplog.at_level(logging.WARNING):
        record.accept("f" * 64, LATER)
    assert digests[0] not in record.accepted
    assert len(TrustRecord(path, RELEASED).accepted) == ACCEPTED_MAXIMUM
    assert [entry.message for entry in caplog.records] == ["accepted_package_forgotten"]


def test_threads_lose_nothing(tmp_path: Path) -> None:
    """Packages accepted at the same time are all there after the restart."""
    path = tmp_path / "trust.json"
    record = TrustRecord(path, RELEASED)
    digests = [f"{number:064x}" for number in range(40)]
    threads = [threading.Thread(target=record.accept, args=(digest, LATER)) for digest in digests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert TrustRecord(path, RELEASED).accepted == set(digests)
