"""Attached segments from call to call: what is kept, for how long, and that nothing is let go under a call."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
import sysv_ipc

from lightkeeper.errors import SharedMemoryNotFound, SharedMemoryWritable
from lightkeeper.transport.kept_segments import KEEP_SECONDS, KEPT_FROM_BYTES, KEPT_LIMIT, KeptSegments
from lightkeeper.transport.shared_memory import Attachments

NEVER = 3600.0
MakeSegment = Callable[..., sysv_ipc.SharedMemory]


class Clock:
    """Time that stands still until it is told."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.seconds


@pytest.fixture
def make_segment() -> Iterator[MakeSegment]:
    """Make segments that may be read; they are removed afterwards."""
    made: list[sysv_ipc.SharedMemory] = []

    def make(size_bytes: int = KEPT_FROM_BYTES) -> sysv_ipc.SharedMemory:
        segment = sysv_ipc.SharedMemory(None, sysv_ipc.IPC_CREX, mode=0o600, size=size_bytes)
        made.append(segment)
        segment.write(b"content")
        segment.mode = 0o400
        return segment

    yield make
    for segment in made:
        if segment.attached:
            segment.detach()
        segment.remove()


def call(kept: KeptSegments, segment_id: int) -> bytes:
    """Read a segment as a call does."""
    with Attachments(None, kept) as attachments:
        return bytes(attachments.view(segment_id, 0, 7))


def test_a_large_segment_stays_attached_for_a_while(make_segment: MakeSegment) -> None:
    """The next call finds it as its owner has filled it meanwhile."""
    clock = Clock()
    kept = KeptSegments(now=clock, look_seconds=NEVER)
    segment = make_segment()
    assert call(kept, segment.id) == b"content"
    assert segment.number_attached == 2
    segment.write(b"another")
    assert call(kept, segment.id) == b"another"
    clock.seconds += KEEP_SECONDS - 1
    assert kept.look()
    assert segment.number_attached == 2
    clock.seconds += 1
    assert not kept.look()
    assert segment.number_attached == 1


def test_a_small_segment_is_let_go_at_once(make_segment: MakeSegment) -> None:
    """It costs next to nothing to attach."""
    segment = make_segment(KEPT_FROM_BYTES - 1)
    assert call(KeptSegments(look_seconds=NEVER), segment.id) == b"content"
    assert segment.number_attached == 1


def test_a_segment_that_everybody_else_has_left_is_let_go(make_segment: MakeSegment) -> None:
    """By the thread that looks; then it is gone from the system."""
    kept = KeptSegments(look_seconds=0.02)
    segment = sysv_ipc.SharedMemory(None, sysv_ipc.IPC_CREX, mode=0o600, size=KEPT_FROM_BYTES)
    segment.write(b"content")
    segment.mode = 0o400
    segment.remove()
    assert call(kept, segment.id) == b"content"
    gone = segment.id
    segment.detach()
    deadline = time.monotonic() + KEEP_SECONDS - 1
    while True:
        try:
            sysv_ipc.attach(gone, None, sysv_ipc.SHM_RDONLY).detach()
        except (sysv_ipc.Error, ValueError):
            break
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(SharedMemoryNotFound):
        call(kept, gone)


def test_the_thread_that_looks_ends_when_nothing_is_kept(make_segment: MakeSegment) -> None:
    """And another begins with the next segment."""
    for _ in range(2):
        clock = Clock()
        kept = KeptSegments(now=clock, look_seconds=0.01)
        call(kept, make_segment().id)
        clock.seconds += KEEP_SECONDS
        deadline = time.monotonic() + 20
        while kept._segments:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_rights_are_checked_at_every_call(make_segment: MakeSegment) -> None:
    """One that has become writable is refused, and no longer kept."""
    kept = KeptSegments(look_seconds=NEVER)
    segment = make_segment()
    call(kept, segment.id)
    segment.mode = 0o600
    with pytest.raises(SharedMemoryWritable):
        call(kept, segment.id)
    assert segment.number_attached == 1


def test_of_too_many_the_longest_unused_go(make_segment: MakeSegment) -> None:
    """Those in use stay."""
    kept = KeptSegments(look_seconds=NEVER)
    segments = [make_segment() for _ in range(KEPT_LIMIT + 3)]
    with Attachments(None, kept) as attachments:
        view = attachments.view(segments[0].id, 0, 7)
        for segment in segments[1:]:
            call(kept, segment.id)
        assert [segment.number_attached - 1 for segment in segments] == [1, 0, 0, *[1] * KEPT_LIMIT]
        assert bytes(view) == b"content"


def test_what_is_kept_is_bounded_in_bytes(make_segment: MakeSegment) -> None:
    """However few segments there are."""
    kept = KeptSegments(limit_bytes=3 * KEPT_FROM_BYTES, look_seconds=NEVER)
    segments = [make_segment() for _ in range(4)]
    for segment in segments:
        call(kept, segment.id)
    assert [segment.number_attached - 1 for segment in segments] == [0, 1, 1, 1]


def test_many_threads_share_segments_while_they_come_and_go(make_segment: MakeSegment) -> None:
    """A view is never of memory that is gone: reading such would end this process."""
    clock = Clock()
    kept = KeptSegments(now=clock, look_seconds=NEVER)
    segments = [make_segment() for _ in range(3)]
    wrong: list[bytes] = []
    stop = threading.Event()

    def read(number: int) -> None:
        for turn in range(400):
            found = call(kept, segments[(number + turn) % 3].id)
            if found != b"content":
                wrong.append(found)

    def let_go() -> None:
        while not stop.is_set():
            clock.seconds += KEEP_SECONDS
            kept.look()

    reader = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    cleaner = threading.Thread(target=let_go)
    for thread in (*reader, cleaner):
        thread.start()
    for thread in reader:
        thread.join()
    stop.set()
    cleaner.join()
    clock.seconds += KEEP_SECONDS
    assert not kept.look()
    assert not wrong
    assert [segment.number_attached for segment in segments] == [1, 1, 1]
