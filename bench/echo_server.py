"""A server that answers with the request: what carrying a call costs, and nothing else.

Run as `python -m bench.echo_server native|grpcio SOCKET WORKERS`.
"""

from __future__ import annotations

import signal
import sys

from lightkeeper.agent import transports
from lightkeeper.config.values import Transport
from lightkeeper.transport.method import Caller, Method

METHOD = "/AWS.SageMaker.Edge.Agent/Predict"
MESSAGE_LIMIT_BYTES = 64 * 1024 * 1024


def main() -> None:
    """Serve until SIGTERM."""
    transport, address, workers = sys.argv[1:]
    server = transports.make(
        Transport(transport),
        {METHOD: Method(lambda body, _caller: body)},
        caller=Caller(uid=None),
        worker_threads=int(workers),
        max_message_bytes=MESSAGE_LIMIT_BYTES,
    )
    server.start(f"unix:{address}")
    signal.sigwait([signal.SIGTERM])
    server.stop(0)


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # for sigwait, before any thread is there
    main()
