"""The spool: room, thinning, time, what a crash leaves, and how durable it is (docs/spec/capture.md, section 2)."""

from __future__ import annotations

import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightkeeper.capture import pressure
from lightkeeper.capture.files import RealFiles
from lightkeeper.capture.journal import Durability
from lightkeeper.capture.ledger import FORMAT_VERSION
from lightkeeper.capture.quarantine import Quarantine
from lightkeeper.capture.spool import Keep, Receipt, Room, Spool, State
from lightkeeper.capture.upkeep import DAY_MS
from lightkeeper.errors import CaptureBufferFull, CaptureIdTaken, SpoolBroken, SpoolFull, SpoolTooNew
from tests.support.spools import IN_MEMORY, Clock, Disk, audited, crashed, is_whole, open_spool, stored

RECEIPT = Receipt(State.WRITTEN, "batch.jsonl", 1, "ab")


def small_room(*, thin: bool, captures: int) -> Room:
    """Return room for about so many captures of `stored`, in batches of two."""
    size_bytes = stored("id-0").size_bytes + 512
    return Room(buffer=1000, batch=2, spool_max_bytes=captures * (size_bytes + 4), free_floor_bytes=0, thin=thin)


def survivors(spool: Spool) -> list[tuple[int, int]]:
    """Return number and weight of every capture that was not thinned."""
    return spool.journal.read("SELECT seq, weight FROM captures WHERE state <> ? ORDER BY seq", State.THINNED)


# --- room ------------------------------------------------------------------------------------------------------------


def test_a_full_spool_rejects_and_takes_again_when_something_was_delivered(tmp_path: Path) -> None:
    """Delivered data frees room (clause 2.4)."""
    spool = open_spool(tmp_path / "s", room=small_room(thin=False, captures=4))
    for number in range(4):
        spool.accept(stored(f"id-{number}"))
    with pytest.raises(SpoolFull):
        spool.accept(stored("id-4"))
    batch = spool.next_batch()
    assert batch is not None
    spool.settle(batch, RECEIPT)
    spool.accept(stored("id-4"))


def test_a_spool_leaves_the_disk_its_free_floor(tmp_path: Path) -> None:
    """Free space counts, and what is free within the database's own file."""
    disk = Disk(free_bytes=1_000_000)
    spool = open_spool(tmp_path / "s", room=Room(1000, 3, 1 << 40, 999_000), disk=disk)
    with pytest.raises(SpoolFull) as refusal:
        spool.accept(stored("id-1", 50_000))
    assert refusal.value.facts["floor_bytes"] == "999000"
    disk.free = 2_000_000
    assert spool.accept(stored("id-1", 50_000)) is None


def test_a_full_buffer_is_refused_at_once(tmp_path: Path) -> None:
    """As many captures as the buffer holds wait for their batch."""
    spool = open_spool(tmp_path / "s", room=Room(2, 10, 1 << 40, 0))
    spool.accept(stored("id-1"))
    spool.accept(stored("id-2"))
    with pytest.raises(CaptureBufferFull):
        spool.accept(stored("id-3"))


def test_many_callers_are_never_refused_while_batches_close_in_time(tmp_path: Path) -> None:
    """A capture counts once against the buffer, whether it is promised or in."""
    spool = open_spool(tmp_path / "s", room=Room(buffer=10, batch=2, spool_max_bytes=1 << 40, free_floor_bytes=0))
    with ThreadPoolExecutor(8) as callers:
        list(callers.map(lambda number: spool.accept(stored(f"id-{number}")), range(400)))
    assert audited(tmp_path / "s").states[State.WAITING] == 400


def test_one_id_from_many_callers_is_accepted_once(tmp_path: Path) -> None:
    """And leaves no payload file of the others."""
    spool = open_spool(tmp_path / "s")
    start = threading.Barrier(8)

    def call(_caller: int) -> bool:
        start.wait()
        try:
            spool.accept(stored("same", 300))
        except CaptureIdTaken:
            return False
        return True

    with ThreadPoolExecutor(8) as callers:
        assert sum(callers.map(call, range(8))) == 1
    assert len(list(spool.payloads.iterdir())) == 1
    assert audited(tmp_path / "s").faults == ()


# --- thinning --------------------------------------------------------------------------------------------------------


@given(
    captures=st.integers(1, 300),
    room=st.integers(4, 40),
    delivered=st.sets(st.integers(0, 300), max_size=60),
    restarts=st.sets(st.integers(0, 300), max_size=3),
)
@settings(max_examples=25, deadline=None)
def test_a_thinning_spool_keeps_an_even_sample_within_its_bound(
    captures: int, room: int, delivered: set[int], restarts: set[int]
) -> None:
    """Every capture is answered OK; gaps are at most 2 * 2^L, weights add up, the bound holds (clause 2.4)."""
    home = Path(mkdtemp(dir=IN_MEMORY))
    folder = home / "s"
    limits = small_room(thin=True, captures=room)
    spool = open_spool(folder, room=limits)
    highest = 0
    for number in range(captures):
        spool.accept(stored(f"id-{number}"))
        assert spool.held_bytes <= limits.spool_max_bytes
        highest = max(highest, spool._counts.level)
        batch = spool.next_batch() if number in delivered else None
        if batch is not None:
            spool.captures_of(batch)
            spool.settle(batch, RECEIPT)
        if number in restarts:
            spool.close()
            spool = open_spool(folder, room=limits)
    assert audited(folder).faults == ()
    stayed = survivors(spool)
    spool.close()
    numbers = [0, *(seq for seq, _ in stayed), captures + 1]
    assert max(after - before for before, after in pairwise(numbers)) <= 2 * 2**highest
    assert max(weight for _, weight in stayed) <= 4 * 2**highest
    rmtree(home)


def test_a_batch_in_delivery_is_not_thinned(tmp_path: Path) -> None:
    """What a sink was given stays as it was given (clause 2.4)."""
    spool = open_spool(tmp_path / "s", room=small_room(thin=True, captures=8))
    for number in range(8):
        spool.accept(stored(f"id-{number}"))
    batch = spool.next_batch()
    assert batch is not None
    given_ids = [capture.id for capture in spool.captures_of(batch)]
    for number in range(8, 60):
        spool.accept(stored(f"id-{number}"))
    assert [capture.id for capture in spool.captures_of(batch)] == given_ids
    assert spool.state_of("id-2") is State.THINNED or spool.state_of("id-3") is State.THINNED


def test_the_level_falls_when_the_spool_has_drained(tmp_path: Path) -> None:
    """A step a delivered batch; then every capture stays again, for itself alone but for the carry."""
    spool = open_spool(tmp_path / "s", room=small_room(thin=True, captures=16))
    for number in range(200):
        spool.accept(stored(f"id-{number}"))
    assert spool._counts.level >= 3
    spool.close_batch()
    while (batch := spool.next_batch()) is not None:
        spool.captures_of(batch)
        spool.settle(batch, RECEIPT)
    for number in range(200, 240):
        spool.accept(stored(f"id-{number}"))
        spool.close_batch()
        if (batch := spool.next_batch()) is not None:
            spool.settle(batch, RECEIPT)
    assert spool._counts.level == 0
    assert [weight for _, weight in survivors(spool)[-5:]] == [1] * 5


def test_a_capture_larger_than_the_spool_thins_nothing(tmp_path: Path) -> None:
    """Nothing is given up for what would not fit anyway, nor for a disk that others filled."""
    disk = Disk()
    limits = small_room(thin=True, captures=8)
    floored = Room(1000, 2, limits.spool_max_bytes, 1_000_000, thin=True)
    spool = open_spool(tmp_path / "s", room=floored, disk=disk)
    for number in range(6):
        spool.accept(stored(f"id-{number}"))
    with pytest.raises(SpoolFull):
        spool.accept(stored("giant", limits.spool_max_bytes))
    disk.free = 0
    with pytest.raises(SpoolFull):
        spool.accept(stored("id-6"))
    assert audited(tmp_path / "s").states[State.THINNED] == 0


def test_one_piece_of_thinning_is_bounded(tmp_path: Path) -> None:
    """However much waits, a caller pays for a thousand captures and one batch at most."""
    room = Room(1000, 100, 1 << 40, 0, thin=True)
    spool = open_spool(tmp_path / "s", room=room, durability=Durability(in_memory=True))
    for number in range(3000):
        spool.accept(stored(f"id-{number}"))
    assert spool._thin()
    thinned = spool.journal.read("SELECT COUNT(*) FROM captures WHERE state = ?", State.THINNED)[0][0]
    assert thinned == pressure.THIN_STEP // 2


# --- time ------------------------------------------------------------------------------------------------------------


def test_what_waited_too_long_expires_but_not_under_the_sink(tmp_path: Path) -> None:
    """The batch being delivered stays until it is released (clause 2.5)."""
    clock = Clock()
    spool = open_spool(tmp_path / "s", clock=clock, keep=Keep(expire_days=7))
    for number in range(6):
        spool.accept(stored(f"id-{number}", 300))
    batch = spool.next_batch()
    assert batch is not None
    spool.captures_of(batch)
    clock.ms += 8 * DAY_MS
    spool.maintain()
    assert [spool.state_of(f"id-{number}") for number in (0, 3)] == [State.WAITING, State.EXPIRED]
    spool.release(batch)
    spool.maintain()
    assert spool.state_of("id-0") is State.EXPIRED
    assert list(spool.payloads.iterdir()) == []
    assert spool.held_bytes == 0


def test_what_is_long_done_with_is_forgotten_and_counted_and_what_waits_is_not(tmp_path: Path) -> None:
    """A forgotten id may come again; the audit still adds up (clause 2.5)."""
    clock = Clock()
    spool = open_spool(tmp_path / "s", clock=clock)
    for number in range(9):
        spool.accept(stored(f"id-{number}"))
    for _ in range(2):
        batch = spool.next_batch()
        assert batch is not None
        spool.settle(batch, RECEIPT)
    clock.ms += 31 * DAY_MS
    spool.maintain()
    audit = audited(tmp_path / "s")
    assert (audit.forgotten[State.WRITTEN], audit.states[State.WAITING], audit.faults) == (6, 3, ())
    assert spool.journal.read("SELECT COUNT(*) FROM batches") == [(1,)]
    spool.accept(stored("id-0"))


def test_the_file_shrinks_when_much_was_delivered(tmp_path: Path) -> None:
    """Room goes back to the file system, a piece a call."""
    spool = open_spool(tmp_path / "s", room=Room(1000, 100, 1 << 40, 0))
    for number in range(500):
        spool.accept(stored(f"id-{number}", *[60] * 1000))
    spool.journal.read("PRAGMA wal_checkpoint(TRUNCATE)")
    large_bytes = (tmp_path / "s" / "spool.db").stat().st_size
    while (batch := spool.next_batch()) is not None:
        spool.settle(batch, RECEIPT)
    for _ in range(100):
        spool.maintain()
    spool.journal.read("PRAGMA wal_checkpoint(TRUNCATE)")
    assert (tmp_path / "s" / "spool.db").stat().st_size < large_bytes / 3


# --- what a crash leaves ---------------------------------------------------------------------------------------------


def test_a_payload_file_without_a_capture_goes_to_quarantine_with_its_cause(tmp_path: Path) -> None:
    """An accept was cut short before its row (clause 2.7)."""
    open_spool(tmp_path / "s").close()
    (tmp_path / "s" / "payloads" / "0123-0").write_bytes(b"half")
    spool = open_spool(tmp_path / "s")
    assert list(spool.payloads.iterdir()) == []
    kept = sorted(spool.quarantine.iterdir())
    assert [path.name.partition("-0123")[2] for path in kept] == ["-0", "-0.cause.json"]
    cause = json.loads(kept[1].read_text())
    assert cause["what"] == "0123-0"
    assert "no accepted capture" in cause["why"]


@pytest.mark.parametrize("damage", ["missing", "short", "folder"])
def test_a_capture_whose_payload_is_not_whole_is_quarantined_alone(tmp_path: Path, damage: str) -> None:
    """The others of its batch go on; what is left of it is kept (clause 2.7)."""
    spool = open_spool(tmp_path / "s")
    for number in range(3):
        spool.accept(stored(f"id-{number}", 24, 300))
    ((file,),) = spool.journal.read("SELECT file FROM payloads WHERE capture = 2")
    spool.close()
    path = tmp_path / "s" / "payloads" / file
    content = path.read_bytes()
    path.unlink()
    if damage == "short":
        path.write_bytes(content[:100])
    elif damage == "folder":
        path.mkdir()
    spool = open_spool(tmp_path / "s")
    batch = spool.next_batch()
    assert batch is not None
    assert [(capture.id, is_whole(capture)) for capture in spool.captures_of(batch)] == [("id-0", True), ("id-2", True)]
    assert spool.state_of("id-1") is State.QUARANTINED
    left = next(json.loads(path.read_text()) for path in spool.quarantine.glob("*id-1.json"))
    assert left["id"] == "id-1"
    assert audited(tmp_path / "s").faults == ()


def test_foreign_files_in_the_spool_go_to_quarantine(tmp_path: Path) -> None:
    """Nobody's file is read, removed or left in the way."""
    open_spool(tmp_path / "s").close()
    (tmp_path / "s" / "notes.txt").write_text("mine")
    (tmp_path / "s" / "folder").mkdir()
    spool = open_spool(tmp_path / "s")
    assert sorted(path.name for path in spool.folder.iterdir() if "." not in path.name) == ["payloads", "quarantine"]
    assert next(spool.quarantine.glob("*notes.txt")).read_text() == "mine"


@pytest.mark.parametrize("damage", ["garbage", "cut", "empty"])
def test_a_damaged_database_is_moved_aside_and_a_new_one_begun(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Said as an ERROR; captures go on under another name, so that nothing delivered is ever written over."""
    spool = open_spool(tmp_path / "s")
    for number in range(30):
        spool.accept(stored(f"id-{number}"))
    first_id = spool.id
    spool.close()
    database = tmp_path / "s" / "spool.db"
    content = database.read_bytes()
    database.write_bytes({"garbage": b"x" * 9000, "cut": content[: len(content) // 3], "empty": b"\0" * 4096}[damage])
    with caplog.at_level(logging.ERROR):
        spool = open_spool(tmp_path / "s")
    assert "spool_damaged" in caplog.messages
    assert next(spool.quarantine.glob("*spool.db")).stat().st_size > 0
    spool.accept(stored("id-0"))
    assert spool.id != first_id
    assert audited(tmp_path / "s").accepted == 1


def overwrite_pages(database: Path) -> None:
    """Damage every page of a database but the first."""
    with database.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (database.stat().st_size - 4096))


def test_damage_beyond_the_first_page_is_found_at_the_start(tmp_path: Path) -> None:
    """The file still says that it is a database."""
    spool = open_spool(tmp_path / "s")
    for number in range(30):
        spool.accept(stored(f"id-{number}"))
    spool.close()
    overwrite_pages(tmp_path / "s" / "spool.db")
    spool = open_spool(tmp_path / "s")
    spool.accept(stored("more"))
    assert list(spool.quarantine.glob("*spool.db"))


def test_damage_found_while_running_is_seen_to_at_the_next_start(tmp_path: Path) -> None:
    """Captures are refused meanwhile, and nothing else happens."""
    spool = open_spool(tmp_path / "s")
    for number in range(300):
        spool.accept(stored(f"id-{number}"))
    spool.close()
    spool = open_spool(tmp_path / "s")
    overwrite_pages(tmp_path / "s" / "spool.db")
    with pytest.raises(SpoolBroken):
        spool.accept(stored("more"))
    spool.close()
    spool = open_spool(tmp_path / "s")
    spool.accept(stored("more"))
    assert spool.state_of("id-1") is None
    assert list(spool.quarantine.glob("*spool.db"))


def test_a_spool_of_a_later_release_is_not_touched(tmp_path: Path) -> None:
    """The refusal says so; the file stays as it is."""
    spool = open_spool(tmp_path / "s")
    spool.journal.write(lambda database: database.execute(f"PRAGMA user_version = {FORMAT_VERSION + 1}"))
    spool.close()
    before = (tmp_path / "s" / "spool.db").read_bytes()
    with pytest.raises(SpoolTooNew):
        open_spool(tmp_path / "s")
    assert (tmp_path / "s" / "spool.db").read_bytes() == before


def test_quarantine_is_bounded_and_the_oldest_goes_first(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each removal is a WARNING; the newest stays even where it alone is too large (clause 2.7)."""
    clock = Clock()
    quarantine = Quarantine(tmp_path, files=RealFiles(), now_ms=clock, limit_bytes=1000)
    for number in range(5):
        clock.ms += 1
        quarantine.keep(f"thing-{number}", [b"x" * 400], why="a test")
    names = sorted(path.name[23:] for path in tmp_path.iterdir())
    assert names == ["thing-3", "thing-3.cause.json", "thing-4", "thing-4.cause.json"]
    assert caplog.messages.count("quarantine_trimmed") == 3
    quarantine.keep("large", [b"x" * 5000], why="a test")
    assert sorted(path.name[23:] for path in tmp_path.iterdir()) == ["large", "large.cause.json"]


# --- how durable -----------------------------------------------------------------------------------------------------


def test_in_memory_a_clean_stop_loses_nothing_and_a_crash_what_came_since(tmp_path: Path) -> None:
    """And no name of a batch comes again, so that nothing delivered is written over (clause 2.2)."""
    memory = Durability(in_memory=True)
    spool = open_spool(tmp_path / "s", durability=memory)
    for number in range(4):
        spool.accept(stored(f"id-{number}", 300))
    spool.close()
    spool = open_spool(tmp_path / "s", durability=memory)
    assert spool.state_of("id-3") is State.OPEN
    spool.accept(stored("id-4", 300))
    second = open_spool(crashed(tmp_path / "s", tmp_path / "t"), durability=memory)
    assert (second.state_of("id-3"), second.state_of("id-4")) == (State.OPEN, None)
    assert second.id != spool.id
    synced = open_spool(crashed(tmp_path / "s", tmp_path / "u"))
    assert synced.state_of("id-3") is State.OPEN


def test_waiting_batches_go_where_captures_go_now(tmp_path: Path) -> None:
    """After a change of destination, what waits follows it."""
    spool = open_spool(tmp_path / "s", root="file:///old")
    for number in range(3):
        spool.accept(stored(f"id-{number}"))
    spool.close()
    batch = open_spool(tmp_path / "s", root="s3://new").next_batch()
    assert batch is not None
    assert batch.root == "s3://new"
