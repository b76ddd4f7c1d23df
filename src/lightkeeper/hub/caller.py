"""What the command line asks a running hub, through boto3 as any operator would."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from lightkeeper.errors import HubCallRefused, HubUnreachable
from lightkeeper.hub import clients
from lightkeeper.hub.folder import Addresses
from lightkeeper.providers.aws import Credentials


class Caller:
    """The operator's client of one hub."""

    def __init__(self, addresses: Addresses) -> None:
        """Raises `ExtraMissing`."""
        self._endpoint = addresses.endpoint
        key = Credentials(addresses.access_key_id, addresses.secret_access_key)
        self._client = clients.client("sagemaker", key, endpoint=addresses.endpoint, region=addresses.region)

    def __enter__(self) -> Self:
        """Return the caller itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of the connections."""
        self._client.close()

    def fleet(self, name: str) -> dict[str, Any]:
        """Return a fleet's report, with all its devices under `Devices`; times are ISO 8601 in UTC.

        Raises `HubCallRefused`, `HubUnreachable`.
        """
        with self._translated():
            report = self._client.get_device_fleet_report(DeviceFleetName=name)
            pages = self._client.get_paginator("list_devices").paginate(DeviceFleetName=name)
            devices = [device for page in pages for device in page["DeviceSummaries"]]
        del report["ResponseMetadata"]
        plain: dict[str, Any] = _plain({**report, "Devices": devices})
        return plain

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except clients.faults() as error:
            said = getattr(error, "response", {}).get("Error", {})
            if "Code" in said:
                raise HubCallRefused(f"{said['Code']}: {said.get('Message', '')}", code=said["Code"]) from error
            raise HubUnreachable(f"the hub at {self._endpoint} does not answer", endpoint=self._endpoint) from error


def _plain(value: Any) -> Any:
    """Return a document of the SDK's as one of JSON."""
    match value:
        case dict():
            return {name: _plain(item) for name, item in value.items()}
        case list():
            return [_plain(item) for item in value]
        case datetime():
            return value.astimezone(UTC).isoformat(timespec="milliseconds")
        case _:
            return value
