"""Which package runs under which name, and which one did before: kept over restarts in one small file.

Invariants
1. The file is replaced as a whole (written aside, synced, renamed), so that a kill or a power cut leaves the old record
   or the new one. It changes when a model is loaded, unloaded or swapped, and around its restoration; never by Predict.
2. An entry names at most two versions: the current one and the one before it. `digests` names the packages of all.
3. A file that cannot be read or written never stops the agent: it starts with nothing, or goes on in memory, with a
   WARNING. A record of a later release is left as it is, and nothing is restored.
"""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightkeeper.metrics import Reading
from lightkeeper.model import PackageIdentity
from lightkeeper.models.report import Returned
from lightkeeper.state import replace_file

FORMAT_VERSION = 1

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a model: its package, and the url that the package came from."""

    package: PackageIdentity
    url: str


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a name."""

    name: str
    current: Version
    previous: Version | None = None
    asked: str = ""
    """The digest of the package that LoadModel loaded under this name, whatever has taken its place since."""
    on_trial: bool = False
    """Whether the current version is being watched since it took over."""
    crashes: int = 0
    """How often in a row the agent died while it restored the model, or watched it."""
    returned: Returned | None = None
    """The last version that was taken back by itself."""
    baseline: Reading | None = None
    """What the version before had done when the current one took over."""


class ModelRecord:
    """The entries by name, in the order of their first load. Any number of threads may use it."""

    def __init__(self, path: Path | None) -> None:
        """Read the record at a path, or keep one in memory alone where the path is None."""
        self._path = path
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}
        if path is not None:
            self._read(path)

    def all(self) -> list[Entry]:
        """Return every entry."""
        with self._lock:
            return [*self._entries.values()]

    def get(self, name: str) -> Entry | None:
        """Return what is known of a name, or None."""
        return self._entries.get(name)

    def put(self, entry: Entry) -> None:
        """Keep an entry in the place of the one that its name had."""
        with self._lock:
            if self._entries.get(entry.name) != entry:
                self._entries[entry.name] = entry
                self._write()

    def drop(self, name: str) -> None:
        """Forget a name."""
        with self._lock:
            if self._entries.pop(name, None) is not None:
                self._write()

    def digests(self) -> frozenset[str]:
        """Return the digests of all packages that an entry names."""
        with self._lock:
            versions = [version for entry in self._entries.values() for version in (entry.current, entry.previous)]
            return frozenset(version.package.digest for version in versions if version is not None)

    def _read(self, path: Path) -> None:
        try:
            document = json.loads(path.read_bytes())
            if document["format_version"] != FORMAT_VERSION:
                raise ValueError(f"format version {document['format_version']}")  # noqa: TRY301  # one place to say it
            self._entries = {item["name"]: _entry(item) for item in document["models"]}
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("model_record_unreadable", extra={"file": str(path), "error": str(error)})
            self._set_aside(path)

    def _set_aside(self, path: Path) -> None:
        try:
            path.replace(path.with_suffix(".unreadable"))
        except OSError:
            self._path = None  # it cannot be kept for a later look, so it is not written over

    def _write(self) -> None:
        if self._path is None:
            return
        document = {
            "format_version": FORMAT_VERSION,
            "models": [asdict(entry) for entry in self._entries.values()],
        }
        try:
            replace_file(self._path, json.dumps(document, indent=1).encode())
        except OSError as error:
            log.warning("model_record_unwritable", extra={"file": str(self._path), "error": str(error)})


def _entry(item: dict[str, Any]) -> Entry:
    returned = item["returned"]
    return Entry(
        name=item["name"],
        current=_version(item["current"]),
        previous=None if item["previous"] is None else _version(item["previous"]),
        asked=item["asked"],
        on_trial=bool(item["on_trial"]),
        crashes=int(item["crashes"]),
        baseline=None if item.get("baseline") is None else Reading(**item["baseline"]),
        returned=None if returned is None else Returned(**returned),
    )


def _version(item: dict[str, Any]) -> Version:
    return Version(PackageIdentity(**item["package"]), item["url"])
