"""Fetching a package: resumed after a cut or a kill, checked at its end, and never more than fits.

One archive at a time lies in the folder, as `<what it is>.part`; another package's is removed when the next fetch
begins. A cut is waited for and tried again from where it was, with growing pauses, for at most
`GIVE_UP_SECONDS` without a single further byte.

Steps: 1. size and free space are checked first; 2. what is not there yet is fetched; 3. all of it is hashed; 4. the
SHA-1 must be the deployment's. A resumed archive that fails step 4 is fetched again as a whole, once: a power cut may
leave bytes in a file that nobody wrote. The signature is verified afterwards, as for any package (`loader.py`).
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import random
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from lightkeeper.backoff import Backoff
from lightkeeper.errors import (
    ArchiveTooLarge,
    ChecksumMismatch,
    DeliveryFailed,
    DeliveryInterrupted,
    DestinationUnreachable,
    DiskShort,
    FetchGivenUp,
)
from lightkeeper.providers.fleet import Definition, Fleet
from lightkeeper.state import PRIVATE

GIVE_UP_SECONDS = 24 * 3600.0
FREE_KEPT_BYTES = 32 * 1024 * 1024
CHUNK_BYTES = 1024 * 1024
PAUSES = Backoff(first_seconds=2.0, most_seconds=300.0)

_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

log = logging.getLogger(__name__)


class Fetching:
    """Fetches packages into a folder of its own. One thread uses it."""

    def __init__(  # noqa: PLR0913  # what it works with, and its clock
        self,
        fleet: Fleet,
        folder: Path,
        *,
        most_bytes: int,
        stopping: threading.Event,
        free_kept_bytes: int = FREE_KEPT_BYTES,
        pauses: Backoff = PAUSES,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`stopping` ends a fetch with `DeliveryInterrupted`; what was fetched stays for the next start."""
        self._fleet = fleet
        self._folder = folder
        self._most_bytes = most_bytes
        self._stopping = stopping
        self._free_kept_bytes = free_kept_bytes
        self._pauses = pauses
        self._monotonic = monotonic

    def fetch(self, definition: Definition) -> Path:
        """Return the archive of a definition.

        Raises `ChecksumMismatch`, `FetchGivenUp`, `PackageNotFound`, `ArchiveTooLarge`, `DiskShort`, or
        `DeliveryInterrupted` where the agent stops.
        """
        self._folder.mkdir(PRIVATE, parents=True, exist_ok=True)
        path = self._folder / f"{_name(definition)}.part"
        self._remove_others(path)
        resumed = path.exists()
        try:
            found = self._whole(definition.url, path)
            if resumed and not _is(found, definition.sha1):
                path.unlink()
                found = self._whole(definition.url, path)
        except OSError as error:
            if error.errno in _DISK_FULL:
                raise DiskShort(f"the disk is full: {error.strerror}", folder=self._folder) from error
            raise DiskShort(f"{self._folder} cannot be written: {error.strerror}", folder=self._folder) from error
        if not _is(found, definition.sha1):
            path.unlink(missing_ok=True)
            raise ChecksumMismatch(
                f"what lies at {definition.url} is not what the deployment names",
                url=definition.url,
                expected=definition.sha1,
                given=found,
            )
        return path

    def clear(self) -> None:
        """Remove what lies in the folder."""
        self._remove_others(None)

    def _whole(self, url: str, path: Path) -> str:
        """Fetch what is missing of an archive, and return the SHA-1 of all of it."""
        attempts, tried = 0, self._monotonic()
        size_bytes: int | None = None
        before = 0
        while True:
            try:
                if size_bytes is None:
                    size_bytes = self._checked_size(url, path)
                with path.open("ab", buffering=0) as file:
                    before = os.fstat(file.fileno()).st_size
                    if before > size_bytes:
                        before = file.truncate(0)
                    if before < size_bytes:
                        self._rest(url, file.fileno(), before, size_bytes)
                    os.fsync(file.fileno())
                return _sha1(path)
            except DeliveryInterrupted:
                raise
            except DeliveryFailed as fault:
                held = path.stat().st_size if path.exists() else 0
                if size_bytes is not None and held > before:
                    attempts, tried = 0, self._monotonic()
                attempts += 1
                if attempts == 1:
                    about = {"url": url, "held_bytes": held, "reason": fault.reason, "detail": fault.message}
                    log.warning("fetch_cut_off", extra=about)
                self._pause(url, fault, attempts, tried)

    def _checked_size(self, url: str, path: Path) -> int:
        size_bytes = self._fleet.size_bytes(url)
        if size_bytes > self._most_bytes:
            raise ArchiveTooLarge(
                f"the package has {size_bytes} bytes, at most {self._most_bytes} are taken",
                limit="lightkeeper_max_package_bytes",
                expected=self._most_bytes,
                given=size_bytes,
            )
        held = path.stat().st_size if path.exists() else 0
        free = shutil.disk_usage(self._folder).free - self._free_kept_bytes
        if size_bytes - held > free:
            raise DiskShort(
                f"the package needs {size_bytes - held} more bytes, {max(free, 0)} are free beside the reserve",
                needed_bytes=size_bytes - held,
                free_bytes=max(free, 0),
            )
        return size_bytes

    def _rest(self, url: str, descriptor: int, offset: int, size_bytes: int) -> None:
        for chunk in self._fleet.fetch(url, offset):
            if self._stopping.is_set():
                raise DeliveryInterrupted("the agent stops; the fetch goes on at the next start")
            view = memoryview(chunk)
            offset += len(view)
            if offset > size_bytes:
                raise ChecksumMismatch(f"what lies at {url} is longer than it was", url=url)
            while view:
                view = view[os.write(descriptor, view) :]
        if offset < size_bytes:
            raise DestinationUnreachable(f"{url} was cut off after {offset} of {size_bytes} bytes")

    def _pause(self, url: str, fault: DeliveryFailed, attempts: int, tried: float) -> None:
        """Wait before the next try. Raises `FetchGivenUp`, `DeliveryInterrupted`."""
        lost_seconds = self._monotonic() - tried
        if lost_seconds > GIVE_UP_SECONDS:
            raise FetchGivenUp(
                f"{url} could not be fetched for {lost_seconds / 3600:.0f} hours: {fault.message}", cause=fault.reason
            ) from fault
        if self._stopping.wait(self._pauses.wait_seconds(attempts, random.random())):  # noqa: S311  # a pause, no secret
            raise DeliveryInterrupted("the agent stops; the fetch goes on at the next start") from fault

    def _remove_others(self, path: Path | None) -> None:
        try:
            for other in self._folder.iterdir():
                if other != path:
                    other.unlink()
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                log.warning("fetched_package_stays", extra={"folder": str(self._folder), "error": str(error)})


def _is(found: str, expected: str) -> bool:
    """Whether an archive is the expected one; without a checksum its signature alone tells."""
    return expected.lower() in {found, ""}


def _name(definition: Definition) -> str:
    return hashlib.sha256(f"{definition.sha1} {definition.url}".encode()).hexdigest()[:32]


def _sha1(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.sha1(usedforsecurity=False)).hexdigest()
