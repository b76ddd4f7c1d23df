"""Small facts that the delivery remembers over a restart, each a text under a name, in the spool's database."""

from __future__ import annotations

from lightkeeper.capture.journal import Journal

_PREFIX = "note:"
"""Sets the delivery's names apart from the spool's own in the same table."""


class Notes:
    """The notes of one spool. Any number of threads may use them."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def get(self, name: str) -> str | None:
        """Return what was noted under a name, or None. Raises `SpoolBroken`."""
        rows = self._journal.read("SELECT value FROM meta WHERE name = ?", _PREFIX + name)
        return str(rows[0][0]) if rows else None

    def put(self, name: str, text: str) -> None:
        """Note a text, in place of what the name had. Raises `SpoolBroken` or `SpoolDiskFull`."""
        self._journal.write(
            lambda database: database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_PREFIX + name, text))
        )
