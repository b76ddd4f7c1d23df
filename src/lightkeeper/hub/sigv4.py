"""AWS Signature Version 4 in the Authorization header: who signed this request, if anybody did.

Steps, in order: 1. the header is read; 2. what must be signed is signed; 3. the time is within `SKEW_SECONDS` of ours;
4. the key is known, its session runs, its token is the one that came; 5. the signature is that of this very request.
A secret is touched only in step 5, and compared in constant time.

Any region is taken, as long as the service is `sagemaker`: scripts keep the region they were written for.
"""

from __future__ import annotations

import hmac
import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from urllib.parse import quote, unquote_to_bytes

from lightkeeper.errors import (
    AccessKeyUnknown,
    SessionEnded,
    SignatureAbsent,
    SignatureIncomplete,
    SignatureTimeWrong,
    SignatureWrong,
)
from lightkeeper.hub.keys import Caller, Lookup
from lightkeeper.hub.web import Request

ALGORITHM = "AWS4-HMAC-SHA256"
SERVICE = "sagemaker"
SKEW_SECONDS = 300
DERIVED_KEYS = 4096
"""Signing keys kept: one a device and day, as many as call often."""

ONE_OF_A_KIND = "amz-sdk-invocation-id"
"""A header the SDKs sign that is new for each call, with one beside it that is new for each attempt."""

_TIME = "%Y%m%dT%H%M%SZ"
_HEADER = re.compile(
    rf"{ALGORITHM}\s+Credential=([A-Za-z0-9_-]{{4,128}})/(\d{{8}})/([a-z0-9-]{{1,63}})/([a-z0-9-]{{1,63}})/aws4_request"
    r",\s*SignedHeaders=([a-z0-9;_.-]{1,2000}),\s*Signature=([0-9a-f]{64})",
    re.ASCII,
)


def verify(request: Request, lookup: Lookup, now_ms: int) -> tuple[Caller, bytes | None]:
    """Return who calls, and the signature if no honest client sends it twice (else None).

    Raises `SignatureAbsent`, `SignatureIncomplete`, `SignatureTimeWrong`, `AccessKeyUnknown`, `SessionEnded`,
    `SignatureWrong`.
    """
    # 1. the header
    given = request.header("authorization")
    if given is None:
        raise SignatureAbsent("the request is not signed")
    found = _HEADER.fullmatch(given.strip())
    if not found:
        raise SignatureIncomplete("the Authorization header is not one of Signature Version 4")
    key_id, day, region, service, names, signature = found.groups()
    if service != SERVICE:
        raise SignatureIncomplete(f"the credential is scoped to {service}, not to {SERVICE}", service=service)

    # 2. what must be signed
    signed = names.split(";")
    token = request.header("x-amz-security-token")
    needed = {"host", "x-amz-date"} | ({"x-amz-security-token"} if token is not None else set())
    if request.header("x-amz-target") is not None:
        needed.add("x-amz-target")
    if missing := sorted((needed - set(signed)) | {name for name in signed if name not in request.headers}):
        raise SignatureIncomplete(f"not signed, or not sent: {', '.join(missing)}", headers=", ".join(missing))

    # 3. the time
    stamp = request.header("x-amz-date") or ""
    _require_present(stamp, day, now_ms)

    # 4. the key
    key = lookup(key_id)
    if key is None:
        raise AccessKeyUnknown(f"no access key has the id {key_id}", access_key_id=key_id)
    if key.expires_ms is not None and key.expires_ms <= now_ms:
        raise SessionEnded(f"the session of {key_id} has ended", access_key_id=key_id)
    if not hmac.compare_digest((key.token or "").encode(), (token or "").encode()):
        raise AccessKeyUnknown("the security token is not that of the access key", access_key_id=key_id)

    # 5. the signature
    text = "\n".join([ALGORITHM, stamp, f"{day}/{region}/{service}/aws4_request", _canonical(request, signed, names)])
    expected = hmac.digest(_signing_key(key.secret, day, region, service), text.encode(), "sha256")
    if not hmac.compare_digest(expected, bytes.fromhex(signature)):
        raise SignatureWrong("the signature is not that of this request under this key", access_key_id=key_id)
    return key.caller, expected if ONE_OF_A_KIND in signed else None


def signing_time_ms(request: Request) -> int:
    """Return when a request was signed that `verify` let pass."""
    signed = datetime.strptime(request.header("x-amz-date") or "", _TIME).replace(tzinfo=UTC)
    return int(signed.timestamp() * 1000)


def _require_present(stamp: str, day: str, now_ms: int) -> None:
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    try:
        signed = datetime.strptime(stamp, _TIME).replace(tzinfo=UTC)
    except ValueError:
        raise SignatureIncomplete("X-Amz-Date is no time like 20260131T235959Z") from None
    if not stamp.startswith(day):
        raise SignatureIncomplete("X-Amz-Date is not on the day the credential is scoped to", scope=day)
    skew = timedelta(seconds=SKEW_SECONDS)
    ours = f"{now:{_TIME}}"
    if signed < now - skew:
        raise SignatureTimeWrong(
            f"Signature expired: {stamp} is now earlier than {now - skew:{_TIME}} ({ours} - 5 min.)",
            signed=stamp,
            now=ours,
        )
    if signed > now + skew:
        raise SignatureTimeWrong(
            f"Signature not yet current: {stamp} is still later than {now + skew:{_TIME}} ({ours} + 5 min.)",
            signed=stamp,
            now=ours,
        )


def _canonical(request: Request, signed: list[str], names: str) -> str:
    """Return the digest of the request in the form that is signed, its headers in the order the client lists them."""
    headers = "".join(
        f"{name}:{','.join(' '.join(value.split()) for value in request.headers[name])}\n" for name in signed
    )
    query = "&".join(sorted(_pair(part) for part in request.query.split("&") if part))
    form = "\n".join(
        [request.method, quote(request.path, safe="/-_.~"), query, headers, names, sha256(request.body).hexdigest()]
    )
    return sha256(form.encode()).hexdigest()


def _pair(part: str) -> str:
    name, _, value = part.partition("=")
    return f"{_encoded(name)}={_encoded(value)}"


def _encoded(text: str) -> str:
    return quote(unquote_to_bytes(text.replace("+", "%20")), safe="-_.~")


@lru_cache(maxsize=DERIVED_KEYS)
def _signing_key(secret: str, day: str, region: str, service: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
