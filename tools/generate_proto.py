"""Generate the committed protobuf code from proto/agent.proto (`make proto`)."""

from __future__ import annotations

import sys
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "src" / "lightkeeper" / "transport"


def generate(into: Path) -> None:
    """Write `agent_pb2.py` and `agent_pb2.pyi` into a folder.

    No gRPC stubs: the agent serves raw bytes, and its client calls raw bytes. The messages live in a descriptor pool
    of their own: an application that imports its own generated `agent_pb2` beside `lightkeeper.client` would otherwise
    register the same names twice in the process's default pool, which protobuf refuses.
    """
    code = protoc.main(
        [
            "protoc",
            f"--proto_path={ROOT / 'proto'}",
            f"--python_out={into}",
            f"--pyi_out={into}",
            "agent.proto",
        ],
    )
    if code:
        sys.exit(code)
    module = into / "agent_pb2.py"
    shared, private = "_descriptor_pool.Default()", "_descriptor_pool.DescriptorPool()"
    text = module.read_text()
    if shared not in text:
        sys.exit(f"{module}: protoc no longer writes {shared}; see why a private pool is needed in this file")
    module.write_text(text.replace(shared, private))


if __name__ == "__main__":
    generate(TARGET)
