"""The body of one upload request: a stretch of a file, or bytes, let through at the pace that is allowed.

It is read several times: to hash it, to sign it, to send it. Only what is read after `start_sending` counts.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from lightkeeper.capture.pace import Pace
from lightkeeper.errors import AgentError
from lightkeeper.providers.base import RewindableBody

Lost = Callable[[str], AgentError]
"""Makes the refusal for a source that cannot be read, of the cause."""


class PacedBody(RewindableBody):
    """A body; a context that holds its file open. `sent_bytes` is what went towards the network."""

    def __init__(self, source: Path | bytes, *, pace: Pace, lost: Lost, start: int = 0, size_bytes: int = -1) -> None:
        """Take a source, and of a file the stretch to send. Raises what `lost` makes."""
        self.size_bytes = len(source) if isinstance(source, bytes) else size_bytes
        self.sent_bytes = 0
        self._pace = pace
        self._lost = lost
        self._start = start
        self._sending = False
        try:
            self._file: BinaryIO = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
        except OSError as error:
            raise lost(str(error.strerror)) from error

    def __enter__(self) -> Self:
        """Ask for room in the day's budget. Raises `UploadBudgetSpent`."""
        try:
            self._pace.begin(self.size_bytes)
        except AgentError:
            self._file.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Enter what was sent, however it ended."""
        self._file.close()
        self._pace.end(self.sent_bytes)

    def start_sending(self) -> None:
        """Count and slow down what is read from now on."""
        self._sending = True

    def read(self, amount: int = -1, /) -> bytes:
        """Return further bytes, none at the end. Raises what `lost` makes, or `DeliveryInterrupted`."""
        left_bytes = self.size_bytes - self._place
        wanted = left_bytes if amount < 0 else min(amount, left_bytes)
        if self._sending:
            wanted = min(wanted, self._pace.piece_bytes)
            if wanted:
                self._pace.let_through(wanted)
        try:
            self._file.seek(self._start + self._place)
            chunk = self._file.read(wanted)
        except OSError as error:
            raise self._lost(str(error.strerror)) from error
        if len(chunk) < wanted:
            raise self._lost("it is shorter than it was")
        self._place += len(chunk)
        if self._sending:
            self.sent_bytes += len(chunk)
        return chunk


def sha256_of(path: Path, lost: Lost) -> str:
    """Return the SHA-256 of a file in hexadecimal. Raises what `lost` makes."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise lost(str(error.strerror)) from error
