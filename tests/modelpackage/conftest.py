"""What the tests of packages share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.packages import Workshop


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """A place with an authority, where packages are made and opened."""
    return Workshop(tmp_path)
