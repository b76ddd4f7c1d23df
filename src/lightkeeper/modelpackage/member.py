"""The names of the files in a package: which are safe and mean the same everywhere, and that no two are alike.

A name is relative to the package's folder, with `/` between its parts. A package travels between file systems, so a
name must be one that each of them keeps as it is: valid UTF-8 in Unicode's composed form (NFC), no control
characters, no backslash, and no other name that differs from it in upper and lower case alone.
"""

from __future__ import annotations

import unicodedata

COMPONENT_MAXIMUM_BYTES = 255
"""What the file systems in use allow for one part of a path."""


def fault(name: str) -> str | None:
    """Return what is wrong with a file's name, or None. The text goes on from the name: `"x" has …`."""
    try:
        encoded = name.encode("utf-8")
    except UnicodeEncodeError:
        return "is not valid UTF-8"
    parts = encoded.split(b"/")
    faults = {
        ESCAPES: name.startswith("/") or b".." in parts,
        "is not a plain relative path": not {b"", b"."}.isdisjoint(parts),
        "has a backslash or a character that cannot be printed": "\\" in name or not name.isprintable(),
        "is not in Unicode's composed form (NFC)": not unicodedata.is_normalized("NFC", name),
        f"has a part of more than {COMPONENT_MAXIMUM_BYTES} bytes": max(map(len, parts)) > COMPONENT_MAXIMUM_BYTES,
    }
    return next((fault for fault, found in faults.items() if found), None)


def shown(name: str) -> str:
    """Return a name that may be hostile in a form that is safe to print and to log."""
    return name if name.isprintable() else repr(name)[1:-1]


ESCAPES = "leads out of the package's folder"
"""The fault of an absolute path and of one with `..`."""


class Names:
    """The names taken so far. Invariant: no two of them could be the same file on any file system."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._folders: dict[str, str] = {}

    def claim(self, name: str) -> str | None:
        """Take a file's name (without fault), and those of its folders. Return what it clashes with, or None."""
        key = name.casefold()
        if key in self._files or key in self._folders:
            return "is there twice, or differs from another name in upper and lower case alone"
        parts = name.split("/")
        for depth in range(1, len(parts)):
            folder = "/".join(parts[:depth])
            if folder.casefold() in self._files:
                return "lies in a folder that is a file too"
            if self._folders.setdefault(folder.casefold(), folder) != folder:
                return "lies in a folder whose name differs from another's in upper and lower case alone"
        self._files.add(key)
        return None
