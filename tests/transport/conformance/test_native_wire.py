"""The native wire by itself: what a handler is told, the limits it takes, and bytes that no client would send."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import http2
from tests.support.http2 import Peer, frame, message, packed, request_headers

if TYPE_CHECKING:
    from lightkeeper_wire import Call, Server

lightkeeper_wire = pytest.importorskip("lightkeeper_wire", reason="lightkeeper-wire is not installed: it needs cargo")

ECHO = "/test.Test/Echo"
OTHER = "/test.Test/Other"
Handlers = Mapping[str, Callable[[bytes, "Call"], bytes]]


def echo(body: bytes, _call: Call) -> bytes:
    """Answer with the request."""
    return body


class Wire:
    """A server and a client of it."""

    def __init__(self, server: Server, path: Path, stack: ExitStack) -> None:
        self.server = server
        self.path = path
        self._channel = stack.enter_context(grpc.insecure_channel(f"unix:{path}"))

    def method(self, path: str) -> grpc.UnaryUnaryMultiCallable[bytes, bytes]:
        """Return a method that takes and gives bytes."""
        return self._channel.unary_unary(path)

    def call(self, path: str, body: bytes = b"", **options: Any) -> bytes:
        """Call and return the answer's bytes."""
        return self.method(path)(body, **options)


Start = Callable[..., Wire]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start servers, and stop them."""
    with ExitStack() as stack:

        def started(methods: Handlers, *, workers: int = 2, **options: Any) -> Wire:
            server = lightkeeper_wire.Server(methods, workers=workers, **options)
            path = tmp_path / "wire.sock"
            server.start(f"unix:{path}")
            stack.callback(server.stop, 0)
            return Wire(server, path, stack)

        yield started


def headers_of(peer: Peer) -> bytes:
    """Return the next header block as it came."""
    found = peer.first(http2.HEADERS)
    assert found is not None
    return found.payload


# --- what a handler is told ------------------------------------------------------------------------------------------


def test_a_handler_is_told_who_calls_and_what(start: Start) -> None:
    """By the kernel's word."""
    told: list[object] = []

    def look(body: bytes, call: Call) -> bytes:
        remaining = call.time_remaining()
        told.extend([call.method, call.peer_uid, call.peer_gid, call.peer_pid, call.is_active()])
        assert remaining is not None
        assert 1 < remaining <= 31
        told.extend(pair for pair in call.metadata if pair[0] != "user-agent")
        return body

    start({OTHER: look}).call(OTHER, timeout=30, metadata=[("a", "1"), ("a", "2"), ("b-bin", b"\x00\xff")])
    who = [OTHER, os.getuid(), os.getgid(), os.getpid(), True]
    assert told == [*who, ("a", "1"), ("a", "2"), ("b-bin", b"\x00\xff")]


def test_a_call_without_deadline_has_no_time_remaining(start: Start) -> None:
    """None stands for ever."""
    assert start({OTHER: lambda _body, call: repr(call.time_remaining()).encode()}).call(OTHER) == b"None"


def test_over_tcp_nobody_knows_who_calls() -> None:
    """Port 0 asks the kernel for one, and the address tells which."""
    server = lightkeeper_wire.Server({OTHER: lambda _body, call: repr(call.peer_uid).encode()}, workers=1)
    address = server.start("tcp:127.0.0.1:0")
    with grpc.insecure_channel(address) as channel:
        method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(OTHER)
        assert method(b"") == b"None"
    assert server.stop(1)


def test_a_handler_learns_that_nobody_waits(start: Start) -> None:
    """While it runs."""
    begun, seen = threading.Event(), threading.Event()

    def wait(_body: bytes, call: Call) -> bytes:
        begun.set()
        deadline = time.monotonic() + 10
        while call.is_active() and time.monotonic() < deadline:
            time.sleep(0.01)
        if not call.is_active():
            seen.set()
        return b""

    wire = start({OTHER: wait})
    future = wire.method(OTHER).future(b"")
    assert begun.wait(5)
    future.cancel()
    assert seen.wait(5)


@pytest.mark.parametrize("how", ["cancelled", "late", "gone"])
def test_a_call_that_nobody_waits_for_never_runs(start: Start, how: str) -> None:
    """Cancelled, past its deadline, or its client gone while it waited in the queue."""
    begun, release, ran = threading.Event(), threading.Event(), threading.Event()

    def hold(_body: bytes, _call: Call) -> bytes:
        begun.set()
        release.wait(10)
        return b""

    def run(body: bytes, _call: Call) -> bytes:
        ran.set()
        return body

    wire = start({OTHER: hold, "/test.Test/Run": run, ECHO: echo}, workers=1)
    holding = wire.method(OTHER).future(b"")
    assert begun.wait(5)
    own = grpc.insecure_channel(f"unix:{wire.path}", [("grpc.use_local_subchannel_pool", 1)])
    method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = own.unary_unary("/test.Test/Run")
    call = method.future(b"", timeout=0.3 if how == "late" else None)
    time.sleep(0.2)
    if how == "cancelled":
        call.cancel()
    if how == "gone":
        own.close()
    time.sleep(0.3)
    release.set()
    holding.result(timeout=5)
    assert wire.call(ECHO, b"x") == b"x"
    assert not ran.is_set()
    own.close()


# --- answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", range(1, 17))
def test_every_status_arrives(start: Start, code: int) -> None:
    """With message and details."""

    def refuse(_body: bytes, _call: Call) -> bytes:
        raise lightkeeper_wire.Status(code, "ä %", b"\x00\x01")

    with pytest.raises(grpc.RpcError) as caught:
        start({OTHER: refuse}).call(OTHER)
    assert (caught.value.code().value[0], caught.value.details()) == (code, "ä %")
    trailers = str(caught.value.trailing_metadata())
    assert r"key='grpc-status-details-bin', value=b'\x00\x01'" in trailers


def test_a_status_may_carry_metadata(start: Start) -> None:
    """Beside its own."""

    def refuse(_body: bytes, _call: Call) -> bytes:
        raise lightkeeper_wire.Status(5, "gone", trailing_metadata=[("why", "moved"), ("why-bin", b"\x00")])

    with pytest.raises(grpc.RpcError) as caught:
        start({OTHER: refuse}).call(OTHER)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert {("why", "moved"), ("why-bin", b"\x00")} <= set(caught.value.trailing_metadata())


@pytest.mark.parametrize(
    "parts",
    [[], [b""], [b"", b"one"], [bytes(8192), bytes(8193), b"end"], [memoryview(bytes(range(256)))[::1]] * 500],
    ids=["none", "empty", "one", "around what is copied", "many"],
)
def test_parts_arrive_as_one_message(start: Start, parts: list[bytes | memoryview]) -> None:
    """Of any number and size."""
    response = lightkeeper_wire.Response(parts)
    assert start({OTHER: lambda _body, _call: response}).call(OTHER) == b"".join(parts)


def test_a_part_lives_until_it_is_sent(start: Start) -> None:
    """Though its handler has forgotten it, and its maker may no longer resize it meanwhile."""
    made = bytearray(range(256)) * 10_000
    expected = bytes(made)
    answer = start({OTHER: lambda _body, _call: lightkeeper_wire.Response([memoryview(made)])}).call(OTHER)
    assert answer == expected


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "answer",
    [
        None,
        "text",
        bytearray(b"x"),
        lightkeeper_wire.Response(["text"]),  # type: ignore[list-item]  # what a handler might do by mistake
        lightkeeper_wire.Response([memoryview(bytes(10))[::2]]),
        *(
            lightkeeper_wire.Response([b""], **{kind: [pair]})  # type: ignore[arg-type]  # as above
            for kind in ("initial_metadata", "trailing_metadata")
            for pair in (
                ("Upper", "x"),
                ("with space", "x"),
                ("", "x"),
                ("grpc-status", "0"),
                ("content-type", "x"),
                ("line", "a\nb"),
                ("text-bin", "text"),
                ("bytes", b"bytes"),
                ("one",),
            )
        ),
    ],
)
def test_a_handler_that_returns_what_cannot_be_sent_is_a_fault(start: Start, answer: Any) -> None:
    """UNKNOWN for the client."""
    with pytest.raises(grpc.RpcError) as caught:
        start({OTHER: lambda _body, _call: answer}).call(OTHER)
    assert caught.value.code() is grpc.StatusCode.UNKNOWN


@pytest.mark.parametrize(
    ("change", "status"),
    [({"content-type": "application/json"}, b"415"), ({":method": "GET"}, b"405")],
)
def test_what_is_no_grpc_is_answered_as_http(start: Start, change: dict[str, str], status: bytes) -> None:
    """By HTTP's own status."""
    wire = start({ECHO: echo})
    with Peer(wire.path) as peer:
        headers = [(name, change.get(name, value)) for name, value in request_headers(ECHO)]
        peer.send(frame(http2.HEADERS, http2.END_HEADERS | http2.END_STREAM, 1, packed(headers)))
        block = headers_of(peer)
        assert status in block or _huffman_digits(status) in block


def _huffman_digits(text: bytes) -> bytes:
    """Return digits as HPACK's code packs them: 0 to 2 in five bits, the others in six."""
    codes = {**{48 + digit: f"{digit:05b}" for digit in range(3)}, **{51 + n: f"{0x19 + n:06b}" for n in range(7)}}
    bits = "".join(codes[byte] for byte in text)
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


@pytest.mark.parametrize(
    ("body", "more", "code"),
    [
        (b"", (), b"13"),
        (b"\x00\x00", (), b"13"),
        (message(b"abc")[:-1], (), b"13"),
        (message(b"abc") + b"d", (), b"13"),
        (message(b"abc") * 2, (), b"13"),
        (message(b"abc", compressed=1), (), b"13"),
        (message(b"abc", compressed=7), (), b"13"),
        (message(b"abc", compressed=1), (("grpc-encoding", "gzip"),), b"13"),
        (message(b"abc", compressed=1), (("grpc-encoding", "snappy"),), b"12"),
        (message(b"abc"), (("grpc-timeout", "soon"),), b"13"),
        (b"\x00\xff\xff\xff\xff", (), b"8"),
        (message(b"abc"), (("grpc-timeout", "0n"),), b"4"),
    ],
)
def test_a_malformed_call_is_refused(start: Start, body: bytes, more: tuple[tuple[str, str], ...], code: bytes) -> None:
    """With a status, and without reaching a handler; the connection stays."""
    reached = threading.Event()

    def run(body: bytes, _call: Call) -> bytes:
        reached.set()
        return body

    wire = start({OTHER: run, ECHO: echo})
    with Peer(wire.path) as peer:
        peer.call(1, OTHER, body, *more)
        block = headers_of(peer)
        assert code in block or _huffman_digits(code) in block
        peer.call(3, ECHO, message(b"fine"))
        while (data := peer.first(http2.DATA)) is not None and data.stream != 3:
            pass
        assert data is not None
        assert data.payload == message(b"fine")
    assert not reached.is_set()


# --- limits ----------------------------------------------------------------------------------------------------------


def test_calls_past_the_limit_are_refused(start: Start) -> None:
    """At once, while those before them go on."""
    release = threading.Event()

    def wait(_body: bytes, _call: Call) -> bytes:
        release.wait(10)
        return b"done"

    refusal = lightkeeper_wire.Status(8, "full", b"\x01\x02")
    wire = start({OTHER: wait}, max_calls=3, refusals={"too_many_calls": refusal})
    method = wire.method(OTHER)
    held = [method.future(b"") for _ in range(3)]
    time.sleep(0.2)
    with pytest.raises(grpc.RpcError) as caught:
        method(b"", timeout=5)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
    assert ("grpc-status-details-bin", b"\x01\x02") in caught.value.trailing_metadata()
    release.set()
    assert [call.result(timeout=5) for call in held] == [b"done"] * 3
    assert method(b"", timeout=5) == b"done"


def test_full_buffers_refuse_large_calls_and_take_small_ones(start: Start) -> None:
    """Until the calls that fill them are over."""
    release = threading.Event()

    def wait(_body: bytes, _call: Call) -> bytes:
        release.wait(10)
        return b"done"

    wire = start({OTHER: wait, ECHO: echo}, max_buffered_bytes=1_500_000)
    held = wire.method(OTHER).future(bytes(1_000_000))
    time.sleep(0.3)
    with pytest.raises(grpc.RpcError) as caught:
        wire.call(ECHO, bytes(1_000_000), timeout=5)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert wire.call(ECHO, bytes(50_000), timeout=5) == bytes(50_000)
    release.set()
    assert held.result(timeout=5) == b"done"
    assert wire.call(ECHO, bytes(1_000_000), timeout=5) == bytes(1_000_000)


def test_a_peer_that_says_nothing_is_closed(start: Start) -> None:
    """After the time for the preface."""
    wire = start({ECHO: echo}, handshake_seconds=0.3)
    with Peer(wire.path, hello=False) as peer:
        assert peer.is_closed()


def test_a_request_that_stalls_is_given_up(start: Start) -> None:
    """DEADLINE_EXCEEDED, after the time without a byte."""
    wire = start({ECHO: echo}, stall_seconds=0.3)
    with Peer(wire.path) as peer:
        peer.call(1, ECHO, message(b"abc")[:3], end=False)
        block = headers_of(peer)
        assert b"4" in block or _huffman_digits(b"4") in block


def test_a_connection_without_calls_is_closed(start: Start) -> None:
    """After the idle time; a client comes back by itself."""
    wire = start({ECHO: echo}, idle_seconds=0.2)
    assert wire.call(ECHO, b"x") == b"x"
    with Peer(wire.path) as peer:
        assert peer.first(http2.GOAWAY) is not None
        assert peer.is_closed()
    assert wire.call(ECHO, b"y", wait_for_ready=True) == b"y"


def test_a_connection_too_many_takes_the_place_of_the_quietest(start: Start) -> None:
    """So that silent ones keep nobody out."""
    wire = start({ECHO: echo}, max_connections=3)
    with ExitStack() as stack:
        silent = [stack.enter_context(Peer(wire.path)) for _ in range(10)]
        assert wire.call(ECHO, b"x", wait_for_ready=True, timeout=5) == b"x"
        assert silent[0].is_closed()


def test_a_client_that_resets_for_its_own_sake_is_closed(start: Start) -> None:
    """ENHANCE_YOUR_CALM."""
    wire = start({ECHO: echo}, max_resets=20, resets_per_second=1)
    with Peer(wire.path) as peer:
        for stream in range(1, 401, 2):
            peer.call(stream, ECHO, message(bytes(100))[:20], end=False)
            time.sleep(0.0005)
            if not peer.send(frame(http2.RST_STREAM, 0, stream, http2.CANCEL.to_bytes(4, "big"))):
                break
        goaway = peer.first(http2.GOAWAY)
        assert goaway is None or int.from_bytes(goaway.payload[4:8], "big") == 11
        assert peer.is_closed()


@pytest.mark.parametrize(
    "options",
    [
        {"workers": 0},
        {"workers": 1, "max_frame_bytes": 100},
        {"workers": 1, "stall_seconds": -1.0},
        {"workers": 1, "refusals": {"nonsense": lightkeeper_wire.Status(8)}},
    ],
)
def test_limits_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    """With a ValueError."""
    with pytest.raises(ValueError, match=r"must|needs|no refusal"):
        lightkeeper_wire.Server({}, **options)


# --- the frame boundary ----------------------------------------------------------------------------------------------

CALL = frame(http2.HEADERS, http2.END_HEADERS, 1, packed(request_headers(ECHO))) + frame(
    http2.DATA, http2.END_STREAM, 1, message(b"hello")
)
FRAMES = st.builds(
    frame,
    st.integers(0, 12),
    st.integers(0, 255),
    st.integers(0, 2**31 - 1) | st.integers(0, 5),
    st.binary(max_size=64),
)
MUTATION = st.tuples(st.integers(0, len(CALL) - 1), st.integers(0, 255))


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One server for all examples."""
    server = lightkeeper_wire.Server({ECHO: echo}, workers=2)
    path = tmp_path_factory.mktemp("fuzz") / "wire.sock"
    server.start(f"unix:{path}")
    yield path
    assert server.stop(5)


def still_answers(path: Path) -> bool:
    """Tell whether a well-behaved peer gets its answer."""
    with Peer(path) as peer:
        peer.send(CALL)
        answer = peer.first(http2.DATA)
        return answer is not None and answer.payload == message(b"hello")


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mutations=st.lists(MUTATION, max_size=8), cut=st.integers(0, len(CALL)))
def test_a_call_with_wrong_bytes_harms_nobody(fuzzed: Path, mutations: list[tuple[int, int]], cut: int) -> None:
    """Changed and cut anywhere."""
    data = bytearray(CALL)
    for position, value in mutations:
        data[position] = value
    with Peer(fuzzed) as peer:
        peer.send(bytes(data[:cut]))
        assert still_answers(fuzzed)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(frames=st.lists(FRAMES | st.just(CALL), max_size=12))
def test_frames_in_any_order_harm_nobody(fuzzed: Path, frames: list[bytes]) -> None:
    """Of any kind, with any flags, on any stream."""
    with Peer(fuzzed) as peer:
        peer.send(b"".join(frames))
        assert still_answers(fuzzed)
