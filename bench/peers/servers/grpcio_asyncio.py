"""The least grpcio server on asyncio that answers Predict with ONNX Runtime.

Run as `python -m bench.peers.servers.grpcio_asyncio SOCKET THREADS SPIN_MICROSECONDS WORKERS NAME=MODEL.onnx …`; see
`bench.bare_server`, its sibling on threads, whose handler it runs. A quick model runs on the event loop, where a thread
would cost more than it; one that computes for milliseconds runs in a thread, or it would hold up every other call.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any

import grpc
import numpy as np

from bench.bare_server import MESSAGE_LIMIT_BYTES, SERVICE, open_model, predict_with
from lightkeeper.transport import agent_pb2 as wire

QUICK_SECONDS = 0.001
WARM_UP_RUNS = 5


async def serve(address: str, workers: int, sessions: dict[str, Any]) -> None:
    """Serve until SIGTERM."""
    answer = predict_with(sessions)
    quick = {name for name, session in sessions.items() if _run_seconds(session) < QUICK_SECONDS}
    loop, pool = asyncio.get_running_loop(), ThreadPoolExecutor(workers)

    async def predict(request: wire.PredictRequest, context: grpc.ServicerContext) -> wire.PredictResponse:
        if request.name in quick:
            return answer(request, context)
        return await loop.run_in_executor(pool, answer, request, context)

    handler = grpc.unary_unary_rpc_method_handler(
        predict, wire.PredictRequest.FromString, wire.PredictResponse.SerializeToString
    )
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", MESSAGE_LIMIT_BYTES)])
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, {"Predict": handler})])
    server.add_insecure_port(f"unix:{address}")
    await server.start()
    end = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, end.set)
    await end.wait()
    await server.stop(0)


def _run_seconds(session: Any) -> float:
    (model_input,) = session.get_inputs()
    feed = {model_input.name: np.zeros(model_input.shape, np.float32)}
    found = []
    for _ in range(WARM_UP_RUNS):
        started = perf_counter()
        session.run(None, feed)
        found.append(perf_counter() - started)
    return min(found)


def main(arguments: Sequence[str]) -> None:
    """Open the models and serve them."""
    address, threads, spin_microseconds, workers, *models = arguments
    named = dict(item.split("=", 1) for item in models)
    sessions = {name: open_model(path, int(threads), int(spin_microseconds)) for name, path in named.items()}
    asyncio.run(serve(address, int(workers), sessions))


if __name__ == "__main__":
    main(sys.argv[1:])
