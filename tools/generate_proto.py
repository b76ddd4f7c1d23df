"""Generate the committed protobuf code from the contracts in proto/ (`make proto`)."""

from __future__ import annotations

import sys
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
CONTRACTS = ("agent", "control", "health", "reflection")
TARGET = ROOT / "src" / "lightkeeper" / "transport"


def generate(into: Path) -> None:
    """Write a contract's `…_pb2.py` and `…_pb2.pyi`, for each of them, into a folder.

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
            *(f"{contract}.proto" for contract in CONTRACTS),
        ],
    )
    if code:
        sys.exit(code)
    shared, private = "_descriptor_pool.Default()", "_descriptor_pool.DescriptorPool()"
    for contract in CONTRACTS:
        module = into / f"{contract}_pb2.py"
        text = module.read_text()
        if shared not in text:
            sys.exit(f"{module}: protoc no longer writes {shared}; see why a private pool is needed in this file")
        module.write_text(text.replace(shared, private))


if __name__ == "__main__":
    generate(TARGET)
