"""Hubs that run in the test's own process, and clients of them."""

from __future__ import annotations

from typing import Any

import boto3
from botocore.config import Config

from lightkeeper.hub.keys import OperatorKey
from lightkeeper.hub.up import Hub


class RunningHub:
    """A hub that answers until `stop`. No call may have ended with a fault of the hub's own."""

    def __init__(self, database_url: str, **options: Any) -> None:
        self.hub = Hub(database_url, **options)
        self.database = self.hub.database
        self.endpoint = self.hub.start().endpoint

    @property
    def key(self) -> OperatorKey:
        """The operator's key."""
        return self.hub.operator_key

    def client(self, service: str, **options: Any) -> Any:
        """Return a boto3 client with the operator's key; it makes one attempt a call."""
        given = {
            "region_name": self.hub.settings.region,
            "aws_access_key_id": self.key.access_key_id,
            "aws_secret_access_key": self.key.secret_access_key,
        } | options
        config = Config(retries={"total_max_attempts": 1}).merge(given.pop("config", Config()))
        return boto3.client(service, endpoint_url=self.endpoint, config=config, **given)

    def stop(self) -> None:
        """End the hub."""
        self.hub.stop()
