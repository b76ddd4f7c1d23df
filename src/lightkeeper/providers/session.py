"""A device's credentials as boto3 takes them: exchanged when first needed, again before they end, and when refused.

Invariants: one exchange at a time (botocore's lock); after one that failed nobody asks again before a pause is over,
which grows from `FIRST_PAUSE_SECONDS` to `MOST_PAUSE_SECONDS` and is drawn at random, so that a thousand devices whose
network comes back do not ask together: until then every caller gets the failure that was. Credentials that were
refused are exchanged anew at most every `RENEWAL_SECONDS`. The log says once that the cloud went and once that it is
back.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from lightkeeper.errors import DeliveryFailed, ExtraMissing
from lightkeeper.providers.exchange import CredentialExchange

FIRST_PAUSE_SECONDS = 2.0
MOST_PAUSE_SECONDS = 300.0
RENEWAL_SECONDS = 60.0
_METHOD = "device-certificate"

log = logging.getLogger(__name__)


class DeviceSession:
    """The boto3 session of a device. Any thread may use it; boto3 is imported when it is first used."""

    def __init__(
        self,
        exchange: CredentialExchange,
        region: str | None,
        *,
        draw: Callable[[], float] = random.random,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._exchange = exchange
        self._region = region
        self._draw = draw
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._failure: DeliveryFailed | None = None
        self._failures = 0
        self._silent_until = 0.0
        self._renewed_at = -RENEWAL_SECONDS
        self._made: Any = None

    def boto3(self) -> Any:
        """Return the session; a new one, with nothing exchanged, after `renew`. Raises `ExtraMissing`."""
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made

    def renew(self) -> bool:
        """Have the next request exchange the certificate anew; False where that was so a moment ago."""
        with self._lock:
            if self._monotonic() - self._renewed_at < RENEWAL_SECONDS:
                return False
            self._renewed_at = self._monotonic()
            self._made = None
        return True

    def _make(self) -> Any:
        try:
            import boto3
            from botocore.credentials import CredentialProvider, CredentialResolver, DeferredRefreshableCredentials
            from botocore.session import Session
        except ImportError as error:
            raise ExtraMissing("the provider Aws needs boto3, which is not installed", extra="aws") from error
        logging.getLogger("botocore.credentials").setLevel(logging.ERROR)  # it warns at each try; we say it once
        fetch = self._fetched

        class DeviceCertificateProvider(CredentialProvider):  # type: ignore[misc]  # botocore has no types
            METHOD = _METHOD

            def load(self) -> Any:
                return DeferredRefreshableCredentials(refresh_using=fetch, method=_METHOD)

        session = Session()
        session.register_component("credential_provider", CredentialResolver([DeviceCertificateProvider()]))
        return boto3.session.Session(botocore_session=session, region_name=self._region)

    def _fetched(self) -> dict[str, str]:
        """Exchange the certificate, as botocore asks for it."""
        if self._failure is not None and self._monotonic() < self._silent_until:
            raise self._failure.with_traceback(None)
        try:
            got = self._exchange.credentials()
        except DeliveryFailed as failure:
            self._note(failure)
            raise
        if self._failure is not None:
            log.info("cloud_reachable")
        self._failure, self._failures = None, 0
        return {
            "access_key": got.access_key_id,
            "secret_key": got.secret_access_key,
            "token": got.session_token,
            "expiry_time": got.expiration.isoformat(),
        }

    def _note(self, failure: DeliveryFailed) -> None:
        if self._failure is None or type(self._failure) is not type(failure):
            log.warning(
                "cloud_unreachable",
                extra={"reason": failure.reason, "detail": failure.message, "next_step": failure.next_step},
            )
        self._failure = failure
        bound_seconds = min(MOST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(self._failures, 16))
        self._failures += 1
        self._silent_until = self._monotonic() + self._draw() * bound_seconds
