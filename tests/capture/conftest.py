"""What the tests of capture share."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session")
def fault_effort() -> int:
    """How many times as much the fault tests do: LIGHTKEEPER_FAULT_EFFORT, which `make test-faults` raises."""
    return int(os.environ.get("LIGHTKEEPER_FAULT_EFFORT", "1"))
