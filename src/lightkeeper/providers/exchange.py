"""The exchange of a device's certificate for credentials, by mutual TLS: one request, and what its answer means.

`GET https://<endpoint>/role-aliases/<alias>/credentials` with the header `x-amzn-iot-thingname`. Nothing here is
remembered.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from lightkeeper.errors import (
    ClockWrong,
    DeliveryFailed,
    DestinationBusy,
    DestinationDenied,
    DestinationUnreachable,
)
from lightkeeper.providers import connection
from lightkeeper.providers.base import DeviceCertificate

THING_HEADER = "x-amzn-iot-thingname"
TIMEOUT_SECONDS = 10.0
SKEW_SECONDS = 300.0
"""A clock that is off by more cannot sign requests."""
ANSWER_MAXIMUM_BYTES = 64 * 1024

_OK, _SERVER_FAULT = 200, 500


@dataclass(frozen=True, slots=True)
class DeviceCredentials:
    """Credentials for about an hour."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(repr=False)
    expiration: datetime


class CredentialExchange:
    """Asks one endpoint for one thing. Any thread may use it."""

    def __init__(
        self,
        certificate: DeviceCertificate,
        thing_name: str,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Take the certificate's files; they are read at each exchange, so that renewed ones are found."""
        self._certificate = certificate
        self._thing_name = thing_name
        self._now = now

    def credentials(self) -> DeviceCredentials:
        """Return new credentials.

        Raises `CertificateFilesUnusable`, `DestinationDenied`, `ClockWrong`, `DestinationUnreachable` or
        `DestinationBusy`.
        """
        from urllib3.exceptions import HTTPError

        endpoint = self._certificate.endpoint
        try:
            answer = connection.pool(endpoint, connection.context(self._certificate)).request(
                "GET",
                endpoint,
                headers={THING_HEADER: self._thing_name},
                timeout=TIMEOUT_SECONDS,
                retries=False,
                redirect=False,
                preload_content=False,
            )
            body = answer.read(ANSWER_MAXIMUM_BYTES)
            answer.release_conn()
        except HTTPError as error:
            raise self._failure(error) from error
        return self._read(answer.status, body, answer.headers.get("Date"))

    def _read(self, status: int, body: bytes, date: str | None) -> DeviceCredentials:
        self._check_clock(date)
        endpoint = self._certificate.endpoint
        if status >= _SERVER_FAULT:
            raise DestinationBusy(f"{endpoint} answered {status}", endpoint=endpoint, status=status)
        if status != _OK:
            said = _message(body)
            raise DestinationDenied(
                f"the credentials endpoint answered {status}: {said}",
                endpoint=endpoint,
                status=status,
                thing=self._thing_name,
            )
        try:
            given = json.loads(body)["credentials"]
            return DeviceCredentials(
                str(given["accessKeyId"]),
                str(given["secretAccessKey"]),
                str(given["sessionToken"]),
                datetime.fromisoformat(given["expiration"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DestinationBusy(f"{endpoint} gave an answer that is no credentials", endpoint=endpoint) from error

    def _check_clock(self, date: str | None) -> None:
        """Hold the device's clock against the endpoint's. Raises `ClockWrong`."""
        if date is None:
            return
        try:
            skew_seconds = (self._now() - parsedate_to_datetime(date)).total_seconds()
        except (ValueError, TypeError):  # no date, or one without a zone
            return
        if abs(skew_seconds) > SKEW_SECONDS:
            way = "ahead" if skew_seconds > 0 else "behind"
            raise ClockWrong(
                f"the device's clock is {abs(skew_seconds):.0f} seconds {way} of the credentials endpoint's",
                skew_seconds=round(skew_seconds),
                endpoint=self._certificate.endpoint,
            )

    def _failure(self, error: Exception) -> DeliveryFailed:
        """Return what a connection that did not come about means."""
        endpoint, text = self._certificate.endpoint, str(error)
        if "certificate is not yet valid" in text:
            return ClockWrong(
                "the endpoint's certificate is not valid yet by the device's clock, which is therefore behind",
                endpoint=endpoint,
            )
        if "certificate has expired" in text:
            return DestinationUnreachable(
                "the endpoint's certificate has expired, or the device's clock is far ahead", endpoint=endpoint
            )
        if "alert" in text and "certificate" in text:
            return DestinationDenied(
                f"the credentials endpoint does not take the device's certificate: {text}", endpoint=endpoint
            )
        return DestinationUnreachable(f"the credentials endpoint cannot be reached: {text}", endpoint=endpoint)


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace")
