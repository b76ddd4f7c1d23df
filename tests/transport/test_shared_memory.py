"""Shared memory: what is read in place, and what is refused before it is read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import sysv_ipc

from lightkeeper.errors import (
    SharedMemoryForeign,
    SharedMemoryNotFound,
    SharedMemoryOutOfBounds,
    SharedMemoryWritable,
)
from lightkeeper.transport.kept_segments import KeptSegments
from lightkeeper.transport.segments import IDLE_LIMIT, SegmentPool
from lightkeeper.transport.shared_memory import Attachments

MakeSegment = Callable[..., sysv_ipc.SharedMemory]
OTHER_UID = 65533


@pytest.fixture
def make_segment() -> Iterator[MakeSegment]:
    """Make segments as a C client does: shmget, fill, then set the mode; they are removed afterwards."""
    made: list[sysv_ipc.SharedMemory] = []

    def make(content: bytes = b"0123456789", mode: int = 0o400) -> sysv_ipc.SharedMemory:
        segment = sysv_ipc.SharedMemory(None, sysv_ipc.IPC_CREX, mode=0o600, size=len(content))
        made.append(segment)
        segment.write(content)
        segment.mode = mode
        return segment

    yield make
    for segment in made:
        segment.detach()
        segment.remove()


@pytest.mark.parametrize(
    ("offset", "size", "expected"), [(0, 10, b"0123456789"), (3, 4, b"3456"), (4, 0, b"456789"), (10, 0, b"")]
)
def test_a_handle_is_read_in_place(make_segment: MakeSegment, offset: int, size: int, expected: bytes) -> None:
    """A size of zero goes to the segment's end."""
    segment = make_segment()
    with Attachments(None, KeptSegments()) as attachments:
        view = attachments.view(segment.id, offset, size)
        assert bytes(view) == expected
        assert view.readonly


def test_the_bytes_are_not_copied(make_segment: MakeSegment) -> None:
    """What the client's own mapping changes shows at once."""
    segment = make_segment()
    with Attachments(None, KeptSegments()) as attachments:
        view = attachments.view(segment.id, 0, 10)
        memoryview(segment)[0:1] = b"X"
        assert bytes(view[:2]) == b"X1"


def test_a_call_detaches_what_it_attached(make_segment: MakeSegment) -> None:
    """However many tensors lie in a segment, it is attached once and let go once."""
    segment = make_segment()
    with Attachments(None, KeptSegments()) as attachments:
        attachments.view(segment.id, 0, 5)
        attachments.view(segment.id, 5, 5)
        assert segment.number_attached == 2
    assert segment.number_attached == 1


@pytest.mark.parametrize("mode", [0o600, 0o420, 0o402, 0o500, 0o410, 0o401, 0o777, 0o200])
def test_a_segment_that_anyone_may_write_or_execute_is_refused(make_segment: MakeSegment, mode: int) -> None:
    """Its content could change while the model reads it; nothing stays attached."""
    segment = make_segment(mode=mode)
    with Attachments(None, KeptSegments()) as attachments, pytest.raises(SharedMemoryWritable) as caught:
        attachments.view(segment.id, 0, 10)
    assert caught.value.facts["mode"] == f"{mode:04o}"
    assert segment.number_attached == 1


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o444])
def test_a_segment_that_is_only_readable_is_taken(make_segment: MakeSegment, mode: int) -> None:
    """For the owner alone, the group, or everyone."""
    segment = make_segment(mode=mode)
    with Attachments(os.geteuid(), KeptSegments()) as attachments:
        assert bytes(attachments.view(segment.id, 0, 1)) == b"0"


@pytest.mark.parametrize(
    ("offset", "size"), [(0, 11), (10, 1), (11, 0), (2**64 - 1, 1), (1, 2**64 - 1), (2**63, 2**63), (0, 2**64 - 1)]
)
def test_a_handle_past_the_end_is_refused(make_segment: MakeSegment, offset: int, size: int) -> None:
    """Sums that would overflow 64 bits included."""
    segment = make_segment()
    with Attachments(None, KeptSegments()) as attachments, pytest.raises(SharedMemoryOutOfBounds) as caught:
        attachments.view(segment.id, offset, size)
    assert caught.value.facts["segment_bytes"] == "10"


def test_a_removed_segment_is_not_found(make_segment: MakeSegment) -> None:
    """Nor is an id that never was, of any size the wire can carry."""
    segment = sysv_ipc.SharedMemory(None, sysv_ipc.IPC_CREX, size=10)
    gone = segment.id
    segment.detach()
    segment.remove()
    for segment_id in (gone, 2**31 - 1, 2**31, 2**32 + make_segment().id, 2**64 - 1):
        with Attachments(None, KeptSegments()) as attachments, pytest.raises(SharedMemoryNotFound):
            attachments.view(segment_id, 0, 1)


@dataclass(frozen=True)
class Case:
    """Who owns a segment of which mode, and whether the caller could read it."""

    owner: int
    mode: int
    readable: bool


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a segment to another user needs root")
@pytest.mark.parametrize(
    "case", [Case(0, 0o400, False), Case(0, 0o444, True), Case(OTHER_UID, 0o400, True), Case(OTHER_UID, 0o044, False)]
)
def test_a_caller_gets_nothing_read_that_it_could_not_read_itself(make_segment: MakeSegment, case: Case) -> None:
    """An agent with more rights than its caller does not lend them."""
    segment = make_segment(mode=case.mode)
    segment.uid = case.owner
    with Attachments(OTHER_UID, KeptSegments()) as attachments:
        if case.readable:
            assert bytes(attachments.view(segment.id, 0, 2)) == b"01"
        else:
            with pytest.raises(SharedMemoryForeign) as caught:
                attachments.view(segment.id, 0, 2)
            assert caught.value.facts["caller_uid"] == str(OTHER_UID)


def test_the_clients_segments_pass_the_agents_checks() -> None:
    """Several tensors in one segment, each at an aligned offset; used again, it holds the new ones."""
    pool = SegmentPool()
    for start in (0, 100):
        arrays = [np.arange(start, start + count, dtype=np.int64) for count in (3, 5)]
        segment = pool.take([array.nbytes for array in arrays])
        assert segment is not None
        offsets = [segment.write(array) for array in arrays]
        assert all(offset % 64 == 0 for offset in offsets)
        with Attachments(os.geteuid(), KeptSegments()) as attachments:
            for array, offset in zip(arrays, offsets, strict=True):
                view = attachments.view(segment.id, offset, array.nbytes)
                assert np.array_equal(np.frombuffer(view, np.int64), array)
        pool.put_back(segment)
    pool.close()


def test_the_pool_keeps_few_segments_and_the_system_none() -> None:
    """Idle segments are bounded, and every one is marked for removal from the beginning."""
    pool = SegmentPool()
    taken = [pool.take([1024]) for _ in range(IDLE_LIMIT + 3)]
    ids = [segment.id for segment in taken if segment]
    assert len(set(ids)) == IDLE_LIMIT + 3
    for segment in taken:
        assert segment is not None
        pool.put_back(segment)
    pool.close()
    for segment_id in ids:
        with pytest.raises((sysv_ipc.ExistentialError, ValueError)):
            sysv_ipc.attach(segment_id)
