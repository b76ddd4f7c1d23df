"""What this device has learnt about time and packages, kept over restarts in one small file.

Invariants
1. `floor` is a time that has passed: the latest of the agent's release and of the begins of all certificates of
   packages accepted here. It never falls, and is never raised from the system clock, so a wrong clock cannot poison it.
2. A digest is in `accepted` if and only if this device verified that package in full at a time it believed.
3. The file is replaced as a whole (written aside, synced, renamed) and only when something changed: flash is spared.
4. A file that cannot be read or written never stops the agent: it starts fresh, or goes on in memory, with a WARNING.
"""

from __future__ import annotations

import json
import logging
import threading
from datetime import datetime
from pathlib import Path

from lightkeeper import RELEASED
from lightkeeper.modelpackage.document import DocumentInvalid, Node
from lightkeeper.state import replace_file

ACCEPTED_MAXIMUM = 4096
"""The most packages that are remembered; then the one accepted first is forgotten, with a WARNING."""

_FORMAT_VERSION = 1

logger = logging.getLogger(__name__)


class TrustRecord:
    """The floor and the digests of accepted packages. Any number of threads may use it."""

    def __init__(self, path: Path | None, released: datetime = RELEASED) -> None:
        """Read the record at a path, or keep it in memory alone where the path is None."""
        self._path = path
        self._lock = threading.Lock()
        self._floor = released
        self._accepted: dict[str, None] = {}  # a set that keeps the order
        if path is not None:
            self._read(path)

    @property
    def floor(self) -> datetime:
        """A time that the true time cannot be before."""
        return self._floor

    @property
    def accepted(self) -> frozenset[str]:
        """The digests of the packages that this device has accepted."""
        with self._lock:
            return frozenset(self._accepted)

    def accept(self, digest: str, begins: datetime) -> None:
        """Remember a package that was verified in full, and that its certificates' begin has passed."""
        with self._lock:
            if digest in self._accepted and begins <= self._floor:
                return
            self._floor = max(self._floor, begins)
            self._accepted.setdefault(digest)
            while len(self._accepted) > ACCEPTED_MAXIMUM:
                forgotten = next(iter(self._accepted))
                del self._accepted[forgotten]
                logger.warning("accepted_package_forgotten", extra={"digest": forgotten, "kept": ACCEPTED_MAXIMUM})
            if self._path is not None:
                self._write(self._path)

    def _read(self, path: Path) -> None:
        try:
            document = Node.parse(path.read_bytes())
            document["format_version"].integer(least=_FORMAT_VERSION, most=_FORMAT_VERSION)
            floor = datetime.fromisoformat(document["floor"].text())
            accepted = dict.fromkeys(item.text() for item in document["accepted"].items())
            self._floor = max(self._floor, floor)
            self._accepted = accepted
        except FileNotFoundError:
            return
        except (OSError, DocumentInvalid, ValueError, TypeError) as error:  # TypeError: a time without a zone
            logger.warning("trust_record_unreadable", extra={"file": str(path), "error": str(error)})

    def _write(self, path: Path) -> None:
        document = {
            "format_version": _FORMAT_VERSION,
            "floor": self._floor.isoformat(),
            "accepted": list(self._accepted),
        }
        try:
            replace_file(path, json.dumps(document, indent=1).encode())
        except OSError as error:
            logger.warning("trust_record_unwritable", extra={"file": str(path), "error": str(error)})
