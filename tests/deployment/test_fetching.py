"""Fetching a package over a bad network, onto a small disk, and over kills."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from lightkeeper.backoff import Backoff
from lightkeeper.deployment.fetching import FREE_KEPT_BYTES, GIVE_UP_SECONDS, Fetching
from lightkeeper.errors import (
    ArchiveTooLarge,
    ChecksumMismatch,
    DeliveryInterrupted,
    DiskShort,
    FetchGivenUp,
    PackageNotFound,
)
from lightkeeper.providers.fleet import Definition
from tests.support.fleets import PIECE_BYTES, FolderFleet

CONTENT = bytes(range(256)) * 4 * 10
AT_ONCE = Backoff(first_seconds=0.0, most_seconds=0.0)


class Desk:
    """A fleet with one package, and what fetches it."""

    def __init__(self, folder: Path) -> None:
        self.fleet = FolderFleet(folder / "fleet")
        (folder / "m-1.tar.gz").write_bytes(CONTENT)
        self.definition: Definition = self.fleet.put(folder / "m-1.tar.gz")
        self.folder = folder / "fetched"
        self.stopping = threading.Event()
        self.clock = 0.0
        self.most_bytes = len(CONTENT)
        self.free_kept_bytes = FREE_KEPT_BYTES

    def fetch(self, definition: Definition | None = None) -> Path:
        """Fetch the package."""
        return Fetching(
            self.fleet,
            self.folder,
            most_bytes=self.most_bytes,
            stopping=self.stopping,
            free_kept_bytes=self.free_kept_bytes,
            pauses=AT_ONCE,
            monotonic=lambda: self.clock,
        ).fetch(definition or self.definition)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A fleet and a folder."""
    return Desk(tmp_path)


def test_a_cut_fetch_goes_on_where_it_was(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """However often it is cut; every byte comes once, and one line says that it was cut."""
    desk.fleet.cut_after_bytes = 4 * PIECE_BYTES
    assert desk.fetch().read_bytes() == CONTENT
    assert desk.fleet.fetched_bytes == len(CONTENT)
    assert caplog.text.count("fetch_cut_off") >= 1


def test_a_fetch_that_was_stopped_goes_on_at_the_next_start(desk: Desk) -> None:
    """What is there is not fetched again."""
    desk.fleet.cut_after_bytes = 3 * PIECE_BYTES
    desk.stopping.set()
    with pytest.raises(DeliveryInterrupted):
        desk.fetch()
    (part,) = desk.folder.iterdir()
    part.write_bytes(CONTENT[: 3 * PIECE_BYTES])
    desk.stopping.clear()
    desk.fleet.cut_after_bytes, desk.fleet.fetched_bytes = None, 0
    assert desk.fetch().read_bytes() == CONTENT
    assert desk.fleet.fetched_bytes == len(CONTENT) - 3 * PIECE_BYTES


@pytest.mark.parametrize("found", [b"\0" * 5000, b"\0" * len(CONTENT), CONTENT + b"more"])
def test_what_a_power_cut_left_is_fetched_anew(desk: Desk, found: bytes) -> None:
    """A file may hold bytes that nobody wrote."""
    path = desk.fetch()
    path.write_bytes(found)
    assert desk.fetch().read_bytes() == CONTENT


def test_another_package_than_the_deployment_names_is_refused(desk: Desk) -> None:
    """It was replaced in the bucket, or altered; nothing of it stays."""
    with pytest.raises(ChecksumMismatch) as caught:
        desk.fetch(replace(desk.definition, sha1="0" * 40))
    assert caught.value.facts["given"] == desk.definition.sha1
    assert list(desk.folder.iterdir()) == []


def test_without_a_checksum_the_signature_must_do(desk: Desk) -> None:
    """The service does not ask for one."""
    assert desk.fetch(replace(desk.definition, sha1="")).read_bytes() == CONTENT


def test_a_package_that_is_too_large_is_not_begun(desk: Desk) -> None:
    """Neither beyond the limit, nor beyond the free space."""
    desk.free_kept_bytes = 1 << 60
    with pytest.raises(DiskShort):
        desk.fetch()
    desk.most_bytes -= 1
    with pytest.raises(ArchiveTooLarge):
        desk.fetch()
    assert desk.fleet.fetched_bytes == 0


def test_a_package_that_is_not_there_is_not_waited_for(desk: Desk) -> None:
    """Nothing will come of it."""
    with pytest.raises(PackageNotFound):
        desk.fetch(replace(desk.definition, url="s3://packages/ghost.tar.gz"))


def test_a_fleet_that_stays_away_is_given_up_in_the_end(desk: Desk) -> None:
    """So that the fleet hears of it, once it is back."""
    desk.fleet.away = True
    pauses = 0

    class Hours(threading.Event):
        """An event that is never set, and for which every wait takes hours."""

        def wait(self, timeout: float | None = None) -> bool:
            nonlocal pauses
            assert timeout is not None
            pauses += 1
            desk.clock += GIVE_UP_SECONDS / 3
            return False

    desk.stopping = Hours()
    with pytest.raises(FetchGivenUp):
        desk.fetch()
    assert pauses == 4


def test_one_archive_lies_there_at_a_time(desk: Desk) -> None:
    """What another fetch left is removed."""
    desk.folder.mkdir()
    (desk.folder / "other.part").write_bytes(b"left")
    path = desk.fetch()
    assert list(desk.folder.iterdir()) == [path]
