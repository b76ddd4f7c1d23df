"""What lies at a path.

`Path.exists` and its like are not asked by the agent: since Python 3.14 they take every fault for absence, such as a
folder that the user may not look into or a disk that does not answer, and before that they raised them. Here a link is
what it leads to, and a fault is told.
"""

from __future__ import annotations

import stat
from pathlib import Path


def exists(path: Path) -> bool:
    """Tell whether something lies at a path. Raises `OSError` where the system cannot tell."""
    return _mode(path) is not None


def is_file(path: Path) -> bool:
    """Tell whether a plain file lies at a path. Raises `OSError` where the system cannot tell."""
    mode = _mode(path)
    return mode is not None and stat.S_ISREG(mode)


def is_folder(path: Path) -> bool:
    """Tell whether a folder lies at a path. Raises `OSError` where the system cannot tell."""
    mode = _mode(path)
    return mode is not None and stat.S_ISDIR(mode)


def nearest(path: Path) -> Path:
    """Return the absolute path, or the nearest above it that is there. Raises `OSError`."""
    absolute = path.absolute()
    return next(place for place in (absolute, *absolute.parents) if exists(place))


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
