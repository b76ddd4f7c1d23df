"""BentoML over ONNX Runtime, for `bentoml serve`: BENCH_FOLDER has the catalog, BENCH_WORKERS how many.

Raw float32 bytes in and out, at the path of the model's name. A file is the one raw input that BentoML has; as a field
of a form it is taken as it is, as the whole body it is first read as text.
"""
# Annotations are read at run time by BentoML: they must not be put off.

import os
from pathlib import Path
from typing import Annotated, Any

import bentoml
import numpy as np
from bentoml.validators import ContentType
from starlette.responses import Response

from bench.peers.catalog import Catalog

RAW = "application/octet-stream"
File = Annotated[Path, ContentType(RAW)]


@bentoml.service(
    workers=int(os.environ["BENCH_WORKERS"]),
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
)
class Models:
    """All models, opened in every worker."""

    def __init__(self) -> None:
        catalog = Catalog.read(Path(os.environ["BENCH_FOLDER"]))
        self._models = catalog.models
        self._sessions = {name: catalog.open(name) for name in os.environ["BENCH_MODELS"].split(",")}

    @bentoml.api
    def small(self, x: File) -> File:
        """Answer with the small model."""
        return self._answer("small", x)

    @bentoml.api
    def image(self, x: File) -> File:
        """Answer with the picture's tiny model."""
        return self._answer("image", x)

    @bentoml.api
    def network(self, x: File) -> File:
        """Answer with the picture's real model."""
        return self._answer("network", x)

    def _answer(self, name: str, file: Path) -> Any:
        x = np.frombuffer(file.read_bytes(), np.float32).reshape(self._models[name].shape)
        (y,) = self._sessions[name].run(None, {"x": x})
        return Response(y.tobytes(), media_type=RAW)
