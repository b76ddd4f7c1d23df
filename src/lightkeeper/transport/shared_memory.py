"""System V shared memory, as callers hand it in: attached read-only, checked, and read in place.

The checks of one handle, in order:

1. The platform has System V shared memory.
2. The id names a segment that the agent's user may read: it is attached, read-only, or still is from a call before.
   From here on the kernel keeps this very segment, so what is checked next is what will be read; nobody can put
   another one behind the id.
3. Nobody may write or execute it: no such bit in its mode, the owner's included. Its content then stays as it is
   while the model reads it. (A caller fills the segment first and sets its mode to 0400 before the call.)
4. Where the transport knows who calls: that user could read the segment itself. Otherwise any client could make the
   agent, which may have more rights, read segments for it.
5. Offset and size lie inside it.
"""

from __future__ import annotations

import stat
from types import TracebackType
from typing import TYPE_CHECKING, Self

from lightkeeper.errors import (
    SharedMemoryForeign,
    SharedMemoryOutOfBounds,
    SharedMemoryRefused,
    SharedMemoryWritable,
)
from lightkeeper.system import groups_of
from lightkeeper.transport.kept_segments import KeptSegments, not_found

if TYPE_CHECKING:
    import sysv_ipc

_ANY_WRITE_OR_EXECUTE = 0o333
_PERMISSIONS = 0o777  # the mode also holds kernel flags, such as "to be destroyed"


class Attachments:
    """The segments of one call, given back when the call is over.

    Invariant: a segment is attached and checked once a call, however many tensors lie in it, and every view of it is
    dead after `give_back` (reading one then may be a fault of memory; nothing keeps a view beyond the call).
    """

    __slots__ = ("_caller_uid", "_kept", "_segments")

    def __init__(self, caller_uid: int | None, kept: KeptSegments) -> None:
        """Take who calls (a user id, or None where the transport cannot tell) and where segments come from."""
        self._caller_uid = caller_uid
        self._kept = kept
        self._segments: dict[int, sysv_ipc.SharedMemory] = {}

    def view(self, segment_id: int, offset_bytes: int, size_bytes: int) -> memoryview:
        """Return the bytes of a handle in place; a size of 0 stands for all from the offset on.

        Raises `SharedMemoryRefused` in one of its concrete forms.
        """
        segment = self._segments.get(segment_id)
        if segment is None:
            segment = self._checked(segment_id)
        end = offset_bytes + size_bytes
        if offset_bytes > segment.size or end > segment.size:
            raise SharedMemoryOutOfBounds(
                f"offset {offset_bytes}, size {size_bytes} falls outside segment {segment_id} of {segment.size} bytes",
                segment_id=segment_id,
                offset_bytes=offset_bytes,
                size_bytes=size_bytes,
                segment_bytes=segment.size,
            )
        view = memoryview(segment).toreadonly()
        return view[offset_bytes : end if size_bytes else segment.size]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give_back()

    def give_back(self) -> None:
        """End the use of every segment."""
        for segment_id in self._segments:
            self._kept.give_back(segment_id, keep=True)
        self._segments.clear()

    def _checked(self, segment_id: int) -> sysv_ipc.SharedMemory:
        import sysv_ipc

        segment = self._kept.take(segment_id)
        try:
            _check(segment_id, segment, self._caller_uid)
        except sysv_ipc.Error as error:  # its rights were taken from the agent since it was attached
            self._kept.give_back(segment_id, keep=False)
            raise not_found(segment_id) from error
        except SharedMemoryRefused:
            self._kept.give_back(segment_id, keep=False)
            raise
        self._segments[segment_id] = segment
        return segment


def _check(segment_id: int, segment: sysv_ipc.SharedMemory, caller_uid: int | None) -> None:
    mode = segment.mode & _PERMISSIONS
    if mode & _ANY_WRITE_OR_EXECUTE:
        raise SharedMemoryWritable(
            f"segment {segment_id} has the mode {mode:04o}: somebody may still write or execute it",
            segment_id=segment_id,
            mode=f"{mode:04o}",
        )
    if caller_uid and not _user_may_read(segment, caller_uid):  # root (0) may read any segment
        raise SharedMemoryForeign(
            f"segment {segment_id} belongs to user {segment.uid}, and user {caller_uid} may not read it",
            segment_id=segment_id,
            mode=f"{mode:04o}",
            owner_uid=segment.uid,
            caller_uid=caller_uid,
        )


def _user_may_read(segment: sysv_ipc.SharedMemory, uid: int) -> bool:
    """Tell whether the kernel would let a user read a segment: owner and creator, their groups, then everyone."""
    if uid in {segment.uid, segment.cuid}:
        return bool(segment.mode & stat.S_IRUSR)
    if {segment.gid, segment.cgid} & groups_of(uid):
        return bool(segment.mode & stat.S_IRGRP)
    return bool(segment.mode & stat.S_IROTH)
