"""Serves handlers of bytes over gRPC with grpcio.

Threads: `worker` threads run quick methods, `slow` ones run methods that may take seconds, so that any number of
loads under way leaves the quick ones alone. Calls wait in grpcio's queue when all are busy.

Invariants: at most `CALLS_LIMIT` calls are under way or waiting, the next is refused (RESOURCE_EXHAUSTED); a message
is at most `max_message_bytes`. Both refusals are grpcio's own, made before any code of ours runs, and carry no details.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import NoReturn

import grpc

from lightkeeper.errors import AgentError, SocketDenied
from lightkeeper.transport import endpoint, method, status
from lightkeeper.transport.method import Caller, Handler, Kind, Method, Reply
from lightkeeper.transport.open_streams import OpenStreams

log = logging.getLogger(__name__)

HURRY_POLL_SECONDS = 0.1
PING_INTERVAL_MS = 500
"""How often a client may ask whether the server is there; gRPC's own limit, five minutes, cuts off careful ones."""
JOIN_SECONDS = 1.0
"""How long threads whose calls are over get to end, once the grace time has passed."""

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class GrpcServer:
    """A gRPC server on one address."""

    def __init__(  # noqa: PLR0913  # every setting is named
        self,
        methods: Mapping[str, Method],
        *,
        caller: Caller,
        worker_threads: int,
        max_message_bytes: int,
        compress_above_bytes: int | None = None,
        token: str | None = None,
    ) -> None:
        """Take the methods by full path, and the caller: grpcio cannot tell who is at the other end of a socket.

        With a token, calls that do not carry it are refused.
        """
        self._workers = ThreadPoolExecutor(worker_threads, thread_name_prefix="worker")
        self._slow = ThreadPoolExecutor(method.SLOW_THREADS, thread_name_prefix="slow")
        self._streams = OpenStreams()
        self._server = grpc.server(
            self._workers,
            handlers=[_Methods(methods, _Behaviors(caller, self._slow, self._streams, compress_above_bytes), token)],
            options=[
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_ping_interval_without_data_ms", PING_INTERVAL_MS),
            ],
            maximum_concurrent_rpcs=method.CALLS_LIMIT,
        )

    def start(self, address: str) -> int:
        """Bind and serve, and return the port, where it is one of TCP. Raises `SocketDenied`."""
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise SocketDenied(f"{address} cannot be served", address=address) from error
        self._server.start()
        return port

    def stop(self, grace_seconds: float, hurry: Event | None = None) -> bool:
        """Take no new call, let those under way finish within the grace time, and tell whether all of them did.

        Once `hurry` is set, the grace time is over.
        """
        stopped = self._server.stop(grace_seconds)
        self._streams.end()
        while not stopped.wait(HURRY_POLL_SECONDS):
            if hurry and hurry.is_set():
                self._server.stop(0).wait()
        pools = (self._workers, self._slow, self._streams.threads)
        threads = [thread for pool in pools for thread in pool._threads]  # noqa: SLF001  # no other way to a bounded join
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)
        deadline = time.monotonic() + JOIN_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)


class _Methods(grpc.GenericRpcHandler):
    """Finds the handler of a call; a method nobody knows, and a caller without the token, get one that says so."""

    def __init__(self, methods: Mapping[str, Method], behaviors: _Behaviors, token: str | None) -> None:
        self._handlers = {path: behaviors.of(its) for path, its in methods.items()}
        self._unknown = behaviors.of(Method(method.unknown_method))
        self._unproven = behaviors.of(Method(method.unproven_caller))
        self._token = token

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        """Return the handler of a method's full path."""
        if self._token is not None and not endpoint.admits(handler_call_details.invocation_metadata, self._token):
            return self._unproven
        return self._handlers.get(handler_call_details.method, self._unknown)


class _Behaviors:
    """What grpcio calls for each method."""

    def __init__(
        self, caller: Caller, slow: ThreadPoolExecutor, streams: OpenStreams, compress_above_bytes: int | None
    ) -> None:
        self._caller = caller
        self._slow = slow
        self._streams = streams
        self._compress_above_bytes = compress_above_bytes

    def of(self, its: Method) -> grpc.RpcMethodHandler[bytes, bytes]:
        """Return a method's handler."""
        answer = its.handler
        streams = self._streams
        match its.kind:
            case Kind.UNARY:
                return self._unary(its)
            case Kind.WATCH:

                def watch(body: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
                    answers = streams.watch(context, lambda: self._answered(answer, body, context))
                    return _failing_as_ours(answers, context, answer)

                watch.experimental_thread_pool = streams.threads  # type: ignore[attr-defined]  # as for slow methods
                return grpc.unary_stream_rpc_method_handler(watch)
            case Kind.CONVERSATION:

                def converse(bodies: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
                    answers = streams.converse(context, bodies, lambda body: self._answered(answer, body, context))
                    return _failing_as_ours(answers, context, answer)

                converse.experimental_thread_pool = streams.threads  # type: ignore[attr-defined]  # as for slow methods
                return grpc.stream_stream_rpc_method_handler(converse)

    def _unary(self, its: Method) -> grpc.RpcMethodHandler[bytes, bytes]:
        handler = its.handler

        def behavior(body: bytes, context: grpc.ServicerContext) -> bytes:
            try:
                return self._answered(handler, body, context)
            except AgentError as error:
                _abort(context, error)
            except Exception:
                log.exception("call_failed", extra={"handler": handler.__qualname__})
                _abort(context, method.unforeseen())

        if its.slow:
            behavior.experimental_thread_pool = self._slow  # type: ignore[attr-defined]  # grpcio's own seam for slow methods
        return grpc.unary_unary_rpc_method_handler(behavior)

    def _answered(self, handler: Handler, body: bytes, context: grpc.ServicerContext) -> bytes:
        reply = handler(body, self._caller)
        if isinstance(reply, Reply):
            if reply.trailing_metadata:
                context.set_trailing_metadata(tuple(reply.trailing_metadata))
            if self._is_compressed(sum(memoryview(part).nbytes for part in reply.parts)):
                context.set_compression(grpc.Compression.Gzip)
            if reply.initial_metadata:
                context.send_initial_metadata(tuple(reply.initial_metadata))
            return b"".join(reply.parts)
        if self._is_compressed(len(reply)):
            context.set_compression(grpc.Compression.Gzip)
        return reply

    def _is_compressed(self, size_bytes: int) -> bool:
        return self._compress_above_bytes is not None and size_bytes > self._compress_above_bytes


def _failing_as_ours(answers: Iterator[bytes], context: grpc.ServicerContext, handler: Handler) -> Iterator[bytes]:
    try:
        yield from answers
    except AgentError as error:
        _abort(context, error)
    except grpc.RpcError:  # the client is gone, or the stream was ended from here
        raise
    except Exception:
        log.exception("call_failed", extra={"handler": handler.__qualname__})
        _abort(context, method.unforeseen())


def _abort(context: grpc.ServicerContext, error: AgentError) -> NoReturn:
    failure = status.failure(error)
    context.set_trailing_metadata(((status.DETAILS_KEY, failure.details),))
    context.abort(_CODES[failure.code], failure.message)
