"""Quarantine: what belongs to nothing or could not be delivered, kept with its cause beside it, and bounded.

Beside each thing lies `<name>.cause.json`: what it was, why it is here, and when it came.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

from lightkeeper.capture.files import Files

QUARANTINE_LIMIT_BYTES = 256 * 1024 * 1024
"""What quarantine holds at most; the oldest goes first, but the newest thing always stays."""

CAUSE = ".cause.json"

log = logging.getLogger(__name__)


class Quarantine:
    """The quarantine folder."""

    def __init__(
        self,
        folder: Path,
        *,
        files: Files,
        now_ms: Callable[[], int],
        limit_bytes: int = QUARANTINE_LIMIT_BYTES,
    ) -> None:
        self.folder = folder
        self._files = files
        self._now_ms = now_ms
        self._limit_bytes = limit_bytes
        self._placed = 0

    def take(self, path: Path, *, why: str) -> Path:
        """Move a file or folder here and return where it lies now. Raises `OSError`."""
        kept = self._place(path.name)
        self._write_cause(kept, path.name, why)
        self._files.rename(path, kept)
        self._files.sync_folder(self.folder)
        self._report(kept, why)
        return kept

    def keep(self, name: str, data: Iterable[bytes], *, why: str) -> Path:
        """Write a file here and return where it lies. Raises `OSError`."""
        kept = self._place(name)
        self._write_cause(kept, name, why)
        self._files.write(kept, data)
        self._files.sync_folder(self.folder)
        self._report(kept, why)
        return kept

    def trim(self) -> None:
        """Remove the oldest things while there is more than may be. Raises `OSError`."""
        things = sorted(path for path in self.folder.iterdir() if not path.name.endswith(CAUSE))
        sizes_bytes = {path: _size_bytes(path) for path in things}
        held_bytes = sum(sizes_bytes.values())
        for path in things[:-1]:
            if held_bytes <= self._limit_bytes:
                return
            held_bytes -= sizes_bytes[path]
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                self._files.remove(path)
            self._files.remove(_cause_of(path))
            log.warning(
                "quarantine_trimmed",
                extra={"file": path.name, "bytes": sizes_bytes[path], "limit_bytes": self._limit_bytes},
            )

    def _place(self, name: str) -> Path:
        """Return a free path whose name sorts by age."""
        now_ms = self._now_ms()
        while True:
            self._placed += 1
            path = self.folder / f"{now_ms:015d}-{self._placed:06d}-{name}"[:200]
            if not os.path.lexists(path) and not os.path.lexists(_cause_of(path)):
                return path

    def _write_cause(self, kept: Path, what: str, why: str) -> None:
        when = datetime.fromtimestamp(self._now_ms() / 1000, UTC).isoformat(timespec="milliseconds")
        text = json.dumps({"what": what, "why": why, "when": when}, indent=2)
        self._files.write(_cause_of(kept), [text.encode("utf-8", "backslashreplace")])

    def _report(self, kept: Path, why: str) -> None:
        log.error("quarantined", extra={"file": kept.name, "cause": why})
        self.trim()


def _cause_of(kept: Path) -> Path:
    return kept.with_name(kept.name + CAUSE)


def _size_bytes(path: Path) -> int:
    if path.is_dir() and not path.is_symlink():
        return sum(_size_bytes(child) for child in path.iterdir())
    return path.lstat().st_size
