"""The way to the cloud: proxy, names, and the clock by which both ends must agree."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from lightkeeper.doctor.diagnosis import Diagnosis, failed, ok, skipped, warning
from lightkeeper.errors import ClockWrong, DestinationUnreachable
from lightkeeper.providers import connection
from lightkeeper.providers.handshake import SKEW_SECONDS

CONNECT_SECONDS = 5.0
NOTABLE_SKEW_SECONDS = 60.0
"""A clock that is off by more is on its way to where it can sign nothing."""

_SET_CLOCK = (
    "set the device's clock and keep it set: timedatectl set-ntp true, or chrony; see to the battery of its clock"
)
_PORTS = {"http": 80, "https": 443}
_OF_THIS_COMMAND = "a service may have another environment than this command: see its unit"


def proxy(hosts: Sequence[str]) -> Diagnosis:
    """Whether the environment's proxy can be reached, where it has one for a host."""
    chosen = {host: address for host in hosts if (address := connection.proxy_for(host)) is not None}
    if not chosen:
        return ok("none for these hosts", facts={"hosts": ", ".join(hosts)})
    address = next(iter(chosen.values()))
    parts = urlsplit(address if "://" in address else f"http://{address}")
    try:
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        port = 0
    if not parts.hostname or not port:
        return failed("HTTPS_PROXY is no address of a proxy", fix="set it to http://HOST:PORT; " + _OF_THIS_COMMAND)
    where = f"{parts.hostname}:{port}"
    facts = {"proxy": where, "for": ", ".join(chosen), "password": "not shown" if parts.password else "none"}
    try:
        socket.create_connection((parts.hostname, port), CONNECT_SECONDS).close()
    except OSError as error:
        return failed(
            f"the proxy {where} cannot be reached: {error}",
            fix=f"see to the proxy, or to HTTPS_PROXY and NO_PROXY; {_OF_THIS_COMMAND}",
            reason=DestinationUnreachable.reason,
            facts=facts,
        )
    return ok(f"through {where}", facts=facts)


def dns(hosts: Sequence[str]) -> Diagnosis:
    """Whether the names of the cloud's hosts can be looked up; a proxy looks up those that go through it."""
    asked = [host for host in hosts if not _is_address(host) and connection.proxy_for(host) is None]
    if not asked:
        return skipped("no name to look up: the hosts are addresses, or a proxy's to find")
    found, missing = {}, {}
    for host in asked:
        try:
            found[host] = sorted({str(item[4][0]) for item in socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM)})
        except (OSError, UnicodeError) as error:
            missing[host] = str(error)
    facts = {host: ", ".join(addresses) for host, addresses in found.items()} | missing
    if missing:
        return failed(
            f"no address for {', '.join(missing)}: {next(iter(missing.values()))}",
            fix="check the name in the configuration, and the name servers in /etc/resolv.conf (resolvectl query HOST)",
            reason=DestinationUnreachable.reason,
            facts=facts,
        )
    return ok(f"addresses found for {', '.join(found)}", facts=facts)


def clock(
    endpoints: Sequence[tuple[str, ssl.SSLContext]], *, floor: datetime, now: Callable[[], datetime]
) -> Diagnosis:
    """Hold the device's clock against a time that has passed, and against the first endpoint that tells its own.

    The endpoints' certificates must not be verified: with a clock that is far off, none would be.
    """
    if now() < floor:
        return failed(
            f"the device's clock says {now():%Y-%m-%d %H:%M} UTC, and {floor:%Y-%m-%d %H:%M} has passed",
            fix=_SET_CLOCK,
            reason=ClockWrong.reason,
            facts={"passed": floor.isoformat()},
        )
    unheard = {}
    for endpoint, context in endpoints:
        try:
            skew_seconds, there = _skew(endpoint, context, now)
        except (OSError, ValueError) as error:
            unheard[endpoint] = str(error)
            continue
        return _judged(skew_seconds, there, endpoint)
    if not unheard:
        return ok(f"not before {floor:%Y-%m-%d}; there is nobody to compare with", facts={"passed": floor.isoformat()})
    cause = next(iter(unheard.values()))
    return skipped(f"not before {floor:%Y-%m-%d}, and no server tells its time: {cause}")


def unverified() -> ssl.SSLContext:
    """Return the TLS for asking the time."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _judged(skew_seconds: float, there: datetime, endpoint: str) -> Diagnosis:
    way = "ahead" if skew_seconds > 0 else "behind"
    found = f"the device's clock is {timedelta(seconds=round(abs(skew_seconds)))} {way}"
    facts = {"skew_seconds": round(skew_seconds, 1), "server_time": there.isoformat(), "endpoint": endpoint}
    if abs(skew_seconds) > SKEW_SECONDS:
        return failed(f"{found}: no request can be signed", fix=_SET_CLOCK, reason=ClockWrong.reason, facts=facts)
    if abs(skew_seconds) > NOTABLE_SKEW_SECONDS:
        return warning(found, fix=_SET_CLOCK, facts=facts)
    return ok(f"within {max(1, round(abs(skew_seconds)))} s of the server's", facts=facts)


def _skew(endpoint: str, context: ssl.SSLContext, now: Callable[[], datetime]) -> tuple[float, datetime]:
    """Return how far the clock is ahead of an endpoint's, and what that said. Raises `OSError` or `ValueError`."""
    from urllib3.exceptions import HTTPError

    parts = urlsplit(endpoint)
    began = time.monotonic()
    try:
        with connection.pool(endpoint, context) as pool:
            answer = pool.request(
                "HEAD", f"{parts.scheme}://{parts.netloc}/", timeout=CONNECT_SECONDS, retries=False, redirect=False
            )
    except HTTPError as error:
        raise OSError(str(error)) from error
    here = now() - timedelta(seconds=(time.monotonic() - began) / 2)
    date = answer.headers.get("Date")
    if date is None:
        raise ValueError("its answer has no Date")
    there = parsedate_to_datetime(date).replace(tzinfo=UTC) + timedelta(seconds=0.5)  # it is cut to whole seconds
    return (here - there).total_seconds(), there


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
