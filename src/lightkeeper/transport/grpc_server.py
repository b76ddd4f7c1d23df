"""Serves handlers of bytes over gRPC with grpcio.

Threads: `worker` threads run quick methods, `slow` ones run methods that may take seconds, so that any number of
loads under way leaves the quick ones alone. Calls wait in grpcio's queue when all are busy.

Invariants: at most `CALLS_LIMIT` calls are under way or waiting, the next is refused (RESOURCE_EXHAUSTED); a message
is at most `max_message_bytes`. Both refusals are grpcio's own and carry no details.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import NoReturn

import grpc

from lightkeeper.errors import AgentError, SocketDenied, Unexpected
from lightkeeper.transport import status
from lightkeeper.transport.servicer import CALLS_LIMIT, SLOW_THREADS, Caller, Handler, Method, unknown_method

log = logging.getLogger(__name__)

HURRY_POLL_SECONDS = 0.1
JOIN_SECONDS = 1.0
"""How long threads whose calls are over get to end, once the grace time has passed."""

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class GrpcServer:
    """A gRPC server on one address."""

    def __init__(
        self,
        methods: Mapping[str, Method],
        *,
        caller: Caller,
        worker_threads: int,
        max_message_bytes: int,
    ) -> None:
        """Take the methods by full path, and the caller: grpcio cannot tell who is at the other end of a socket."""
        self._workers = ThreadPoolExecutor(worker_threads, thread_name_prefix="worker")
        self._slow = ThreadPoolExecutor(SLOW_THREADS, thread_name_prefix="slow")
        self._server = grpc.server(
            self._workers,
            handlers=[_Methods(methods, caller, self._slow)],
            options=[
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
            ],
            maximum_concurrent_rpcs=CALLS_LIMIT,
        )

    def start(self, address: str) -> None:
        """Bind and serve. Raises `SocketDenied`."""
        try:
            self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise SocketDenied(f"{address} cannot be served", address=address) from error
        self._server.start()

    def stop(self, grace_seconds: float, hurry: Event | None = None) -> bool:
        """Take no new call, let those under way finish within the grace time, and tell whether all of them did.

        Once `hurry` is set, the grace time is over.
        """
        stopped = self._server.stop(grace_seconds)
        while not stopped.wait(HURRY_POLL_SECONDS):
            if hurry and hurry.is_set():
                self._server.stop(0).wait()
        threads = [thread for pool in (self._workers, self._slow) for thread in pool._threads]  # noqa: SLF001  # no other way to a bounded join
        for pool in (self._workers, self._slow):
            pool.shutdown(wait=False, cancel_futures=True)
        deadline = time.monotonic() + JOIN_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)


class _Methods(grpc.GenericRpcHandler):
    """Finds the handler of a call; a method nobody knows gets one that says so."""

    def __init__(self, methods: Mapping[str, Method], caller: Caller, slow: ThreadPoolExecutor) -> None:
        self._handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            path: grpc.unary_unary_rpc_method_handler(_behavior(method, caller, slow))
            for path, method in methods.items()
        }
        self._unknown: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(
            _behavior(Method(unknown_method), caller, slow)
        )

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        """Return the handler of a method's full path."""
        return self._handlers.get(handler_call_details.method, self._unknown)


def _behavior(
    method: Method,
    caller: Caller,
    slow: ThreadPoolExecutor,
) -> Callable[[bytes, grpc.ServicerContext], bytes]:
    handler: Handler = method.handler

    def behavior(body: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            return handler(body, caller)
        except AgentError as error:
            _abort(context, error)
        except Exception:
            log.exception("call_failed", extra={"handler": handler.__qualname__})
            _abort(context, Unexpected("the agent failed to answer; its log tells why"))

    if method.slow:
        behavior.experimental_thread_pool = slow  # type: ignore[attr-defined]  # grpcio's own seam for slow methods
    return behavior


def _abort(context: grpc.ServicerContext, error: AgentError) -> NoReturn:
    failure = status.failure(error)
    context.set_trailing_metadata(((status.DETAILS_KEY, failure.details),))
    context.abort(_CODES[failure.code], failure.message)
