"""What the periodic upload has sent of the files under the disk path: a table in the spool's database.

A file is known by its path below that folder, its size and its time of change; one that has changed counts as new.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection

from lightkeeper import paths
from lightkeeper.capture.journal import Journal

PRUNE_ROWS = 256
"""How many rows one `prune` looks at."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS sent (
    path TEXT PRIMARY KEY,
    size_bytes INTEGER NOT NULL,
    changed_ns INTEGER NOT NULL,
    progress TEXT,
    sha256 TEXT,
    etag TEXT
) WITHOUT ROWID
"""


@dataclass(frozen=True, slots=True)
class Version:
    """A file as it is now: its path below the folder, with slashes, and what tells whether it has changed."""

    path: str
    size_bytes: int
    changed_ns: int

    @classmethod
    def of(cls, folder: Path, path: Path) -> Version:
        """Look at a file. Raises `OSError`."""
        status = path.stat()
        return cls(path.relative_to(folder).as_posix(), status.st_size, status.st_mtime_ns)


class SentFiles:
    """The table. Every method raises `SpoolBroken` or `SpoolDiskFull`."""

    def __init__(self, journal: Journal) -> None:
        """Make the table where it is missing."""
        self._journal = journal
        self._cursor = ""
        journal.write(lambda database: database.execute(_SCHEMA))

    def has(self, version: Version) -> bool:
        """Whether this version of a file has been sent."""
        rows = self._journal.read(
            "SELECT 1 FROM sent WHERE path = ? AND size_bytes = ? AND changed_ns = ? AND sha256 IS NOT NULL",
            version.path,
            version.size_bytes,
            version.changed_ns,
        )
        return bool(rows)

    def add(self, version: Version, *, sha256: str, etag: str) -> None:
        """Note that a version was sent, and forget the progress of what lies in the folder of its name."""
        payloads = f"{version.path.rpartition('.')[0]}/"
        row = (version.path, version.size_bytes, version.changed_ns, sha256, etag)

        def write(database: Connection) -> None:
            database.execute("DELETE FROM sent WHERE path >= ? AND path < ?", (payloads, payloads[:-1] + "0"))
            database.execute("REPLACE INTO sent VALUES (?, ?, ?, NULL, ?, ?)", row)

        self._journal.write(write)

    def progress(self, version: Version) -> FileProgress:
        """Return where the progress of a file's upload is kept."""
        return FileProgress(self._journal, version)

    def prune(self, folder: Path) -> None:
        """Forget some of the files that are no longer there; called again and again, all of them."""
        rows = self._journal.read(
            "SELECT path FROM sent WHERE path > ? ORDER BY path LIMIT ?", self._cursor, PRUNE_ROWS
        )
        known = [str(path) for (path,) in rows]
        self._cursor = known[-1] if len(known) == PRUNE_ROWS else ""
        gone = [(path,) for path in known if not paths.exists(folder / path)]
        if gone:
            self._journal.write(lambda database: database.executemany("DELETE FROM sent WHERE path = ?", gone))


class FileProgress:
    """How far the upload of one version of a file is (see `uploader.Progress`)."""

    def __init__(self, journal: Journal, version: Version) -> None:
        self._journal = journal
        self._version = version

    def load(self) -> str | None:
        """See `Progress.load`."""
        version = self._version
        rows = self._journal.read(
            "SELECT progress FROM sent WHERE path = ? AND size_bytes = ? AND changed_ns = ?",
            version.path,
            version.size_bytes,
            version.changed_ns,
        )
        return rows[0][0] if rows else None

    def save(self, text: str | None) -> None:
        """See `Progress.save`."""
        row = (self._version.path, self._version.size_bytes, self._version.changed_ns, text)
        self._journal.write(lambda database: database.execute("REPLACE INTO sent VALUES (?, ?, ?, ?, NULL, NULL)", row))
