"""Say which glibc the wire's wheels need at least, and fail where that is newer than their names promise."""

from __future__ import annotations

import re
import sys
import tempfile
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from release import symbols  # a script beside the package it needs

_PROMISE = re.compile(r"manylinux_(\d+)_(\d+)_")


def main() -> None:
    """Look at the wheels named on the command line."""
    for wheel in map(Path, sys.argv[1:]):
        promise = _PROMISE.search(wheel.name)
        if promise is None:
            sys.exit(f"{wheel.name} is for this machine alone")
        promised = tuple(map(int, promise.groups()))
        with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
            needed = symbols.of(Path(folder)).glibc
        print(f"{wheel.name}: glibc {'.'.join(map(str, needed))}")
        if needed > promised:
            sys.exit(f"{wheel.name} needs a newer glibc than its name says")


if __name__ == "__main__":
    main()
