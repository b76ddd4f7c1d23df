"""The benchmarks: what the agent costs beside ONNX Runtime alone and beside a bare gRPC server. Run by `make bench`."""
