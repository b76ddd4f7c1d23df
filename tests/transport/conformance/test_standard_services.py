"""gRPC's own services, for its own tools: reflection and health, on every server."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

from lightkeeper.config.values import Transport
from lightkeeper.transport import CONTROL, SERVICE, method, reflection_pb2
from lightkeeper.transport.health import HEALTH, Health
from lightkeeper.transport.method import Caller, Kind, Method
from lightkeeper.transport.reflection import REFLECTION, Reflection
from tests.support.agents import AgentProcess
from tests.transport.conformance.conftest import NATIVE, Running, Serve
from tests.transport.conformance.serve import WORKERS, echo

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
TALK = "/test.Test/Talk"
WATCH = "/test.Test/Watch"
ECHO = "/test.Test/Echo"


def healthy(serve: Serve) -> tuple[Running, Health]:
    """Return a server with both services, and its health."""
    health = Health((SERVICE, CONTROL))
    return serve({**health.methods(), **Reflection().methods(), ECHO: Method(echo)}), health


def reason_of(error: grpc.RpcError) -> str:
    """Return the reason in a refusal's details."""
    carried = rpc_status.from_call(error)
    assert carried is not None
    info = error_details_pb2.ErrorInfo()
    assert carried.details[0].Unpack(info)
    return str(info.reason)


def ended_by_the_server(error: grpc.RpcError) -> bool:
    """Tell whether a stream ended as those of a stopping server do; grpcio can only cancel it."""
    return error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


# --- reflection ------------------------------------------------------------------------------------------------------


def ask(
    running: Running, *requests: reflection_pb2.ServerReflectionRequest
) -> list[reflection_pb2.ServerReflectionResponse]:
    """Ask all in one stream."""
    info: grpc.StreamStreamMultiCallable[bytes, bytes] = running.channel.stream_stream(
        f"/{REFLECTION}/ServerReflectionInfo"
    )
    answers = info((request.SerializeToString() for request in requests), timeout=20)
    return [reflection_pb2.ServerReflectionResponse.FromString(answer) for answer in answers]


def test_a_client_that_has_no_contract_learns_it_from_the_server(serve: Serve) -> None:
    """With grpcio's own client, which speaks the older name."""
    running, _ = healthy(serve)
    database = ProtoReflectionDescriptorDatabase(running.channel)
    assert set(database.get_services()) == {SERVICE, CONTROL, HEALTH, REFLECTION}
    pool = descriptor_pool.DescriptorPool(database)
    predict = pool.FindServiceByName(SERVICE).methods_by_name["Predict"]
    request = message_factory.GetMessageClass(predict.input_type)(name="m")
    assert [field.name for field in request.DESCRIPTOR.fields] == ["name", "tensors"]
    assert pool.FindServiceByName(HEALTH).methods_by_name["Watch"].server_streaming


def test_requests_are_answered_in_turn_and_what_is_not_there_is_said(serve: Serve) -> None:
    """In one stream, under the newer name."""
    asked = reflection_pb2.ServerReflectionRequest
    extension = reflection_pb2.ExtensionRequest(containing_type="a.B", extension_number=3)
    requests = [
        asked(host="here", list_services=""),
        asked(file_by_filename="agent.proto"),
        asked(file_containing_symbol=f"{SERVICE}.Predict"),
        asked(file_containing_symbol="AWS.SageMaker.Edge.Tensor"),
        asked(file_containing_symbol=f"{SERVICE}.Nothing"),
        asked(file_by_filename="nothing.proto"),
        asked(file_containing_extension=extension),
        asked(all_extension_numbers_of_type="AWS.SageMaker.Edge.Tensor"),
        asked(all_extension_numbers_of_type="a.B"),
        asked(),
    ]
    answers = ask(healthy(serve)[0], *requests)
    assert [answer.original_request for answer in answers] == requests
    assert answers[0].valid_host == "here"
    described = {bytes(answer.file_descriptor_response.file_descriptor_proto[0]) for answer in answers[1:4]}
    assert len(described) == 1
    errors = [answer.error_response.error_code for answer in answers if answer.HasField("error_response")]
    assert errors == [5, 5, 5, 5, 3]
    assert answers[7].all_extension_numbers_response.base_type_name == "AWS.SageMaker.Edge.Tensor"


def test_a_reflection_request_that_is_no_message_is_refused(serve: Serve) -> None:
    """As on every method."""
    running, _ = healthy(serve)
    info: grpc.StreamStreamMultiCallable[bytes, bytes] = running.channel.stream_stream(
        f"/{REFLECTION}/ServerReflectionInfo"
    )
    with pytest.raises(grpc.RpcError) as caught:
        list(info(iter([b"\xff\xff"]), timeout=20))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(caught.value) == "MESSAGE_MALFORMED"


# --- health ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", ["", SERVICE, CONTROL])
def test_a_service_that_takes_calls_is_serving(serve: Serve, service: str) -> None:
    """With grpcio's own client."""
    stub = health_pb2_grpc.HealthStub(healthy(serve)[0].channel)
    assert stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=20).status == SERVING


def test_a_service_that_nobody_knows_is_not_found(serve: Serve) -> None:
    """By Check; Watch says so and waits."""
    stub = health_pb2_grpc.HealthStub(healthy(serve)[0].channel)
    unknown = health_pb2.HealthCheckRequest(service="a.B")
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(unknown, timeout=20)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert reason_of(caught.value) == "SERVICE_UNKNOWN"
    watch = stub.Watch(unknown, timeout=20)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    watch.cancel()


def test_who_watches_is_told_when_the_agent_begins_to_stop(serve: Serve) -> None:
    """While a call is still under way; Check says the same as long as anybody can ask."""
    running, health = healthy(serve)
    stub = health_pb2_grpc.HealthStub(running.channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=30)
    assert next(watch).status == SERVING
    health.stop_serving()
    assert stub.Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=20).status == NOT_SERVING
    assert running.server.stop(10)
    assert next(watch).status == NOT_SERVING
    with pytest.raises(grpc.RpcError) as caught:
        next(watch)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert reason_of(caught.value) == "AGENT_STOPPING"


# --- streams that stay open ------------------------------------------------------------------------------------------


def watching(running: Running, channel: grpc.Channel | None = None) -> Iterator[bytes]:
    """Open a watch, and see its first answer."""
    calls: grpc.UnaryStreamMultiCallable[bytes, bytes] = (channel or running.channel).unary_stream(WATCH)
    answers = calls(b"now", timeout=60)
    assert next(answers) == b"now"
    return answers


def test_each_message_of_a_conversation_waits_for_the_one_before(serve: Serve) -> None:
    """However quickly they come, and of any size."""
    running = serve({TALK: Method(echo, kind=Kind.CONVERSATION)})
    bodies = [bytes([number]) * size for number, size in enumerate([0, 1, 70_000, 3, 1_000_000, 0, 16_384, 5])]
    talk: grpc.StreamStreamMultiCallable[bytes, bytes] = running.channel.stream_stream(TALK)
    assert list(talk(iter(bodies), timeout=30)) == bodies
    assert list(talk(iter(()), timeout=30)) == []


def test_streams_past_the_limit_are_refused_and_one_that_ends_makes_room(serve: Serve) -> None:
    """With details; other calls are served."""
    running = serve({WATCH: Method(echo, kind=Kind.WATCH), ECHO: Method(echo)})
    open_ones = [watching(running) for _ in range(method.OPEN_STREAMS_LIMIT)]
    with pytest.raises(grpc.RpcError) as caught:
        watching(running)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert reason_of(caught.value) == "CALLS_TOO_MANY"
    assert running.method(ECHO)(b"x", timeout=20) == b"x"
    open_ones[0].cancel()  # type: ignore[attr-defined]  # a call is more than an iterator
    deadline = time.monotonic() + 20
    while True:
        try:
            watching(running)
            break
        except grpc.RpcError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_open_streams_hold_no_worker(serve: Serve) -> None:
    """More of them than there are workers."""
    running = serve({WATCH: Method(echo, kind=Kind.WATCH), ECHO: Method(echo)})
    watches = [watching(running) for _ in range(2 * WORKERS)]
    assert running.method(ECHO)(b"x", timeout=20) == b"x"
    assert len(watches) == 2 * WORKERS


def test_a_server_does_not_wait_for_open_streams(serve: Serve) -> None:
    """They end at once, whatever was granted."""
    running = serve({WATCH: Method(echo, kind=Kind.WATCH), TALK: Method(echo, kind=Kind.CONVERSATION)})
    watch = watching(running)
    silence = threading.Event()

    def slowly() -> Iterator[bytes]:
        yield b"hello"
        silence.wait(30)

    calls: grpc.StreamStreamMultiCallable[bytes, bytes] = running.channel.stream_stream(TALK)
    talk = calls(slowly(), timeout=60)
    assert next(talk) == b"hello"
    started = time.monotonic()
    assert running.server.stop(30)
    assert time.monotonic() - started < 10
    assert next(watch) == b"now"
    for stream in (watch, talk):
        with pytest.raises(grpc.RpcError) as caught:
            next(stream)
        assert ended_by_the_server(caught.value)
    silence.set()


def test_a_stream_past_its_deadline_ends(serve: Serve) -> None:
    """Though nothing happens on it."""
    running = serve({WATCH: Method(echo, kind=Kind.WATCH)})
    calls: grpc.UnaryStreamMultiCallable[bytes, bytes] = running.channel.unary_stream(WATCH)
    answers = calls(b"now", timeout=0.5)
    with pytest.raises(grpc.RpcError) as caught:
        list(itertools.islice(answers, 2))
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_handler_that_fails_in_a_conversation_ends_it(serve: Serve) -> None:
    """After the answers that went before."""
    said: list[str] = []

    def second_fails(body: bytes, _caller: Caller) -> bytes:
        said.append(body.decode())
        if len(said) == 2:
            raise ZeroDivisionError("a secret")
        return body

    talk: grpc.StreamStreamMultiCallable[bytes, bytes] = serve(
        {TALK: Method(second_fails, kind=Kind.CONVERSATION)}
    ).channel.stream_stream(TALK)
    answers = talk(iter([b"1", b"2", b"3"]), timeout=20)
    assert next(answers) == b"1"
    with pytest.raises(grpc.RpcError) as caught:
        next(answers)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert reason_of(caught.value) == "UNEXPECTED"
    assert said == ["1", "2"]


# --- the agent -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [NATIVE, pytest.param(Transport.GRPCIO, id="grpcio")])
def test_an_agent_describes_itself_and_tells_its_health(wanted: Transport, authority: Path, tmp_path: Path) -> None:
    """Until it stops, which who watches is told."""
    agent = AgentProcess(tmp_path, authority / "certs", settings={"lightkeeper_transport": wanted})
    agent.wait_until_started()
    with grpc.insecure_channel(f"unix:{agent.socket}") as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        pool = descriptor_pool.DescriptorPool(database)
        listing = pool.FindServiceByName(SERVICE).methods_by_name["ListModels"]
        request, response = map(message_factory.GetMessageClass, (listing.input_type, listing.output_type))
        call = channel.unary_unary(
            f"/{SERVICE}/ListModels",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        assert len(call(request(), timeout=20).models) == 0
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=60)
        assert next(watch).status == SERVING
        assert agent.stop() == 0
        assert next(watch).status == NOT_SERVING
