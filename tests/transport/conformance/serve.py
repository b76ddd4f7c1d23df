"""A server with one quick method, for tests that need it in a process of its own: `serve.py TRANSPORT SOCKET`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as the command does: a thread of numpy's would take the signal

from lightkeeper.agent import transports
from lightkeeper.agent.transports import ApiServer
from lightkeeper.config.values import Transport
from lightkeeper.transport.method import Caller, Method

LIMIT_BYTES = 4 * 1024 * 1024
WORKERS = 4
GRACE_SECONDS = 5


def make(transport: Transport, methods: Mapping[str, Method], *, compress_above_bytes: int | None = None) -> ApiServer:
    """Return a server as the agent makes it, with a small limit."""
    return transports.make(
        transport,
        methods,
        caller=Caller(uid=None),
        worker_threads=WORKERS,
        max_message_bytes=LIMIT_BYTES,
        compress_above_bytes=compress_above_bytes,
    )


def echo(body: bytes, _caller: Caller) -> bytes:
    """Answer with the request."""
    return body


def main() -> None:
    """Serve until SIGTERM."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # for sigwait, before any thread is there
    server = make(Transport(sys.argv[1]), {"/test.Test/Echo": Method(echo)})
    server.start(f"unix:{sys.argv[2]}")
    signal.sigwait([signal.SIGTERM])
    server.stop(GRACE_SECONDS)


if __name__ == "__main__":
    main()
