"""One running hub for all tests of the hub, on SQLite; and clients of it as users make them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.support.hubs import RunningHub
from tests.support.postgres import Postgres, installed_or_skip
from tests.support.spools import IN_MEMORY

Client = Any


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """A hub in this process; each test uses names of its own."""
    with closing(RunningHub(tmp_path_factory.mktemp("hub"))) as running:
        yield running


@pytest.fixture(scope="session")
def sagemaker(hub: RunningHub) -> Iterator[Client]:
    """The operator's client of the control plane: boto3, with nothing but the endpoint changed."""
    client = hub.client("sagemaker")
    yield client
    client.close()


@pytest.fixture
def fleet(sagemaker: Client, unique: Callable[[], str]) -> str:
    """A device fleet of the test's own."""
    name = unique()
    sagemaker.create_device_fleet(DeviceFleetName=name, OutputConfig={"S3OutputLocation": "s3://bucket/captures"})
    return name


@pytest.fixture(scope="session")
def unique() -> Callable[[], str]:
    """Make names that no other test uses."""
    made = iter(range(1_000_000))
    return lambda: f"name-{next(made)}"


@pytest.fixture
def quick_folder() -> Iterator[Path]:
    """A folder for a database that no power cut is to survive."""
    with TemporaryDirectory(prefix="hub-", dir=IN_MEMORY) as name:
        yield Path(name)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One PostgreSQL for all tests; each asks it for a database of its own."""
    server = Postgres(installed_or_skip())
    try:
        yield server.wait_until_started()
    finally:
        server.stop()
