"""Hostile input over real sockets: too large, too slow, malformed, unsigned, replayed. The hub goes on answering."""

from __future__ import annotations

import http.client
import json
import socket
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from urllib.parse import urlsplit

import psutil
import pytest

from tests.support.hubs import RunningHub
from tests.support.signed import CONTENT_TYPE, code_of, signed

MIB = 1024 * 1024


def key(hub: RunningHub) -> tuple[str, str]:
    """Return the operator's key."""
    return hub.addresses.access_key_id, hub.addresses.secret_access_key


def connected(hub: RunningHub) -> http.client.HTTPConnection:
    """Return a connection to the hub."""
    address = urlsplit(hub.endpoint)
    return http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)


def raw(hub: RunningHub, data: bytes) -> bytes:
    """Send bytes, and return what comes back until the hub closes."""
    address = urlsplit(hub.endpoint)
    with socket.create_connection((address.hostname, address.port), timeout=60) as peer:
        peer.sendall(data)
        peer.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: peer.recv(65536), b""))


def assert_answers(hub: RunningHub) -> None:
    """The hub answers a proper call."""
    assert hub.api(signed("ListDeviceFleets", b"{}", key(hub))).status == 200
    with urllib.request.urlopen(f"{hub.endpoint}/health", timeout=60) as answer:  # noqa: S310 - our own hub
        assert answer.status == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_100_mb_is_refused_and_never_held(hub: RunningHub, chunked: bool) -> None:
    """413 with the service's form of an error, from several senders at once, in bounded memory."""
    before = psutil.Process().memory_info().rss
    chunk = bytes(MIB)

    def send() -> tuple[int, str]:
        connection = connected(hub)
        headers = {"Content-Type": CONTENT_TYPE} | ({} if chunked else {"Content-Length": str(100 * MIB)})
        try:
            connection.request("POST", "/", (chunk for _ in range(100)), headers, encode_chunked=chunked)
        except (BrokenPipeError, ConnectionResetError):
            return 413, "RequestEntityTooLargeException"  # it was refused before it was sent
        answer = connection.getresponse()
        found = answer.status, code_of(answer.read())
        connection.close()
        return found

    with ThreadPoolExecutor(4) as pool:
        answers = [one.result() for one in [pool.submit(send) for _ in range(4)]]
    assert answers == [(413, "RequestEntityTooLargeException")] * 4
    assert psutil.Process().memory_info().rss - before < 64 * MIB
    assert_answers(hub)


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"nonsense\r\n\r\n",
        b"\0" * 100,
        b"POST / HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X-%d: a\r\n" % n for n in range(5000)) + b"\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"POST /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\nshort",
    ],
)
def test_what_is_no_request_is_refused(hub: RunningHub, data: bytes) -> None:
    """A client's error or a closed connection; never a fault of the hub's."""
    answer = raw(hub, data)
    assert not answer or answer.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400", b"HTTP/1.1 403", b"HTTP/1.1 408")), answer
    assert_answers(hub)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b'{"MaxResults": NaN}',
        b'{"MaxResults": Infinity}',
        b'{"MaxResults": 1e999}',
        b'{"MaxResults": ' + b"9" * 5000 + b"}",
        b'{"MaxResults": 1, "MaxResults": 2}',
        b'{"NameContains": "\\ud800"}',
        b'{"NameContains": "\\u0000"}',
        b"[" * 200_000,
        b'{"NameContains":' * 50_000,
    ],
)
def test_a_body_that_is_no_input_is_refused(hub: RunningHub, body: bytes) -> None:
    """With the service's codes for it."""
    answer = hub.api(signed("ListDeviceFleets", body, key(hub)))
    assert answer.status == 400
    assert code_of(answer.body) in {"SerializationException", "ValidationException"}


def test_operations_and_types_that_are_not_offered_are_refused(hub: RunningHub) -> None:
    """The other operations of the same service among them; unsigned callers learn nothing."""
    for operation in ("CreateTrainingJob", "Nonsense", "SendHeartbeat", ""):
        answer = hub.api(signed(operation, b"{}", key(hub)))
        assert (answer.status, code_of(answer.body)) == (400, "UnknownOperationException")
    answer = hub.api(signed("ListDevices", b"{}", key(hub), headers={"Content-Type": "text/xml"}))
    assert (answer.status, code_of(answer.body)) == (400, "SerializationException")
    unsigned = replace(signed("Nonsense", b"{}", key(hub)), headers={})
    assert code_of(hub.api(unsigned).body) == "MissingAuthenticationTokenException"


def test_a_request_sent_twice_is_carried_out_once(hub: RunningHub, fleet: str) -> None:
    """A copy of a signed request is refused; the same call signed anew is not."""
    body = json.dumps({"DeviceFleetName": fleet, "Devices": [{"DeviceName": "a"}]}).encode()
    first = signed("RegisterDevices", body, key(hub))
    assert hub.api(first).status == 200
    again = hub.api(first)
    assert (again.status, code_of(again.body)) == (403, "InvalidSignatureException")
    assert "REQUEST_REPLAYED" in again.body.decode()
    assert hub.api(signed("RegisterDevices", body, key(hub))).status == 200


def test_slow_senders_do_not_keep_others_waiting(hub: RunningHub) -> None:
    """Two hundred connections that send a byte and stop take no worker."""
    address = urlsplit(hub.endpoint)
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{"
    slow = [socket.create_connection((address.hostname, address.port)) for _ in range(200)]
    try:
        for number, one in enumerate(slow):
            one.sendall(head if number % 2 else head[:20])
        assert_answers(hub)
    finally:
        for one in slow:
            one.close()
    assert_answers(hub)
