"""What every server of the local API does of its own, as grpcio's client sees it; test_clients.py has the rest."""

from __future__ import annotations

import gzip
import random
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from lightkeeper import errors
from lightkeeper.config.values import Transport
from lightkeeper.transport.method import CALLS_LIMIT, Caller, Method, Reply
from tests.support.http2 import Peer, message
from tests.transport.conformance.conftest import UNLIMITED, Serve
from tests.transport.conformance.serve import WORKERS, echo, make

ECHO = "/test.Test/Echo"
OTHER = "/test.Test/Other"
NOISE = random.Random(0).randbytes(100_000)  # noqa: S311  # the same at every run


def code_of(call: object) -> grpc.StatusCode:
    """Return the status with which a call fails."""
    with pytest.raises(grpc.RpcError) as caught:
        call()  # type: ignore[operator]  # every caller gives a lambda
    code: grpc.StatusCode = caught.value.code()
    return code


# --- messages --------------------------------------------------------------------------------------------------------


def test_a_deflated_request_is_unpacked(serve: Serve) -> None:
    """By the message's own word; few clients but grpcio's send it."""
    body = b"light " * 50_000
    assert serve({ECHO: Method(echo)}).method(ECHO)(body, compression=grpc.Compression.Deflate) == body


def test_a_call_too_many_is_refused_and_those_before_are_answered(serve: Serve, transport: Transport) -> None:
    """RESOURCE_EXHAUSTED."""
    release = threading.Event()

    def wait(_body: bytes, _caller: Caller) -> bytes:
        release.wait(60)
        return b"done"

    running = serve({OTHER: Method(wait)})
    channels = [running.new_channel() for _ in range(8)]  # a connection carries 256 streams at most
    methods = [running.method(OTHER, channel) for channel in channels]
    calls = [methods[number % 8].future(b"", timeout=60) for number in range(CALLS_LIMIT + 8)]
    refused = wait_for_some(calls, 8)[0]  # all of them: whoever arrives after the release finds room
    release.set()
    assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert_details(transport, refused, "CALLS_TOO_MANY")
    assert sum(call.code() is grpc.StatusCode.OK for call in calls) == CALLS_LIMIT


def wait_for_some(calls: list[Any], count: int = 1) -> list[Any]:
    """Return the calls that are over, once so many are."""
    deadline = time.monotonic() + 60
    while len(done := [call for call in calls if call.done()]) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return done


def assert_details(transport: Transport, error: Any, reason: str) -> None:
    """See the reason in a refusal by the server itself; grpcio's own carry none."""
    carried = rpc_status.from_call(error)
    if transport is Transport.GRPCIO:
        assert carried is None
        return
    assert carried is not None
    info = error_details_pb2.ErrorInfo()
    assert carried.details[0].Unpack(info)
    assert (info.reason, info.domain) == (reason, "lightkeeper")
    assert any(key.startswith("limit_") for key in info.metadata)


def test_a_handlers_metadata_come_before_and_after_its_answer(serve: Serve) -> None:
    """Text, binary and repeated ones; the parts of the answer as one message."""
    large = bytes(range(256)) * 400
    initial = (("first", "1"), ("first", "2"), ("first-bin", b"\x00\xff"))
    trailing = (("last", "printable ~"), ("last-bin", b""))
    parts = [b"head", memoryview(large), b"", memoryview(bytearray(b"tail")), np.arange(5000, dtype="<f4").data]
    reply = Reply(parts, initial_metadata=initial, trailing_metadata=trailing)
    answer, call = serve({OTHER: Method(lambda _body, _caller: reply)}).method(OTHER).with_call(b"", timeout=20)
    assert answer == b"head" + large + b"tail" + np.arange(5000, dtype="<f4").tobytes()
    assert [pair for pair in call.initial_metadata() if pair[0].startswith("first")] == list(initial)
    assert [pair for pair in call.trailing_metadata() if pair[0].startswith("last")] == list(trailing)


@pytest.mark.parametrize(
    ("answer", "compressed"),
    [(b"light " * 50_000, True), (b"light " * 10, False), (NOISE, None)],
    ids=["large", "small", "random"],
)
def test_a_large_answer_is_compressed_where_that_is_wanted(
    transport: Transport, tmp_path: Path, answer: bytes, compressed: bool | None
) -> None:
    """For a client that takes gzip, in one part or many; what does not shrink may go as it is."""
    server = make(transport, {ECHO: Method(echo), OTHER: Method(in_parts)}, compress_above_bytes=1000)
    server.start(f"unix:{tmp_path / 'agent.sock'}")
    try:
        for path in (ECHO, OTHER):
            with Peer(tmp_path / "agent.sock") as peer:
                peer.call(1, path, message(answer[:16_000]), ("grpc-accept-encoding", "identity, gzip"))
                received = peer.stream(1)
            flag, body = received[0], received[5:]
            assert (gzip.decompress(body) if flag else body) == answer[:16_000]
            if compressed is not None:
                assert flag == compressed
        with grpc.insecure_channel(f"unix:{tmp_path / 'agent.sock'}", UNLIMITED) as channel:
            method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(ECHO)
            assert method(answer, timeout=20) == answer
    finally:
        assert server.stop(5)


def in_parts(body: bytes, _caller: Caller) -> Reply:
    """Answer with the request in two parts."""
    return Reply([body[:7], memoryview(body)[7:]])


# --- threads ---------------------------------------------------------------------------------------------------------


def test_slow_methods_do_not_hold_up_quick_ones(serve: Serve) -> None:
    """However many of them wait."""
    release = threading.Event()

    def wait(_body: bytes, _caller: Caller) -> bytes:
        release.wait(20)
        return b"done"

    running = serve({OTHER: Method(wait, slow=True), ECHO: Method(echo)})
    loads = [running.method(OTHER).future(b"") for _ in range(20)]
    time.sleep(0.2)
    assert running.method(ECHO)(b"x", timeout=5) == b"x"
    release.set()
    assert [load.result(timeout=10) for load in loads] == [b"done"] * 20


def test_workers_run_at_the_same_time(serve: Serve) -> None:
    """As many as there are."""
    together = threading.Barrier(WORKERS)

    def meet(_body: bytes, _caller: Caller) -> bytes:
        together.wait(10)
        return b"met"

    method = serve({OTHER: Method(meet)}).method(OTHER)
    assert [call.result(timeout=10) for call in [method.future(b"") for _ in range(WORKERS)]] == [b"met"] * WORKERS


# --- stopping --------------------------------------------------------------------------------------------------------


def test_calls_past_the_grace_time_are_cut(serve: Serve) -> None:
    """The server says that not all finished, and does not wait."""
    begun, release = threading.Event(), threading.Event()

    def wait(_body: bytes, _caller: Caller) -> bytes:
        begun.set()
        release.wait(20)
        return b"late"

    running = serve({OTHER: Method(wait)})
    call = running.method(OTHER).future(b"")
    assert begun.wait(5)
    started = time.monotonic()
    assert not running.server.stop(0.3)
    assert time.monotonic() - started < 4
    assert code_of(lambda: call.result(timeout=5)) in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    release.set()


def test_hurry_ends_the_grace_time(serve: Serve) -> None:
    """At once, whatever was granted."""
    begun, release, hurry = threading.Event(), threading.Event(), threading.Event()

    def wait(_body: bytes, _caller: Caller) -> bytes:
        begun.set()
        release.wait(20)
        return b"late"

    running = serve({OTHER: Method(wait)})
    call = running.method(OTHER).future(b"")
    assert begun.wait(5)
    threading.Timer(0.3, hurry.set).start()
    started = time.monotonic()
    assert not running.server.stop(600, hurry)
    assert time.monotonic() - started < 4
    release.set()
    assert isinstance(call.exception(timeout=5), grpc.RpcError)


def test_a_server_without_calls_stops_at_once(serve: Serve) -> None:
    """Idle clients are not waited for."""
    running = serve({ECHO: Method(echo)})
    assert running.method(ECHO)(b"x") == b"x"
    started = time.monotonic()
    assert running.server.stop(30)
    assert time.monotonic() - started < 3


def test_an_address_that_cannot_be_bound_is_refused(transport: Transport) -> None:
    """As a refusal of ours."""
    server = make(transport, {ECHO: Method(echo)})
    with pytest.raises(errors.SocketDenied):
        server.start("unix:/nowhere/at/all.sock")
    assert server.stop(0)
