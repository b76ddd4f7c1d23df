"""MLServer's custom runtime that calls ONNX Runtime: named by the settings of each model (`model-settings.json`)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from bench.peers.catalog import Catalog

QUICK_FLOATS = 1000


class OnnxModel(MLModel):
    """One model. A large input runs in a thread, so that the event loop goes on; a small one is done sooner."""

    async def load(self) -> bool:
        """Open the model."""
        catalog = Catalog.read(Path(self.settings.parameters.folder))
        self._quick = catalog.models[self.name].input().size < QUICK_FLOATS
        self._session = catalog.open(self.name)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer one request."""
        x = NumpyCodec.decode_input(payload.inputs[0])
        y = self._run(x) if self._quick else await asyncio.to_thread(self._run, x)
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", y)])

    def _run(self, x: Any) -> Any:
        return self._session.run(None, {"x": x})[0]
