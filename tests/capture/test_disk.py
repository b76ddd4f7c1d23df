"""The destination Disk: whole batches under their names, once, whatever happens between."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from lightkeeper.capture.disk import UNFINISHED, DiskSink, mount_point
from lightkeeper.capture.files import PRIVATE_FILE, PRIVATE_FOLDER, RealFiles
from lightkeeper.capture.ledger import Batch, State
from lightkeeper.capture.notes import Notes
from lightkeeper.capture.spool import Spool
from lightkeeper.errors import (
    DeliveryFailed,
    DestinationFaulty,
    DestinationFull,
    DestinationMissing,
    PayloadLost,
    RecordDamaged,
)
from lightkeeper.modelpackage.package import local_path
from tests.support.batches import LAYOUT, START_MS, open_spool, picture, stored, tree
from tests.support.systems import posix_only

HOUR = "site/a/yard/cam-1/2026/01/01/00"


class Killed(BaseException):
    """The process ends here; nothing catches it."""


class ScriptedFiles(RealFiles):
    """Real files, of which one call, counted from 1, raises in place of doing its work; a write is cut short."""

    def __init__(self, *, at: int = 0, error: BaseException | None = None) -> None:
        super().__init__()
        self.calls: list[str] = []
        self._at, self._error = at, error

    def _do(self, name: str, work: Callable[[], None]) -> None:
        self.calls.append(name)
        if len(self.calls) == self._at and self._error is not None:
            raise self._error
        work()

    def write(self, path: Path, data: Iterable[bytes | memoryview], *, mode: int = PRIVATE_FILE) -> None:
        """See `Files.write`; cut short, half of it is written."""
        if len(self.calls) + 1 == self._at and self._error is not None:
            whole = b"".join(bytes(chunk) for chunk in data)
            super().write(path, [whole[: len(whole) // 2]], mode=mode)
            data = [whole]
        self._do("write", lambda: super(ScriptedFiles, self).write(path, data, mode=mode))

    def make_folder(self, path: Path, *, mode: int = PRIVATE_FOLDER) -> None:
        """See `Files.make_folder`."""
        self._do("make_folder", lambda: super(ScriptedFiles, self).make_folder(path, mode=mode))

    def rename(self, source: Path, target: Path) -> None:
        """See `Files.rename`."""
        self._do("rename", lambda: super(ScriptedFiles, self).rename(source, target))

    def link(self, source: Path, target: Path) -> None:
        """See `Files.link`."""
        self._do("link", lambda: super(ScriptedFiles, self).link(source, target))

    def sync_folder(self, folder: Path) -> None:
        """See `Files.sync_folder`."""
        self._do("sync_folder", lambda: super(ScriptedFiles, self).sync_folder(folder))


class LinklessFiles(ScriptedFiles):
    """A file system without hard links."""

    def link(self, source: Path, target: Path) -> None:  # noqa: ARG002  # the protocol's
        """See `Files.link`."""
        self.calls.append("link")
        raise OSError(errno.EPERM, "Operation not permitted")


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """The folder of captures, which is not there yet."""
    return tmp_path / "captures"


@pytest.fixture
def spool(tmp_path: Path, disk: Path) -> Spool:
    """A spool with one waiting batch of two captures, one with a large payload."""
    spool = open_spool(tmp_path / "spool", root=disk.as_uri())
    spool.accept(stored("one"))
    spool.accept(stored("two", large=picture(2)))
    return spool


def waiting(spool: Spool) -> Batch:
    """Return the batch that waits."""
    batch = spool.next_batch()
    assert batch is not None
    return batch


def deliver(spool: Spool, sink: DiskSink) -> None:
    """Deliver the batch that waits, as the delivery does."""
    batch = waiting(spool)
    spool.settle(batch, sink.deliver(batch, spool.captures_of(batch)))


def test_a_batch_lies_under_prefix_fleet_device_and_hour(spool: Spool, disk: Path) -> None:
    """Lines and payload have the keys that the specification says, and nothing else is there."""
    batch = waiting(spool)
    deliver(spool, DiskSink(disk, layout=LAYOUT, files=RealFiles()))
    assert set(tree(disk)) == {f"{HOUR}/{batch.name}.jsonl", f"{HOUR}/{batch.name}/two-1.jpg"}


def test_lines_refer_to_the_payload_by_its_address(spool: Spool, disk: Path) -> None:
    """A consumer opens what `data-ref` says and finds the bytes that were captured."""
    batch = waiting(spool)
    deliver(spool, DiskSink(disk, layout=LAYOUT, files=RealFiles()))
    one, two = [json.loads(line) for line in tree(disk)[f"{HOUR}/{batch.name}.jsonl"].splitlines()]
    assert [line["eventMetadata"]["eventId"] for line in (one, two)] == ["one", "two"]
    assert base64.b64decode(one["deviceFleetInputs"][0]["data"]) == b"one"
    reference = two["deviceFleetAuxiliaryInputs"][0]["data-ref"]
    assert reference == f"{disk.as_uri()}/{HOUR}/{batch.name}/two-1.jpg"
    assert local_path(reference).read_bytes() == picture(2)


def test_the_receipt_is_what_lies_there(spool: Spool, disk: Path) -> None:
    """Key, size and SHA-256 are the file's."""
    batch = waiting(spool)
    receipt = DiskSink(disk, layout=LAYOUT, files=RealFiles()).deliver(batch, spool.captures_of(batch))
    lines = (disk / receipt.key).read_bytes()
    assert (receipt.state, receipt.size_bytes) == (State.WRITTEN, len(lines))
    assert receipt.sha256 == hashlib.sha256(lines).hexdigest()


def test_a_payload_costs_no_second_copy(spool: Spool, disk: Path) -> None:
    """Flash wears; the disk's file is the spool's own, which the spool then lets go of."""
    inode = next((spool.payloads).iterdir()).stat().st_ino
    deliver(spool, DiskSink(disk, layout=LAYOUT, files=RealFiles()))
    (payload,) = disk.rglob("two-1.jpg")
    assert payload.stat().st_ino == inode
    assert payload.stat().st_nlink == 1


@posix_only
def test_everybody_who_may_enter_the_folder_may_read(spool: Spool, disk: Path) -> None:
    """Consumers run as other users; the folder itself says who is let in."""
    before = os.umask(0o022)
    try:
        deliver(spool, DiskSink(disk, layout=LAYOUT, files=RealFiles()))
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in disk.rglob("*.jsonl")}
    assert modes == {0o644}
    assert {path.stat().st_mode & 0o777 for path in disk.rglob("*") if path.is_dir()} == {0o755}


def test_a_file_system_without_links_gets_a_copy(spool: Spool, disk: Path) -> None:
    """The copy is complete before it has its name, and nothing stays behind."""
    files = LinklessFiles()
    deliver(spool, DiskSink(disk, layout=LAYOUT, files=files))
    (payload,) = disk.rglob("two-1.jpg")
    assert payload.read_bytes() == picture(2)
    assert list((disk / UNFINISHED).iterdir()) == []
    assert list(spool.payloads.iterdir()) == []


@pytest.mark.parametrize("kind", [ScriptedFiles, LinklessFiles])
def test_killed_at_any_step_the_next_start_gives_the_same_files_once(tmp_path: Path, kind: type[ScriptedFiles]) -> None:
    """For every file operation: the process ends there; a new one delivers, and the folder is as if nothing was."""
    expected: dict[str, bytes] | None = None
    at = 0
    while True:
        folder = tmp_path / f"{at}"
        disk = tmp_path / "disk"  # one address, so that the lines can be compared
        spool = open_spool(folder / "spool", root=disk.as_uri())
        spool.accept(stored("one"))
        spool.accept(stored("two", large=picture(2)))
        files = kind(at=at, error=Killed())
        finished = True
        try:
            deliver(spool, DiskSink(disk, layout=LAYOUT, files=files))
        except Killed:
            finished = False
        seen = [name for name in tree(disk) if name.endswith(".jsonl")]
        for name in seen:  # what can be seen is whole
            for line in (disk / name).read_text().splitlines():
                for entry in json.loads(line)["deviceFleetAuxiliaryInputs"]:
                    assert local_path(entry["data-ref"]).read_bytes() == picture(2)
        spool.close()
        spool = open_spool(folder / "spool", root=disk.as_uri())
        sink = DiskSink(disk, layout=LAYOUT, files=RealFiles())
        sink.clean(spool.id)
        if spool.next_batch() is not None:
            deliver(spool, sink)
        found = {
            name.replace(spool.id, "ID"): data.replace(spool.id.encode(), b"ID") for name, data in tree(disk).items()
        }
        expected = expected or found
        assert found == expected, (at, files.calls)
        assert list(spool.payloads.iterdir()) == []
        spool.close()
        for path in sorted(disk.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        if at and finished:
            break
        at += 1
    assert at > 8


def test_what_a_dead_agent_left_unfinished_is_removed(spool: Spool, disk: Path) -> None:
    """Its own leavings go at the start, another agent's stay."""
    unfinished = disk / UNFINISHED
    unfinished.mkdir(parents=True)
    (unfinished / f"{spool.id}-00000007.jsonl").write_bytes(b"half")
    (unfinished / "other-00000007.jsonl").write_bytes(b"half")
    removed = DiskSink(disk, layout=LAYOUT, files=RealFiles()).clean(spool.id)
    assert removed == [f"{spool.id}-00000007.jsonl"]
    assert [path.name for path in unfinished.iterdir()] == ["other-00000007.jsonl"]


@pytest.mark.parametrize(
    ("code", "refusal"),
    [
        (errno.ENOSPC, DestinationFull),
        (errno.EDQUOT, DestinationFull),
        (errno.EIO, DestinationFaulty),
        (errno.EROFS, DestinationFaulty),
        (errno.EACCES, DestinationFaulty),
        (errno.ENOENT, DestinationMissing),
    ],
    ids=errno.errorcode.get,
)
def test_a_file_system_that_refuses_is_named_and_the_batch_waits(
    spool: Spool, disk: Path, code: int, refusal: type[DeliveryFailed]
) -> None:
    """At each of its operations; delivering again once it works again succeeds."""
    disk.mkdir()
    batch = waiting(spool)
    counting = ScriptedFiles()
    DiskSink(disk / "0", layout=LAYOUT, files=counting).deliver(batch, spool.captures_of(batch))
    for at in range(1, len(counting.calls) + 1):
        sink = DiskSink(
            disk / f"{at}", layout=LAYOUT, files=ScriptedFiles(at=at, error=OSError(code, os.strerror(code)))
        )
        with pytest.raises(refusal) as caught:
            deliver(spool, sink)
        assert caught.value.facts["cause"] == errno.errorcode[code]
    deliver(spool, DiskSink(disk / "1", layout=LAYOUT, files=RealFiles()))
    assert len(tree(disk / "1")) == 2


def test_a_mount_that_is_gone_is_not_written_under(spool: Spool, disk: Path) -> None:
    """The folder under a missing mount is another disk, perhaps the system's."""
    notes = Notes(spool.journal)
    sink = DiskSink(disk, layout=LAYOUT, files=RealFiles(), notes=notes)
    batch = waiting(spool)
    notes.put(f"mount:{disk}", str(disk))
    with pytest.raises(DestinationMissing, match="nothing is mounted at"):
        sink.deliver(batch, spool.captures_of(batch))


def test_a_mount_is_remembered_when_it_is_first_seen(spool: Spool, disk: Path) -> None:
    """So that it is missed when it goes."""
    notes = Notes(spool.journal)
    deliver(spool, DiskSink(disk, layout=LAYOUT, files=RealFiles(), notes=notes))
    assert notes.get(f"mount:{disk}") == str(mount_point(disk))


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"short")])
def test_a_payload_that_is_not_whole_is_never_delivered(
    spool: Spool, disk: Path, damage: Callable[[Path], object]
) -> None:
    """A consumer sees no line that names it."""
    damage(next(spool.payloads.iterdir()))
    batch = waiting(spool)
    with pytest.raises(PayloadLost, match="of capture two cannot be read"):
        DiskSink(disk, layout=LAYOUT, files=RealFiles()).deliver(batch, spool.captures_of(batch))
    assert tree(disk) == {}


def test_a_damaged_record_is_named(spool: Spool, disk: Path) -> None:
    """Flash rots; the capture is told from the others."""
    spool.journal.write(lambda database: database.execute("UPDATE captures SET header = x'7b' WHERE id = 'two'"))
    batch = waiting(spool)
    with pytest.raises(RecordDamaged) as caught:
        DiskSink(disk, layout=LAYOUT, files=RealFiles()).deliver(batch, spool.captures_of(batch))
    assert caught.value.facts["capture"] == "two"


def test_keys_follow_from_the_batch_alone() -> None:
    """The clock of the delivery, the agent's version or a restart change no key."""
    batch = Batch(7, "0a1b2c3d-00000007", "s3://b", START_MS + 3_600_000, 1)
    assert LAYOUT.batch_key(batch) == "site/a/yard/cam-1/2026/01/01/01/0a1b2c3d-00000007.jsonl"
