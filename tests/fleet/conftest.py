"""One hub in a process of its own for all tests of fleets, with the packages of the model that most of them run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from tests.support import models
from tests.support.hubs import HubProcess
from tests.support.yards import Yard

DEVICES = int(os.environ.get("LIGHTKEEPER_FLEET", "3"))
"""How many agents a fleet has: `make test-fleet` takes 20."""

YardFactory = Callable[[], Yard]


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """A hub that may be killed, and started again where it was."""
    process = HubProcess(tmp_path_factory.mktemp("hub") / "hub")
    process.start()
    yield process
    process.end()


@pytest.fixture(scope="session")
def make_yard(hub: HubProcess, tmp_path_factory: pytest.TempPathFactory) -> YardFactory:
    """Make fleets of names that no other has."""
    numbers = iter(range(1000))
    return lambda: Yard(hub, f"yard-{next(numbers)}", tmp_path_factory.mktemp("yard"))


@pytest.fixture
def yard(make_yard: YardFactory) -> Iterator[Yard]:
    """A fleet of the test's own."""
    with closing(make_yard()) as made:
        yield made


@pytest.fixture(scope="session")
def scores(make_yard: YardFactory) -> str:
    """The packaging job of `scores` 1.0: y = x + x."""
    with closing(make_yard()) as made:
        return made.package("scores", "1.0", models.doubled((1, 4)), {"x": [1, 4]})
