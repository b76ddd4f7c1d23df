"""A device's credentials as boto3 takes them: exchanged when first needed, again long before they end, when refused.

Invariants

- One exchange at a time. After one that failed nobody asks again before a pause is over, which grows and is drawn at
  random (`PAUSES`), so that a thousand devices whose network comes back do not ask together.
- Credentials are used to their end: while an exchange fails, those that are held still count. Only once they have
  ended every caller gets the failure that was.
- Each exchange's successor is due after a share of its credentials' life, drawn anew: devices that began together
  drift apart.
- Credentials that were refused are exchanged anew at most every `RENEWAL_SECONDS`, and once for each new package.
- The log says once that the cloud went, once what else keeps it away, and once that it is back.

botocore does the bookkeeping. It asks for new credentials when those it has end within 15 minutes, makes do with a
failure until 10 minutes before the end, and knows nothing of how long they last: so it is told the end that makes it
ask when we want it to (`_as_botocore_takes`).
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from lightkeeper.backoff import Backoff
from lightkeeper.errors import DeliveryFailed, DestinationBusy, ExtraMissing
from lightkeeper.providers.exchange import DeviceCredentials

PAUSES = Backoff(first_seconds=2.0, most_seconds=300.0)
RENEWAL_SECONDS = 60.0
REFRESH_SHARE = 0.75
"""After this share of their life credentials are exchanged anew, or earlier by a random part of `REFRESH_SPREAD`."""
REFRESH_SPREAD = 0.2
ENDING = timedelta(seconds=30)
"""Credentials that end sooner are not used: a request takes a while."""

_ADVISORY, _MANDATORY = timedelta(minutes=15), timedelta(minutes=10)  # botocore's
_METHOD = "device-certificate"

log = logging.getLogger(__name__)


class Exchange(Protocol):
    """Gives credentials (see `CredentialExchange`)."""

    def credentials(self) -> DeviceCredentials:
        """Return new credentials. Raises a `DeliveryFailed`."""


class DeviceSession:
    """The boto3 session of a device. Any thread may use it; boto3 is imported when it is first used."""

    def __init__(
        self,
        exchange: Exchange,
        region: str | None,
        *,
        draw: Callable[[], float] = random.random,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._exchange = exchange
        self._region = region
        self._draw = draw
        self._monotonic = monotonic
        self._now = now
        self._lock = threading.Lock()
        self._exchanging = threading.Lock()  # guards what follows
        self._held: DeviceCredentials | None = None
        self._due = datetime.min.replace(tzinfo=UTC)
        self._failure: DeliveryFailed | None = None
        self._failed_at = datetime.min.replace(tzinfo=UTC)
        self._failures = 0
        self._silent_until = 0.0
        self._renewed_at = -RENEWAL_SECONDS
        self._made: Any = None

    def boto3(self) -> Any:
        """Return the session; a new one, with nothing exchanged, after `renew`. Raises `ExtraMissing`."""
        self._see_clock_set_right()
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made

    def renew(self, *, again: bool = False) -> bool:
        """Have the next request exchange the certificate anew; False where that was so a moment ago.

        `again` is for those who need what has changed since: they have it exchanged in any case.
        """
        with self._lock:
            if not again:
                if self._monotonic() - self._renewed_at < RENEWAL_SECONDS:
                    return False
                self._renewed_at = self._monotonic()
            self._made = None
            with self._exchanging:
                self._held = None
        return True

    def _make(self) -> Any:
        try:
            import boto3
            from botocore.credentials import CredentialProvider, CredentialResolver
            from botocore.session import Session
        except ImportError as error:
            raise ExtraMissing("the provider Aws needs boto3, which is not installed", extra="aws") from error
        logging.getLogger("botocore.credentials").setLevel(logging.ERROR)  # it warns at each try; we say it once
        refreshable = self._refreshable

        class DeviceCertificateProvider(CredentialProvider):  # type: ignore[misc]  # botocore has no types
            METHOD = _METHOD

            def load(self) -> Any:
                return refreshable()

        session = Session()
        session.register_component("credential_provider", CredentialResolver([DeviceCertificateProvider()]))
        return boto3.session.Session(botocore_session=session, region_name=self._region)

    def _refreshable(self) -> Any:
        """Return the credentials that botocore keeps, and has renewed."""
        from botocore.credentials import DeferredRefreshableCredentials

        return DeferredRefreshableCredentials(refresh_using=self._fetched, method=_METHOD, time_fetcher=self._now)

    def _fetched(self) -> dict[str, str]:
        """Return credentials, exchanged anew where they are due, as botocore asks for it. Raises a `DeliveryFailed`."""
        with self._exchanging:
            if not self._usable() or self._now() >= self._due:
                self._exchange_anew()
            if self._held is None or not self._usable():
                assert self._failure is not None  # noqa: S101  # for the type checker: else there would be some
                raise self._failure.with_traceback(None)
            return self._as_botocore_takes(self._held)

    def _see_clock_set_right(self) -> None:
        """Note that a failure of later than now is over: by a clock that was ahead, the credentials held had ended."""
        if self._failure is None or not self._exchanging.acquire(blocking=False):
            return
        try:
            if self._usable() and self._now() < self._failed_at:
                self._note_success()
        finally:
            self._exchanging.release()

    def _note_success(self) -> None:
        if self._failure is not None:
            log.info("cloud_reachable")
        self._failure, self._failures = None, 0

    def _usable(self) -> bool:
        return self._held is not None and self._held.expiration - self._now() > ENDING

    def _exchange_anew(self) -> None:
        """Exchange the certificate, unless a pause is not over; what comes of it is held or noted."""
        if self._failure is not None and self._monotonic() < self._silent_until:
            return
        began = self._now()
        try:
            got = self._exchange.credentials()
            if got.expiration - began <= ENDING:
                raise DestinationBusy(f"the endpoint gave credentials that end at {got.expiration:%FT%TZ} already")
        except DeliveryFailed as failure:
            self._note(failure)
            return
        self._held = got
        self._due = began + (got.expiration - began) * (REFRESH_SHARE * (1 - REFRESH_SPREAD * self._draw()))
        self._note_success()

    def _note(self, failure: DeliveryFailed) -> None:
        if self._failure is None or type(self._failure) is not type(failure):
            log.warning(
                "cloud_unreachable",
                extra={"reason": failure.reason, "detail": failure.message, "next_step": failure.next_step},
            )
        self._failure = failure
        self._failures += 1
        pause_seconds = PAUSES.wait_seconds(self._failures, self._draw())
        self._silent_until = self._monotonic() + pause_seconds
        self._failed_at = self._now()
        self._due = self._failed_at + timedelta(seconds=pause_seconds)

    def _as_botocore_takes(self, held: DeviceCredentials) -> dict[str, str]:
        """Return credentials with the end that has botocore ask again when they are due, and insist at their end."""
        told = min(self._due + _ADVISORY, held.expiration - ENDING + _MANDATORY)
        return {
            "access_key": held.access_key_id,
            "secret_key": held.secret_access_key,
            "token": held.session_token,
            "expiry_time": told.isoformat(),
        }
