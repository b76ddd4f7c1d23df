"""What the tests of capture share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support.spools import let_go


@pytest.fixture(scope="session")
def fault_effort() -> int:
    """How many times as much the fault tests do: LIGHTKEEPER_FAULT_EFFORT, which `make test-faults` raises."""
    return int(os.environ.get("LIGHTKEEPER_FAULT_EFFORT", "1"))


@pytest.fixture(autouse=True)
def _spools_are_let_go() -> Iterator[None]:
    """A test that ends a spool as a kill does leaves its database open."""
    yield
    let_go()
