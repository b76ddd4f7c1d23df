"""Hubs that run in the test's own process, and clients of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from lightkeeper.hub.folder import Addresses
from lightkeeper.hub.up import Hub, Options

NOWHERE = "http://127.0.0.1:9"
"""The S3 of hubs that need none."""


class RunningHub:
    """A hub that answers until `stop`."""

    def __init__(self, folder: Path, **options: Any) -> None:
        """Start one with its state in the folder; `options` are those of `Options`."""
        self.hub = Hub(Options(folder=folder, **options))
        self.database = self.hub.database
        self.addresses = self.hub.start()
        self.endpoint = self.addresses.endpoint

    def client(self, service: str, **options: Any) -> Any:
        """Return a boto3 client with the operator's key; it makes one attempt a call."""
        return client(self.addresses, service, **options)

    def close(self) -> None:
        """End the hub."""
        self.hub.stop()


def client(addresses: Addresses, service: str, **options: Any) -> Any:
    """Return a boto3 client of a hub with the operator's key, unless the options say otherwise."""
    given = {
        "region_name": addresses.region,
        "endpoint_url": addresses.endpoint,
        "aws_access_key_id": addresses.access_key_id,
        "aws_secret_access_key": addresses.secret_access_key,
    } | options
    config = Config(retries={"total_max_attempts": 1}).merge(given.pop("config", Config()))
    return boto3.client(service, config=config, **given)
