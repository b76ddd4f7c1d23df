"""A device whose clock is wrong: libfaketime in the agent's process, where the monotonic clock stays as it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

RIGHT = "+0"


class Clock:
    """The clock of one process, which `set` changes while it runs."""

    def __init__(self, file: Path) -> None:
        """Take a file to keep what the clock is off by; skip the test without libfaketime, which CI must have."""
        found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
        if not found and "CI" not in os.environ:
            pytest.skip("no libfaketime here: apt-get install faketime")
        self._file = file
        self.set(RIGHT)
        self.environment = {
            "LD_PRELOAD": str(found[0]),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
        """What the process must have in its environment."""

    def set(self, offset: str) -> None:
        """Put the clock off by so much, such as `+1d` or `-10y`."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{offset}\n")
        fresh.replace(self._file)
