"""Why TLS with the credentials endpoint did not come about, and above all whether the device's clock is to blame.

A certificate that has ended, or is not valid yet, is either the endpoint's fault or the clock's, and both look the
same. So the endpoint is asked for its time once more, with all of its certificate checked but the dates: it must be the
authority's and for this host. Nothing is sent to it, and nothing believed but the header `Date`. Where it gives no
time, what is known says so: the true time is not before this release, nor before the device's own certificate.

An endpoint that does not take the device's certificate says so in an alert. With TLS 1.3 that may be lost, since the
request is under way by then and the connection is cut; with 1.2 it comes before, so there it is asked for again. Some
never say it: where the device's certificate is out of date, that is then the likeliest reason.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightkeeper import RELEASED
from lightkeeper.errors import (
    CertificateFilesUnusable,
    ClockWrong,
    DeliveryFailed,
    DestinationDenied,
    DestinationUnreachable,
    DestinationUntrusted,
)
from lightkeeper.providers import connection
from lightkeeper.providers.base import DeviceCertificate

SKEW_SECONDS = 300.0
"""A clock that is off by more cannot sign requests."""

_NOT_YET_VALID, _EXPIRED = 9, 10  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
_NO_DATES = 0x200000  # X509_V_FLAG_NO_CHECK_TIME, which the module `ssl` has no name for
_CUT = (ssl.SSLEOFError, ConnectionResetError, BrokenPipeError)


def failure(error: Exception, files: DeviceCertificate, now: datetime, timeout_seconds: float) -> DeliveryFailed:
    """Return what a connection that did not come about means; it may ask the endpoint for its time."""
    endpoint, causes = files.endpoint, [*_causes(error)]
    cut = any(isinstance(cause, _CUT) for cause in causes)
    if cut:
        causes += _causes(_asked(files, timeout_seconds, _older))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            if cause.verify_code in {_NOT_YET_VALID, _EXPIRED}:
                return _untimely(cause, files, now, timeout_seconds)
            return DestinationUntrusted(
                f"the credentials endpoint's certificate is refused: {cause.verify_message}",
                endpoint=endpoint,
                ca_file=files.ca_file,
            )
        if isinstance(cause, ssl.SSLError) and "ALERT" in (cause.reason or "") and "VERSION" not in cause.reason:
            said = cause.reason.rsplit("ALERT_", maxsplit=1)[-1].replace("_", " ").lower()
            return denial(files, now, said)
    if cut and (fault := out_of_date(files, now)):
        return fault
    return DestinationUnreachable(f"the credentials endpoint cannot be reached: {error}", endpoint=endpoint)


def denial(files: DeviceCertificate, now: datetime, said: str) -> DestinationDenied:
    """Return what an endpoint's alert means: the device's certificate is out of date, or is not taken."""
    return out_of_date(files, now) or DestinationDenied(
        f"the credentials endpoint does not take the device's certificate: {said}", endpoint=files.endpoint, alert=said
    )


def mistrust(files: DeviceCertificate, now: datetime, timeout_seconds: float) -> DeliveryFailed:
    """Return why an endpoint's certificate is not trusted where curl says so; it asks the endpoint.

    Where there is nothing wrong with that, the device's own may be out of date: curl says the same of such an alert.
    """
    answer = _asked(files, timeout_seconds, lambda _: None)
    if isinstance(answer, Exception) and any(isinstance(c, ssl.SSLCertVerificationError) for c in _causes(answer)):
        return failure(answer, files, now, timeout_seconds)
    return out_of_date(files, now) or DestinationUntrusted(
        "the credentials endpoint's certificate is refused", endpoint=files.endpoint, ca_file=files.ca_file
    )


def clock_fault(date: str | None, now: datetime, endpoint: str) -> ClockWrong | None:
    """Return what an answer's header `Date` says against the device's clock; None where it agrees, or says nothing."""
    try:
        skew_seconds = (now - parsedate_to_datetime(date or "")).total_seconds()
    except (ValueError, TypeError):  # no date, or one without a zone
        return None
    if abs(skew_seconds) <= SKEW_SECONDS:
        return None
    way = "ahead" if skew_seconds > 0 else "behind"
    return ClockWrong(
        f"the device's clock is {abs(skew_seconds):.0f} seconds {way} of the credentials endpoint's",
        skew_seconds=round(skew_seconds),
        endpoint=endpoint,
    )


def valid_within(file: Path) -> tuple[datetime, datetime] | None:
    """Return from when to when the first certificate of a file is valid, or None where there is none."""
    from cryptography import x509

    try:
        first = x509.load_pem_x509_certificates(file.read_bytes())[0]
    except (OSError, ValueError):
        return None
    return first.not_valid_before_utc, first.not_valid_after_utc


def _untimely(
    cause: ssl.SSLCertVerificationError, files: DeviceCertificate, now: datetime, timeout_seconds: float
) -> DeliveryFailed:
    """Return what it means that the endpoint's certificate is not valid at the time that the clock says."""
    endpoint, early = files.endpoint, cause.verify_code == _NOT_YET_VALID
    answer = _asked(files, timeout_seconds, _dateless)
    date = None if isinstance(answer, Exception) else answer.headers.get("Date")
    wrong = clock_fault(date, now, endpoint)
    if wrong is not None:
        return wrong
    state = f"certificate, or its authority's, {'is not valid yet' if early else 'has ended'}"
    if date is not None:
        return DestinationUntrusted(
            f"the credentials endpoint's {state}, and its clock agrees with the device's", endpoint=endpoint
        )
    own = valid_within(files.certificate_file)
    floor = max(RELEASED, own[0]) if own else RELEASED
    if now < floor:
        return ClockWrong(
            f"the device's clock says {now:%FT%TZ}, and it is {floor:%FT%TZ} at the least", endpoint=endpoint
        )
    doubt = "behind" if early else "ahead"
    return DestinationUntrusted(
        f"the credentials endpoint's {state} at {now:%FT%TZ}: unless the device's clock is {doubt}, the"
        " endpoint needs a new one",
        endpoint=endpoint,
    )


def _asked(files: DeviceCertificate, timeout_seconds: float, change: Callable[[ssl.SSLContext], None]) -> Any:
    """Return an endpoint's answer to a request for nothing, by a changed TLS, or the error that there was instead."""
    from urllib3.exceptions import HTTPError

    parts = urlsplit(files.endpoint)
    try:
        context = connection.context(files)
        change(context)
        with connection.pool(files.endpoint, context) as pool:
            return pool.request(
                "HEAD", f"https://{parts.netloc}/", timeout=timeout_seconds, retries=False, redirect=False
            )
    except (HTTPError, CertificateFilesUnusable) as error:
        return error


def _older(context: ssl.SSLContext) -> None:
    context.maximum_version = ssl.TLSVersion.TLSv1_2


def _dateless(context: ssl.SSLContext) -> None:
    context.verify_flags |= _NO_DATES


def out_of_date(files: DeviceCertificate, now: datetime) -> DestinationDenied | None:
    """Return that the device's own certificate has ended by its clock, or has not begun; None where neither is so."""
    own = valid_within(files.certificate_file)
    if own is None or own[0] <= now <= own[1]:
        return None
    what = f"ended on {own[1]:%FT%TZ}" if own[1] < now else f"begins on {own[0]:%FT%TZ}, by the device's clock later"
    return DestinationDenied(
        f"the device's certificate {what}, and the credentials endpoint does not take it", endpoint=files.endpoint
    )


def _causes(error: object) -> Iterator[BaseException]:
    """Yield an error and everything it wraps: urllib3 keeps what it translates as an argument."""
    seen = [error] if isinstance(error, BaseException) else []
    for one in seen:
        yield one
        wrapped = (*one.args, one.__cause__, one.__context__)
        seen += [inner for inner in wrapped if isinstance(inner, BaseException) and inner not in seen]
