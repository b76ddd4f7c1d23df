"""The same cases driven by grpcio, C++, Go and Node, over both servers: what one client sees, all must see."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from lightkeeper import errors
from lightkeeper.config.values import Transport
from lightkeeper.transport import SERVICE, health_pb2, status
from lightkeeper.transport.health import HEALTH, Health
from lightkeeper.transport.method import Caller, Handler, Kind, Method, Reply
from tests.support.clients import GO, LANGUAGES, REPORT_SECONDS, ROOT, SOURCES, ClientProgram, Metadata, Order, Report
from tests.support.relay import Relay
from tests.transport.conformance.conftest import NATIVE, Programs, Running, Serve, native_is_missing
from tests.transport.conformance.serve import LIMIT_BYTES, echo, make

ECHO = "/test.Test/Echo"
GROW = "/test.Test/Grow"
HOLD = "/test.Test/Hold"
REFUSE = "/test.Test/Refuse"
REFUSE_AT_LENGTH = "/test.Test/RefuseAtLength"
FAIL = "/test.Test/Fail"

TELL = "/test.Test/Tell"
FIRST = [("first", b"1"), ("first", b"2"), ("first-bin", b"\x00\xff")]
LAST = [("last", b"printable ~"), ("last-bin", b"\x01")]

TEXT = "100 % ünusable\nreally"
FACTS = {"tensor": "ä" * 300, "expected": "3"}
KEEPALIVE_MS = 1_000
GO_KEEPALIVE_MS = 10_000
"""The least that Go takes."""

OK = grpc.StatusCode.OK.value[0]
CANCELLED = grpc.StatusCode.CANCELLED.value[0]
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
NOT_FOUND = grpc.StatusCode.NOT_FOUND.value[0]
RESOURCE_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED.value[0]
INTERNAL = grpc.StatusCode.INTERNAL.value[0]
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE.value[0]

pytestmark = pytest.mark.timeout(400)  # the first test of a language builds its client


class Hold:
    """Calls that wait until they are released."""

    def __init__(self) -> None:
        self._begun = threading.Semaphore(0)
        self._release = threading.Event()

    def __call__(self, body: bytes, _caller: Caller) -> bytes:
        """Wait, and answer with the request."""
        self._begun.release()
        self._release.wait(REPORT_SECONDS)
        return body

    def wait(self) -> None:
        """Wait until one more call has begun."""
        assert self._begun.acquire(timeout=REPORT_SECONDS)

    def release(self) -> None:
        """Let all calls go on."""
        self._release.set()


def refuse(body: bytes, _caller: Caller) -> bytes:
    """Refuse for the reason that the request names."""
    raise errors.concrete_errors()[body.decode()](TEXT, **FACTS)


def refuse_at_length(_body: bytes, _caller: Caller) -> bytes:
    """Refuse with as much as the status table lets through."""
    raise errors.NameInvalid("x" * 10_000, **{f"fact{number}": "y" * 10_000 for number in range(20)})


def fail(_body: bytes, _caller: Caller) -> bytes:
    """Fail as nobody foresaw."""
    raise ZeroDivisionError("a secret")


def tell(_body: bytes, _caller: Caller) -> Reply:
    """Answer with metadata before and after."""
    first, last = (
        [(key, value if key.endswith("-bin") else value.decode()) for key, value in pairs] for pairs in (FIRST, LAST)
    )
    return Reply([b"to", b"ld"], initial_metadata=first, trailing_metadata=last)


def grow(body: bytes, _caller: Caller) -> bytes:
    """Answer with as many bytes as the request says."""
    return bytes(int(body))


@dataclass(frozen=True, slots=True)
class Pair:
    """A client, and the server at an address of its own."""

    client: ClientProgram
    running: Running
    hold: Hold

    @property
    def address(self) -> str:
        """The server's address."""
        return f"unix:{self.running.path}"

    def begin(self, method: str, body: bytes = b"", **fields: Any) -> Order:
        """Begin a call."""
        return self.client.begin_call(self.address, method, body, **fields)

    def call(self, method: str, body: bytes = b"", **fields: Any) -> Report:
        """Call and return the report."""
        return self.begin(method, body, **fields).result(REPORT_SECONDS)

    def answers(self, **fields: Any) -> bool:
        """Tell whether a call is answered."""
        return self.call(ECHO, b"still here", **fields).body == b"still here"


@pytest.fixture
def pair(serve: Serve, client: ClientProgram) -> Iterator[Pair]:
    """Each client with each server."""
    hold = Hold()
    methods: dict[str, Handler] = {
        ECHO: echo,
        GROW: grow,
        HOLD: hold,
        REFUSE: refuse,
        FAIL: fail,
        TELL: tell,
        **{path: method.handler for path, method in Health((SERVICE,)).methods().items() if method.kind is Kind.UNARY},
        REFUSE_AT_LENGTH: refuse_at_length,
    }
    made = Pair(client, serve({path: Method(handler) for path, handler in methods.items()}), hold)
    yield made
    hold.release()
    client.close(made.address)


# --- statuses --------------------------------------------------------------------------------------------------------


def test_every_refusal_arrives_with_code_text_and_facts(pair: Pair) -> None:
    """All that a call can raise, at once."""
    refusals = [error for error in errors.concrete_errors().values() if status.status_code(error) is not None]
    orders = [pair.begin(REFUSE, error.reason.encode()) for error in refusals]
    for error, order in zip(refusals, orders, strict=True):
        report = order.result(REPORT_SECONDS)
        assert (report.code, report.message) == (status.status_code(error), TEXT)
        next_step = {status.NEXT_STEP_KEY: error.next_step} if error.next_step else {}
        assert report.refusal == {"reason": error.reason, "domain": status.DOMAIN, "metadata": FACTS | next_step}


def test_the_longest_refusal_arrives(pair: Pair) -> None:
    """Within what each client takes as trailers."""
    report = pair.call(REFUSE_AT_LENGTH)
    assert report.refusal is not None
    assert report.refusal["reason"] == errors.NameInvalid.reason
    assert len(report.refusal["metadata"]) == status.FACTS_LIMIT + 1


def test_what_nobody_foresaw_is_internal_and_says_nothing(pair: Pair) -> None:
    """The next call is answered."""
    report = pair.call(FAIL)
    assert (report.code, "secret" in str(report)) == (INTERNAL, False)
    assert pair.answers()


def test_an_unknown_method_is_unimplemented(pair: Pair) -> None:
    """Details included."""
    for path in ("/test.Test/Missing", "/a.b.C/Predict", "/x/y"):
        report = pair.call(path)
        assert report.code == UNIMPLEMENTED
        assert report.refusal is not None
        assert report.refusal["reason"] == errors.MethodUnknown.reason


def test_health_is_told(pair: Pair) -> None:
    """Of the service, and of one that nobody knows."""
    report = pair.call(f"/{HEALTH}/Check", health_pb2.HealthCheckRequest(service=SERVICE).SerializeToString())
    assert report.code == OK
    assert health_pb2.HealthCheckResponse.FromString(report.body).status == health_pb2.HealthCheckResponse.SERVING
    unknown = pair.call(f"/{HEALTH}/Check", health_pb2.HealthCheckRequest(service="a.B").SerializeToString())
    assert unknown.code == NOT_FOUND
    assert unknown.refusal is not None
    assert unknown.refusal["reason"] == "SERVICE_UNKNOWN"


# --- messages --------------------------------------------------------------------------------------------------------


def test_a_message_of_any_size_up_to_the_limit_comes_and_goes(pair: Pair) -> None:
    """None, one frame's, many frames', and the limit's."""
    for size_bytes in (0, 1, 8_192, 8_193, 16_384, 65_535, 300_000, 2_000_000, LIMIT_BYTES):
        body = (bytes(range(256)) * (size_bytes // 256 + 1))[:size_bytes]
        report = pair.call(ECHO, body)
        assert (report.code, report.message) == (OK, "")
        assert report.body == body


def test_an_answer_may_be_larger_than_a_request(pair: Pair) -> None:
    """And larger than any window."""
    assert len(pair.call(GROW, str(2 * LIMIT_BYTES).encode()).body) == 2 * LIMIT_BYTES


def refused_as_too_large(report: Report, transport: Transport) -> bool:
    """Tell whether the server has refused a message by itself, which grpcio does without details."""
    reason = report.refusal and report.refusal["reason"]
    wanted = errors.MessageTooLarge.reason if transport is Transport.NATIVE else None
    return (report.code, reason) == (RESOURCE_EXHAUSTED, wanted)


def test_a_message_past_the_limit_is_refused_and_the_connection_stays(pair: Pair, transport: Transport) -> None:
    """By one byte, and by far."""
    held = pair.begin(HOLD, b"meanwhile")
    pair.hold.wait()
    for size_bytes in (LIMIT_BYTES + 1, 2 * LIMIT_BYTES):
        assert refused_as_too_large(pair.call(ECHO, bytes(size_bytes)), transport)
        assert pair.answers()
    pair.hold.release()
    assert held.result(REPORT_SECONDS).body == b"meanwhile"


def test_a_compressed_request_is_unpacked(pair: Pair, tmp_path: Path) -> None:
    """It crossed the socket small."""
    body = b"light " * 50_000
    with Relay(tmp_path / "relay.sock", pair.running.path) as relay:
        address = f"unix:{tmp_path}/relay.sock"
        assert pair.client.call(address, ECHO, body, gzip=True).body == body
        assert relay.request_bytes() < len(body) // 10
        pair.client.close(address)


def test_a_small_request_that_unpacks_past_the_limit_is_refused(
    pair: Pair, transport: Transport, tmp_path: Path
) -> None:
    """Counted as it is unpacked; the connection stays."""
    with Relay(tmp_path / "relay.sock", pair.running.path) as relay:
        address = f"unix:{tmp_path}/relay.sock"
        assert refused_as_too_large(pair.client.call(address, ECHO, bytes(4 * LIMIT_BYTES), gzip=True), transport)
        assert relay.request_bytes() < LIMIT_BYTES // 10
        assert pair.client.call(address, ECHO, b"x", gzip=True).body == b"x"
        pair.client.close(address)


def test_a_compressed_answer_is_unpacked(client: ClientProgram, transport: Transport, tmp_path: Path) -> None:
    """It crossed the socket small, since every one of the clients says that it takes gzip."""
    body = b"light " * 50_000
    server = make(transport, {ECHO: Method(echo)}, compress_above_bytes=1000)
    server.start(f"unix:{tmp_path}/agent.sock")
    address = f"unix:{tmp_path}/relay.sock"
    try:
        with Relay(tmp_path / "relay.sock", tmp_path / "agent.sock") as relay:
            assert client.call(address, ECHO, body).body == body
            assert relay.response_bytes() < len(body) // 10
            client.close(address)
    finally:
        assert server.stop(5)


METADATA = [("a", b"1"), ("a", b"2"), ("b-bin", b"\x00\xff\n"), ("c", b"with spaces"), ("long", b"x" * 4000)]


def test_metadata_of_every_kind_is_taken(pair: Pair) -> None:
    """Repeated, binary, empty and long."""
    order = pair.client.begin_call(pair.address, ECHO, b"x", metadata=[*METADATA, ("empty", b"")])
    assert order.result(REPORT_SECONDS).body == b"x"


def test_a_handlers_metadata_come_before_and_after_its_answer(pair: Pair) -> None:
    """Text, binary and repeated ones."""
    report = pair.call(TELL)
    assert (report.code, report.body) == (OK, b"told")
    assert joined(report.initial_metadata, "first") == joined(FIRST, "first")
    assert joined(report.trailing_metadata, "last") == joined(LAST, "last")


def joined(metadata: Metadata, start: str) -> dict[str, bytes]:
    """Return values by the names that begin so; those of one name become one, as HTTP has it and Node does."""
    found: dict[str, list[bytes]] = {}
    for name, value in metadata:
        if name.startswith(start):
            found.setdefault(name, []).append(value)
    return {name: b", ".join(values) for name, values in found.items()}


@pytest.mark.parametrize("transport", [NATIVE], indirect=True)
def test_metadata_arrives_as_it_was_sent(transport: Transport, client: ClientProgram, tmp_path: Path) -> None:
    """What the native wire tells a handler: the caller's, in their order, and the client's own name."""
    from lightkeeper_wire import Call, Server

    def tell(_body: bytes, call: Call) -> bytes:
        told = [(key, value if isinstance(value, bytes) else value.encode()) for key, value in call.metadata]
        return json.dumps([(key, value.hex()) for key, value in told]).encode()

    server = Server({ECHO: tell}, workers=1)
    address = server.start(f"unix:{tmp_path}/metadata.sock")
    report = client.begin_call(address, ECHO, metadata=METADATA).result(REPORT_SECONDS)
    told = [(key, bytes.fromhex(value)) for key, value in json.loads(report.body)]
    names = {key for key, _ in METADATA}
    assert sorted(pair for pair in told if pair[0] in names) == sorted(METADATA)
    assert [value for key, value in told if key == "a"] == [b"1", b"2"]
    assert dict(told)["user-agent"].startswith(b"grpc-")
    client.close(address)
    assert server.stop(1)


# --- time ------------------------------------------------------------------------------------------------------------


def test_a_call_past_its_deadline_fails_and_others_are_served(pair: Pair) -> None:
    """At the deadline, on the same connection."""
    started = time.monotonic()
    assert pair.call(HOLD, timeout_ms=300).code == DEADLINE_EXCEEDED
    assert time.monotonic() - started < REPORT_SECONDS / 2
    assert pair.answers(timeout_ms=20_000)


def test_a_call_that_its_client_cancels_leaves_the_others_alone(pair: Pair) -> None:
    """Those before it and those after it, on the same connection."""
    other = pair.begin(HOLD, b"other")
    cancelled = pair.begin(HOLD, b"cancelled")
    pair.hold.wait()
    pair.hold.wait()
    pair.client.cancel(cancelled)
    assert cancelled.result(REPORT_SECONDS).code == CANCELLED
    assert pair.answers()
    pair.hold.release()
    assert other.result(REPORT_SECONDS).body == b"other"


# --- many ------------------------------------------------------------------------------------------------------------


def test_hundreds_of_calls_at_once_on_one_connection_get_their_own_answers(pair: Pair) -> None:
    """More than a connection may have streams, of many sizes."""
    bodies = [bytes([number % 256]) * (number * 37) for number in range(500)]
    orders = [pair.begin(ECHO, body) for body in bodies]
    assert [order.result(REPORT_SECONDS).body for order in orders] == bodies


def test_many_connections_get_their_own_answers(pair: Pair) -> None:
    """Each with calls of its own."""
    bodies = [f"{connection}/{turn}".encode() for connection in range(32) for turn in range(10)]
    orders = [pair.begin(ECHO, body, connection=body.decode().split("/")[0]) for body in bodies]
    assert [order.result(REPORT_SECONDS).body for order in orders] == bodies


# --- connections -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["unix://{path}", "unix:{path}"], ids=["slashes", "plain"])
def test_every_form_of_the_address_is_served(pair: Pair, form: str) -> None:
    """Each client makes another authority of it."""
    address = form.format(path=pair.running.path)
    assert pair.client.call(address, ECHO, b"x").body == b"x"
    pair.client.close(address)


def test_a_stopping_server_finishes_its_calls_and_the_next_is_found(pair: Pair, transport: Transport) -> None:
    """New calls are turned away meanwhile; a client that waits reaches the next server over the same channel."""
    held = [pair.begin(HOLD, bytes(300_000)) for _ in range(3)]
    for _ in held:
        pair.hold.wait()
    with ThreadPoolExecutor(1) as pool:
        stopped = pool.submit(pair.running.server.stop, REPORT_SECONDS)
        try:
            while (code := pair.call(ECHO, b"x").code) != UNAVAILABLE:
                assert code == OK or (code == CANCELLED and transport is Transport.GRPCIO)  # the call it stops at
            assert not stopped.done()
        finally:
            pair.hold.release()
        assert stopped.result(REPORT_SECONDS)
    assert [order.result(REPORT_SECONDS).body for order in held] == [bytes(300_000)] * 3
    pair.running.path.unlink(missing_ok=True)
    successor = make(transport, {ECHO: Method(echo)})
    successor.start(pair.address)
    try:
        assert pair.answers(wait_for_ready=True, timeout_ms=50_000)
    finally:
        successor.stop(0)


def test_the_documented_versions_are_the_tested_ones() -> None:
    """Those that the project locks."""
    page = (ROOT / "docs" / "local-api.md").read_text()
    node = json.loads((SOURCES / "node" / "package-lock.json").read_text())["packages"]
    for name in ("@grpc/grpc-js", "@grpc/proto-loader"):
        assert f"`{name}` {node[f'node_modules/{name}']['version']}" in page
    for pattern, file in (
        (r"(google\.golang\.org/grpc) v(\S+)", SOURCES / "go" / "go.mod"),
        (r"(grpcio)==(\S+)", ROOT / "requirements" / "dev.txt"),
    ):
        (name, version), *_ = re.findall(pattern, file.read_text())
        assert f"`{name}` {version}" in page


def test_keep_alive_pings_are_answered(programs: Programs, tmp_path: Path) -> None:
    """Of every client by each server, for as long as a call takes: Go sends none before ten seconds."""
    hold = Hold()
    with ExitStack() as stack:
        relays, orders = [], []
        for transport in [Transport.GRPCIO] if native_is_missing() else [Transport.NATIVE, Transport.GRPCIO]:
            server = make(transport, {HOLD: Method(hold)})
            server.start(f"unix:{tmp_path}/{transport}.sock")
            stack.callback(server.stop, 0)
            for language in LANGUAGES.values():
                path = tmp_path / f"{transport}-{language.name}.sock"
                relays.append(stack.enter_context(Relay(path, tmp_path / f"{transport}.sock")))
                often = GO_KEEPALIVE_MS if language is GO else KEEPALIVE_MS
                orders.append(programs(language).begin_call(f"unix:{path}", HOLD, b"x", keepalive_ms=often))
                stack.callback(programs(language).close, f"unix:{path}")
        deadline = time.monotonic() + REPORT_SECONDS
        while not all(relay.pings() for relay in relays):
            assert time.monotonic() < deadline, [relay.pings() for relay in relays]
            time.sleep(0.1)
        hold.release()
        assert [order.result(REPORT_SECONDS).body for order in orders] == [b"x"] * len(orders)
