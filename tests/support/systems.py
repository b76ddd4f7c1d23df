"""Tests that are made of what one kind of system has; `docs/windows.md` tells what Windows has in its place."""

from __future__ import annotations

import pytest

from lightkeeper.system import HAS_MODES

posix_only = pytest.mark.skipif(
    not HAS_MODES, reason="made of what POSIX has: its paths, modes, groups, limits, links, pipes, /proc"
)
windows_only = pytest.mark.skipif(HAS_MODES, reason="made of what Windows lacks")
