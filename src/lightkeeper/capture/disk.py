"""The destination `Disk`: batches appear whole under a folder, and stay there for whoever reads them.

A large payload gets its name by a hard link to the spool's file, which costs no write, or where that cannot be (another
file system, one without links) by a copy that is renamed when it is complete. The lines come last, by rename. What is
not complete yet lies in `.lightkeeper/` at the top of the folder, on the same file system.

Invariants: no name outside `.lightkeeper/` ever stands for an incomplete file; a line's payloads are durable before the
line can be seen; delivering a batch again, after a crash at any step, gives the same files once.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lightkeeper.capture.files import SHARED_FILE, SHARED_FOLDER, Files
from lightkeeper.capture.ledger import Batch, Receipt, State, Waiting
from lightkeeper.capture.notes import Notes
from lightkeeper.capture.sink import Layout, Placed
from lightkeeper.errors import DestinationFaulty, DestinationFull, DestinationMissing, PayloadLost

UNFINISHED = ".lightkeeper"
"""The folder for files that are being written."""

UNFINISHED_SUFFIX = ".part"
"""What their names end in, so that no reader takes one for a batch."""

COPY_CHUNK_BYTES = 1024 * 1024

_NO_LINK = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EEXIST}
"""Why a second name cannot be given where a copy still can be made."""


class DiskSink:
    """A folder that batches are put into. `mode` is for its files, `folder_mode` for folders, both before the umask."""

    def __init__(  # noqa: PLR0913  # collaborators and modes, each with its own meaning
        self,
        folder: Path,
        *,
        layout: Layout,
        files: Files,
        notes: Notes | None = None,
        mode: int = SHARED_FILE,
        folder_mode: int = SHARED_FOLDER,
    ) -> None:
        """Take the folder. With `notes`, a mount that the folder lay under once must be there for it to be used."""
        self.folder = folder
        self._layout = layout
        self._files = files
        self._notes = notes
        self._mode = mode
        self._folder_mode = folder_mode
        self._unfinished = folder / UNFINISHED

    def clean(self, spool_id: str) -> list[str]:
        """Remove what a dead agent on the same spool left unfinished, and return its names."""
        try:
            left = [path for path in self._unfinished.iterdir() if path.name.startswith(spool_id)]
        except OSError:  # no log: a folder that cannot be read is `deliver`'s to tell
            return []
        with self.translated():
            for path in left:
                self._files.remove(path)
        return [path.name for path in left]

    def deliver(self, batch: Batch, captures: Sequence[Waiting]) -> Receipt:
        """Put a batch's files under the folder.

        Raises `DestinationMissing`, `DestinationFull`, `DestinationFaulty`, `PayloadLost` or `RecordDamaged`.
        """
        placed = self._layout.payloads(batch, captures)
        lines = self._layout.lines(batch, captures)
        key = self._layout.batch_key(batch)
        self._require_mount()
        with self.translated():
            self._files.make_folder(self._unfinished, mode=self._folder_mode)
            for item in placed:
                self._place(batch, item)
            for folder in {(self.folder / item.key).parent for item in placed}:
                self._files.sync_folder(folder)
            target = self.folder / key
            self._files.make_folder(target.parent, mode=self._folder_mode)
            unfinished = self._unfinished / f"{target.name}{UNFINISHED_SUFFIX}"
            self._files.write(unfinished, [lines], mode=self._mode)
            self._files.rename(unfinished, target)
            self._files.sync_folder(target.parent)
        return Receipt(State.WRITTEN, key, len(lines), hashlib.sha256(lines).hexdigest())

    def _place(self, batch: Batch, item: Placed) -> None:
        """Give a payload its name; it may have it from an earlier try."""
        source, target = item.payload.path, self.folder / item.key
        require_whole(item)
        self._files.make_folder(target.parent, mode=self._folder_mode)
        try:
            self._files.link(source, target)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            if error.errno == errno.EEXIST and _same_file(source, target):
                return
            self._copy(item, self._unfinished / f"{batch.name}-{target.name}{UNFINISHED_SUFFIX}", target)

    def _copy(self, item: Placed, unfinished: Path, target: Path) -> None:
        self._files.write(unfinished, _chunks(item), mode=self._mode)
        self._files.rename(unfinished, target)

    def _require_mount(self) -> None:
        """Refuse the bare folder under a mount that is gone: it is another disk, and perhaps the system's."""
        if self._notes is None:
            return
        name = f"mount:{self.folder}"
        mount = mount_point(self.folder)
        known = self._notes.get(name)
        if known is not None and Path(known) != mount and Path(known).is_relative_to(mount):
            raise DestinationMissing(
                f"nothing is mounted at {known}, where {self.folder} lies", folder=self.folder, mount=known
            )
        if known != str(mount):
            self._notes.put(name, str(mount))

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn the system's refusals into the delivery's."""
        try:
            yield
        except OSError as error:
            cause = errno.errorcode.get(error.errno or 0, type(error).__name__)
            message = f"{self.folder} cannot be written: {error.strerror or error}"
            kinds = {errno.ENOSPC: DestinationFull, errno.EDQUOT: DestinationFull, errno.ENOENT: DestinationMissing}
            kind = kinds.get(error.errno or 0, DestinationFaulty)
            raise kind(message, folder=self.folder, cause=cause) from error


def mount_point(path: Path) -> Path:
    """Return where the file system that a path is on, or would be on, is mounted."""
    for folder in [path, *path.parents]:
        if os.path.ismount(folder):
            return folder
    return Path(path.anchor)


def _same_file(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def require_whole(item: Placed) -> None:
    """Raise `PayloadLost` unless the spool's file of a payload is there with its size."""
    try:
        size_bytes = item.payload.path.stat().st_size
    except OSError as error:
        raise lost(item, str(error.strerror)) from error
    if size_bytes != item.payload.size_bytes:
        raise lost(item, f"it has {size_bytes} bytes in place of {item.payload.size_bytes}")


def lost(item: Placed, cause: str) -> PayloadLost:
    """Return the refusal that says which payload of the spool cannot be read, and why."""
    return PayloadLost(
        f"payload {item.payload.position} of capture {item.capture.id} cannot be read: {cause}",
        capture=item.capture.id,
        position=item.payload.position,
        file=item.payload.path.name,
    )


def _chunks(item: Placed) -> Iterator[bytes]:
    try:
        with item.payload.path.open("rb") as file:
            while chunk := file.read(COPY_CHUNK_BYTES):
                yield chunk
    except OSError as error:
        raise lost(item, str(error.strerror)) from error
