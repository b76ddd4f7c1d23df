"""The files of large payloads: one each, whole and synced before a row names it, removed after none does."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lightkeeper.capture.files import SHARED_FILE, Files, translated
from lightkeeper.capture.record import Stored
from lightkeeper.errors import AgentError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PayloadFile:
    """A payload that has been written: where it stands in its capture, its file's name and size."""

    position: int
    name: str
    size_bytes: int


class Payloads:
    """The folder of payload files."""

    def __init__(self, folder: Path, files: Files) -> None:
        self._folder = folder
        self._files = files

    def write(self, stored: Stored) -> list[PayloadFile]:
        """Write a capture's large payloads, durably, or none of them. Raises `SpoolDiskFull` or `SpoolBroken`."""
        if not stored.large:
            return []
        token = secrets.token_hex(8)
        written: list[PayloadFile] = []
        try:
            with translated(self._folder):
                for position, data in stored.large:
                    written.append(PayloadFile(position, f"{token}-{position}", len(data)))
                    path = self._folder / written[-1].name
                    self._files.write(path, [data], mode=SHARED_FILE)  # the disk sink links it; the folder is private
                self._files.sync_folder(self._folder)
        except AgentError:
            self.remove(file.name for file in written)
            raise
        return written

    def remove(self, names: Iterable[str]) -> None:
        """Remove files that no row names; one that cannot be removed is found again at the next start."""
        for name in names:
            try:
                self._files.remove(self._folder / name)
            except OSError as error:
                log.warning("payload_not_removed", extra={"file": name, "cause": error.strerror})
