"""The yardstick: the least grpcio server that answers Predict with ONNX Runtime. No package, trust, lease or check.

Run as `python -m bench.bare_server SOCKET THREADS SPIN_MICROSECONDS WORKERS NAME=MODEL.onnx …`. It decodes with the
same generated messages as the agent, opens the models at its start, and is set up like the agent where both have the
choice: ONNX Runtime's threads and how long they spin, the number of workers, the size limit.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import onnxruntime

from lightkeeper.transport import agent_pb2 as wire

SERVICE = "AWS.SageMaker.Edge.Agent"
MESSAGE_LIMIT_BYTES = 64 * 1024 * 1024

Predict = Callable[[wire.PredictRequest, grpc.ServicerContext], wire.PredictResponse]


def open_model(path: str, threads: int, spin_microseconds: int) -> onnxruntime.InferenceSession:
    """Open a model with the agent's settings."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(spin_microseconds))
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def predict_with(sessions: Mapping[str, onnxruntime.InferenceSession]) -> Predict:
    """Return the server's only handler."""

    def predict(request: wire.PredictRequest, _context: grpc.ServicerContext) -> wire.PredictResponse:
        feed = {}
        for tensor in request.tensors:
            metadata = tensor.tensor_metadata
            feed[metadata.name.decode()] = np.frombuffer(tensor.byte_data, np.float32).reshape(metadata.shape)
        response = wire.PredictResponse()
        for output in sessions[request.name].run(None, feed):
            tensor = response.tensors.add(byte_data=output.tobytes())
            tensor.tensor_metadata.name = b"y"
            tensor.tensor_metadata.data_type = wire.FLOAT32
            tensor.tensor_metadata.shape.extend(output.shape)
        return response

    return predict


def serve(address: str, workers: int, predict: Predict) -> None:
    """Serve until SIGTERM."""
    handler = grpc.unary_unary_rpc_method_handler(
        predict, wire.PredictRequest.FromString, wire.PredictResponse.SerializeToString
    )
    server = grpc.server(
        ThreadPoolExecutor(workers), options=[("grpc.max_receive_message_length", MESSAGE_LIMIT_BYTES)]
    )
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, {"Predict": handler})])
    server.add_insecure_port(f"unix:{address}")
    server.start()
    signal.sigwait([signal.SIGTERM])
    server.stop(0)


def main(arguments: Sequence[str]) -> None:
    """Open the models and serve them."""
    address, threads, spin_microseconds, workers, *models = arguments
    named = dict(item.split("=", 1) for item in models)
    sessions = {name: open_model(path, int(threads), int(spin_microseconds)) for name, path in named.items()}
    serve(address, int(workers), predict_with(sessions))


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # for sigwait, before any thread is there
    main(sys.argv[1:])
