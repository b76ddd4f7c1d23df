"""The listeners: sockets, TLS, HTTP and their limits; the home of aiohttp. What stands behind them is synchronous.

One event loop in a thread of its own reads requests; a pool of `WORKERS` threads answers them.

Invariants: a request is handed on whole, or not at all. A body beyond `BODY_LIMIT_BYTES` is refused before it is read;
headers, bodies and handshakes have `PATIENCE_SECONDS`; at most `WAITING_LIMIT` requests wait for a worker and at most
`CONNECTIONS_LIMIT` connections are open a listener: those beyond are answered as busy, or closed. So what a listener
holds is bounded: `WAITING_LIMIT` bodies, and a header's 8 KiB lines for each connection.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from lightkeeper.errors import (
    BodyTooLarge,
    CallAbandoned,
    ExtraMissing,
    HubOverloaded,
    HubRefusal,
    ListenerUnusable,
    RequestMalformed,
)
from lightkeeper.hub import status
from lightkeeper.hub.web import App, Request, Response

BODY_LIMIT_BYTES = 2 * 1024 * 1024
PATIENCE_SECONDS = 30.0
LINGER_SECONDS = 5.0
"""How long a refused body is still read and thrown away, so that its sender gets to read the answer."""

WORKERS = 8
WAITING_LIMIT = 128
CONNECTIONS_LIMIT = 4096
BACKLOG = 1024
STOP_SECONDS = 10.0

logger = logging.getLogger(__name__)

HandshakeFailed = Callable[[str, str], None]
"""What is told of a TLS handshake that failed: the client's address and why."""


@dataclass(frozen=True, slots=True)
class Listener:
    """One address and what stands behind it. Port 0 means any that is free."""

    name: str
    host: str
    port: int
    app: App
    tls: ssl.SSLContext | None = None
    on_handshake_failed: HandshakeFailed | None = None


class Server:
    """Listeners that are open until `stop`."""

    def __init__(self, listeners: list[Listener]) -> None:
        """Raises `ExtraMissing`."""
        try:
            import aiohttp.web
        except ImportError as error:
            raise ExtraMissing("the hub needs aiohttp, which is not installed", extra="hub") from error
        self._web: Any = aiohttp.web
        self._listeners = listeners
        self._loop = asyncio.new_event_loop()
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="hub")
        self._thread = threading.Thread(target=self._loop.run_forever, name="hub-http", daemon=True)
        self._open: list[_Open] = []

    def start(self) -> dict[str, int]:
        """Open every listener and return their ports by name. Raises `ListenerUnusable`, with none left open."""
        bound = []
        try:
            for listener in self._listeners:
                bound.append(_bind(listener))  # noqa: PERF401 - what was bound must be closed if the next cannot be
        except ListenerUnusable:
            for one in bound:
                one.close()
            self._pool.shutdown()
            self._loop.close()
            raise
        self._thread.start()
        for listener, one in zip(self._listeners, bound, strict=True):
            opened = _Open(listener, one, self._pool, self._web)
            asyncio.run_coroutine_threadsafe(opened.start(), self._loop).result()
            self._open.append(opened)
        return {listener.name: one.getsockname()[1] for listener, one in zip(self._listeners, bound, strict=True)}

    def stop(self) -> None:
        """Take no new connection, finish the calls under way, and end."""
        for opened in self._open:
            asyncio.run_coroutine_threadsafe(opened.stop(), self._loop).result()
        self._open.clear()
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._pool.shutdown()
        self._loop.close()


class _Open:
    """One listener at work; its methods run in the event loop."""

    def __init__(self, listener: Listener, bound: socket.socket, pool: ThreadPoolExecutor, web: Any) -> None:
        self._listener = listener
        self._socket = bound
        self._pool = pool
        self._web = web
        self._waiting = 0
        self._handshakes: set[asyncio.Task[None]] = set()
        self._accepting: asyncio.Task[None] | None = None
        self._server: Any = None

    async def start(self) -> None:
        self._server = self._web.Server(
            self._handle,
            access_log=None,
            logger=_Softened(logger, {"listener": self._listener.name}),
            keepalive_timeout=PATIENCE_SECONDS,
            lingering_time=LINGER_SECONDS,
            auto_decompress=False,
        )
        self._accepting = asyncio.create_task(self._accept())

    async def stop(self) -> None:
        if self._accepting is not None:
            self._accepting.cancel()
            with suppress(asyncio.CancelledError):
                await self._accepting
        self._socket.close()
        for task in self._handshakes:
            task.cancel()
        await asyncio.gather(*self._handshakes, return_exceptions=True)
        self._server.pre_shutdown()
        await self._server.shutdown(STOP_SECONDS)

    async def _accept(self) -> None:
        """Take connections one by one: asyncio's own server would swallow a handshake's failure."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(self._socket)
            except OSError as error:  # out of descriptors, or gone before it was taken
                logger.warning(
                    "connection_lost", extra={"listener": self._listener.name, "why": os.strerror(error.errno or 0)}
                )
                await asyncio.sleep(0.1)
                continue
            if len(self._server.connections) + len(self._handshakes) >= CONNECTIONS_LIMIT:
                connection.close()
                logger.warning(
                    "connection_refused", extra={"listener": self._listener.name, "limit": CONNECTIONS_LIMIT}
                )
                continue
            task = loop.create_task(self._begin(connection, str(address[0])))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    async def _begin(self, connection: socket.socket, remote: str) -> None:
        connection.setblocking(False)  # noqa: FBT003 - the name of the method says what is false
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tls = self._listener.tls
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._server, connection, ssl=tls, ssl_handshake_timeout=PATIENCE_SECONDS if tls else None
            )
        except (OSError, TimeoutError) as error:
            connection.close()
            why = getattr(error, "verify_message", "") or getattr(error, "reason", "") or str(error) or "closed"
            logger.warning("handshake_failed", extra={"listener": self._listener.name, "remote": remote, "why": why})
            if self._listener.on_handshake_failed is not None:
                await asyncio.get_running_loop().run_in_executor(
                    self._pool, self._listener.on_handshake_failed, remote, why
                )

    async def _handle(self, request: Any) -> Any:
        try:
            body = await _body(request)
            if self._waiting >= WAITING_LIMIT:
                raise HubOverloaded(f"{WAITING_LIMIT} calls wait already", limit=WAITING_LIMIT)
        except HubRefusal as error:
            logger.warning("request_refused", extra={"reason": error.reason, "remote": request.remote, **error.facts})
            answer = status.answer(error, "application/x-amz-json-1.1", data_plane=False)
            return self._response(answer, close=not isinstance(error, HubOverloaded))
        self._waiting += 1
        try:
            answer = await asyncio.get_running_loop().run_in_executor(
                self._pool, self._listener.app, _request(request, body)
            )
        finally:
            self._waiting -= 1
        return self._response(answer)

    def _response(self, answer: Response, *, close: bool = False) -> Any:
        response = self._web.Response(status=answer.status, body=answer.body, headers=answer.headers)
        if close:
            response.force_close()
        return response


async def _body(request: Any) -> bytes:
    """Return the whole body. Raises `BodyTooLarge`, `CallAbandoned`, `RequestMalformed`."""
    too_large = BodyTooLarge(f"a body has at most {BODY_LIMIT_BYTES} bytes", limit=BODY_LIMIT_BYTES)
    if (request.content_length or 0) > BODY_LIMIT_BYTES:
        raise too_large
    if not request.can_read_body:
        return b""
    read = bytearray()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for part in request.content.iter_any():
                read += part
                if len(read) > BODY_LIMIT_BYTES:
                    raise too_large
    except TimeoutError as error:
        raise CallAbandoned(f"the body did not arrive within {PATIENCE_SECONDS:.0f} seconds") from error
    except (ValueError, OSError) as error:
        raise RequestMalformed("the body's chunks cannot be read") from error
    return bytes(read)


def _request(request: Any, body: bytes) -> Request:
    headers: dict[str, list[str]] = {}
    for name, value in request.headers.items():
        headers.setdefault(name.lower(), []).append(value)
    path, _, query = request.raw_path.partition("?")
    tls = request.transport.get_extra_info("ssl_object") if request.transport else None
    certificate = tls.getpeercert(binary_form=True) if tls else None
    return Request(request.method, path, query, headers, body, request.remote or "", certificate)


def _bind(listener: Listener) -> socket.socket:
    try:
        if not 0 <= listener.port < 1 << 16:
            raise OSError(errno.EADDRNOTAVAIL, "there is no such port")  # noqa: TRY301 - one refusal for every cause
        bound = socket.create_server((listener.host, listener.port), backlog=BACKLOG, family=_family(listener.host))
    except OSError as error:
        why = error.strerror or str(error)
        raise ListenerUnusable(
            f"cannot listen on {listener.host} port {listener.port} ({listener.name}): {why}",
            listener=listener.name,
            address=f"{listener.host}:{listener.port}",
            cause=why,
        ) from error
    bound.setblocking(False)  # noqa: FBT003 - the name of the method says what is false
    return bound


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


class _Softened(logging.LoggerAdapter[logging.Logger]):
    """What aiohttp logs to: garbage from outside is one WARNING without a traceback."""

    def exception(self, msg: object, *args: object, exc_info: Any = None, **rest: Any) -> None:  # noqa: ARG002 - its base's
        """Log what cannot be read; faults of our own never come here, since no app raises."""
        why = str(exc_info).splitlines()[0][:200] if str(exc_info or "") else type(exc_info).__name__
        self.logger.warning("request_malformed", extra={**(self.extra or {}), "why": why})
