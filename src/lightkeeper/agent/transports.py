"""Which server carries the local API: the native wire or grpcio. Only the one that is chosen is imported."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from threading import Event
from typing import Protocol

from lightkeeper.config.values import Transport
from lightkeeper.errors import TransportMissing
from lightkeeper.transport.method import Caller, Method

log = logging.getLogger(__name__)


class ApiServer(Protocol):
    """A gRPC server on one address."""

    def start(self, address: str) -> int | None:
        """Bind and serve, and return the TCP port where there is one. Raises `SocketDenied`."""

    def stop(self, grace_seconds: float, hurry: Event | None = None) -> bool:
        """Take no new call, let those under way finish within the grace time, and tell whether all of them did."""


def chosen(
    wanted: Transport, *, token: str | None = None, find: Callable[[str], object | None] = find_spec
) -> Transport:
    """Return what `auto` comes to here. Raises `TransportMissing` where the native wire is asked for in vain.

    Calls that must carry a token come over TCP, which is grpcio's alone.
    """
    if token is not None:
        if wanted is Transport.NATIVE:
            raise TransportMissing("lightkeeper_transport is native, which serves Unix sockets alone")
        return Transport.GRPCIO
    native = find("lightkeeper_wire") is not None
    if wanted is Transport.NATIVE and not native:
        raise TransportMissing("lightkeeper_transport is native, but lightkeeper-wire is not installed")
    if wanted is Transport.AUTO:
        return Transport.NATIVE if native else Transport.GRPCIO
    return wanted


def made(
    wanted: Transport, make_one: Callable[[Transport], ApiServer], *, token: str | None = None
) -> tuple[ApiServer, Transport]:
    """Return the server that a configuration wants, and which it is. Raises `TransportMissing`.

    Where `auto` comes to a native wire that this release cannot use, such as an older one, grpcio serves instead, and
    a WARNING says so.
    """
    transport = chosen(wanted, token=token)
    try:
        return make_one(transport), transport
    except TransportMissing as fault:
        if wanted is not Transport.AUTO:
            raise
        log.warning(
            "native_wire_unusable",
            extra={"detail": fault.message, "next_step": "install the lightkeeper-wire of this release"},
        )
    return make_one(Transport.GRPCIO), Transport.GRPCIO


def load(transport: Transport) -> None:
    """Import what a server is made of, and make none."""
    if transport is Transport.NATIVE:
        import lightkeeper.transport.native_server
    else:
        import lightkeeper.transport.grpc_server  # noqa: F401  # its import is all that is wanted


def make(  # noqa: PLR0913  # every setting is named
    transport: Transport,
    methods: Mapping[str, Method],
    *,
    caller: Caller,
    worker_threads: int,
    max_message_bytes: int,
    compress_above_bytes: int | None = None,
    token: str | None = None,
) -> ApiServer:
    """Return a server. Raises `TransportMissing` where the native wire is not of this release.

    `caller` is who calls as far as the socket's rights tell; the native wire knows by itself.

    Answers above `compress_above_bytes` are compressed; None compresses none. With a `token`, calls without it are
    refused.
    """
    if transport is Transport.NATIVE:
        try:
            from lightkeeper.transport.native_server import NativeServer
        except ImportError as error:
            raise TransportMissing(f"the lightkeeper-wire that is installed cannot be used: {error}") from error
        return NativeServer(
            methods,
            worker_threads=worker_threads,
            max_message_bytes=max_message_bytes,
            compress_above_bytes=compress_above_bytes,
        )
    from lightkeeper.transport.grpc_server import GrpcServer

    return GrpcServer(
        methods,
        caller=caller,
        worker_threads=worker_threads,
        max_message_bytes=max_message_bytes,
        compress_above_bytes=compress_above_bytes,
        token=token,
    )
