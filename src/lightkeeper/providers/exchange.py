"""The exchange of a device's certificate for credentials, by mutual TLS: one request, and what its answer means.

`GET https://<endpoint>/role-aliases/<alias>/credentials` with the header `x-amzn-iot-thingname`. Nothing here is
remembered. An answer is read for `DEADLINE_SECONDS` and up to `ANSWER_MAXIMUM_BYTES`, however it comes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from lightkeeper.errors import (
    AgentError,
    ClockWrong,
    DestinationBusy,
    DestinationDenied,
    DestinationUnreachable,
)
from lightkeeper.providers import connection, handshake
from lightkeeper.providers.base import DeviceCertificate

THING_HEADER = "x-amzn-iot-thingname"
TIMEOUT_SECONDS = 10.0
"""For the connection, and for each piece of the answer."""
DEADLINE_SECONDS = 30.0
"""For the whole answer's content."""
ANSWER_MAXIMUM_BYTES = 64 * 1024
SAID_MAXIMUM_CHARACTERS = 200

_OK, _SERVER_FAULT = 200, 500
_ASK_LATER = frozenset({408, 429})


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
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        timeout_seconds: float = TIMEOUT_SECONDS,
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        """Take the certificate's files; they are read at each exchange, so that renewed ones are found."""
        self._certificate = certificate
        self._thing_name = thing_name
        self._now = now
        self._timeout_seconds = timeout_seconds
        self._deadline_seconds = deadline_seconds

    def credentials(self) -> DeviceCredentials:
        """Return new credentials.

        Raises `CertificateFilesUnusable`, `DestinationDenied`, `DestinationUntrusted`, `ClockWrong`,
        `DestinationUnreachable` or `DestinationBusy`.
        """
        return self._read(*self._answer())

    def _answer(self) -> tuple[int, bytes, str | None]:
        """Ask, and return the answer's status, content and header `Date`."""
        from urllib3.exceptions import HTTPError

        endpoint = self._certificate.endpoint
        context = connection.context(self._certificate)
        try:
            with connection.pool(endpoint, context) as pool:
                answer = pool.request(
                    "GET",
                    endpoint,
                    headers={THING_HEADER: self._thing_name},
                    timeout=self._timeout_seconds,
                    retries=False,
                    redirect=False,
                    preload_content=False,
                    decode_content=False,
                )
                try:
                    body = self._body(answer)
                finally:
                    answer.close()
        except HTTPError as error:
            raise handshake.failure(error, self._certificate, self._now(), self._timeout_seconds) from error
        return answer.status, body, answer.headers.get("Date")

    def _body(self, answer: Any) -> bytes:
        """Return the answer's content, as far as it is read."""
        ends = time.monotonic() + self._deadline_seconds
        body = b""
        while len(body) < ANSWER_MAXIMUM_BYTES and (piece := answer.read1(ANSWER_MAXIMUM_BYTES)):
            body += piece
            if time.monotonic() > ends:
                raise DestinationUnreachable(
                    f"the credentials endpoint's answer took more than {self._deadline_seconds:.0f} s",
                    endpoint=self._certificate.endpoint,
                )
        return body

    def _read(self, status: int, body: bytes, date: str | None) -> DeviceCredentials:
        endpoint = self._certificate.endpoint
        wrong = handshake.clock_fault(date, self._now(), endpoint)
        if wrong is not None:
            raise wrong
        if status != _OK:
            raise self._refusal(status, body)
        try:
            given = json.loads(body)["credentials"]
            credentials = DeviceCredentials(
                _text(given["accessKeyId"]),
                _text(given["secretAccessKey"]),
                _text(given["sessionToken"]),
                datetime.fromisoformat(given["expiration"]),
            )
            ended = credentials.expiration <= self._now()  # a TypeError for a time without a zone
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DestinationBusy(f"{endpoint} gave an answer that is no credentials", endpoint=endpoint) from error
        if ended and date is None:
            raise ClockWrong(
                f"the credentials that were just given ended at {credentials.expiration:%FT%TZ} by the device's clock,"
                " which is therefore ahead",
                endpoint=endpoint,
            )
        return credentials

    def _refusal(self, status: int, body: bytes) -> AgentError:
        said, endpoint = _message(body), self._certificate.endpoint
        kind = DestinationBusy if status >= _SERVER_FAULT or status in _ASK_LATER else DestinationDenied
        return kind(
            f"the credentials endpoint answered {status}: {said}",
            endpoint=endpoint,
            status=status,
            thing=self._thing_name,
        )


def _text(given: object) -> str:
    if not isinstance(given, str) or not given:
        raise ValueError("no text")
    return given


def _message(body: bytes) -> str:
    try:
        said = str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        said = body[:SAID_MAXIMUM_CHARACTERS].decode("utf-8", "replace")
    return said[:SAID_MAXIMUM_CHARACTERS]
