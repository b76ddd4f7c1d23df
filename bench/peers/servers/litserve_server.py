"""LitServe over ONNX Runtime. Run as `python -m bench.peers.servers.litserve_server FOLDER PORT WORKERS NAME …`.

Raw float32 bytes in and out, at the path of the model's name.
"""
# Annotations are read at run time by LitServe and FastAPI: they must not be put off.

import sys
from pathlib import Path
from typing import Annotated, Any

import litserve
import numpy as np
from fastapi import Body, Response
from pydantic import AfterValidator

from bench.peers.catalog import Catalog

RAW = "application/octet-stream"


class Raw(bytes):
    """A request's body. LitServe formats every request for its log, shown or not: 4 ms for a picture's plain bytes."""

    __slots__ = ()

    def __str__(self) -> str:
        return f"{len(self)} bytes"


class Model(litserve.LitAPI):
    """One model, in worker processes of its own."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(api_path=f"/{name}")
        self._folder = folder
        self._name = name

    def setup(self, device: str) -> None:  # noqa: ARG002 -- LitServe's signature
        """Open the model in a worker."""
        catalog = Catalog.read(self._folder)
        self._shape = catalog.models[self._name].shape
        self._session = catalog.open(self._name)

    def decode_request(self, request: Annotated[bytes, AfterValidator(Raw), Body(media_type=RAW)]) -> Any:
        """Return the input where its bytes lie."""
        return np.frombuffer(request, np.float32).reshape(self._shape)

    def predict(self, x: Any) -> Any:
        """Run the model."""
        return self._session.run(None, {"x": x})[0]

    def encode_response(self, output: Any) -> Response:
        """Return the output's bytes."""
        return Response(output.tobytes(), media_type=RAW)


def main() -> None:
    """Serve until SIGTERM."""
    folder, port, workers, *names = sys.argv[1:]
    server = litserve.LitServer(
        [Model(Path(folder), name) for name in names],
        accelerator="cpu",
        workers_per_device=int(workers),
        fast_queue=True,
    )
    server.run(
        host="127.0.0.1",
        port=int(port),
        num_api_servers=1,
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )


if __name__ == "__main__":
    main()
