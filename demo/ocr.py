"""How an application hands its models to the agent: rapidocr reads a page, and each of its models runs in Predict.

rapidocr reads in three stages: it finds the lines of text, turns those that stand upside down, and recognises what is
written. Each stage prepares a batch of pictures, calls its `session` with it, and makes sense of the answer. With a
`PredictSession` in the session's place the model runs in the agent; preparation and sense-making stay as they are.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rapidocr
from rapidocr import RapidOCR
from rapidocr.utils.output import RapidOCROutput

from lightkeeper.client import Client

MODELS = Path(rapidocr.__file__).parent / "models"


@dataclass(frozen=True, slots=True)
class Stage:
    """One of rapidocr's stages: its section in the configuration, the model it runs, and a shape that model takes."""

    section: str
    model: str
    version: str
    file: Path
    shape: tuple[int, ...]


STAGES = (
    Stage("Det", "text-detection", "6.0", MODELS / "PP-OCRv6_det_small.onnx", (1, 3, 64, 64)),
    Stage("Cls", "text-orientation", "2.0", MODELS / "ch_ppocr_mobile_v2.0_cls_mobile.onnx", (1, 3, 48, 192)),
    Stage("Rec", "text-recognition", "6.0", MODELS / "PP-OCRv6_rec_small.onnx", (1, 3, 48, 192)),
)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text, and how sure the recognition is of it: 0 to 1."""

    text: str
    confidence: float


class PredictSession:
    """Stands where a stage has its session, and remembers how many seconds each call took."""

    def __init__(self, client: Client, model: str) -> None:
        self.model = model
        self.seconds: list[float] = []
        self._client = client

    def __call__(self, batch: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """Run the model on one batch; these models have one input and one output."""
        started = time.perf_counter()
        outputs = self._client.predict(self.model, batch)
        self.seconds.append(time.perf_counter() - started)
        (output,) = outputs.values()
        return output


class PageReader:
    """Reads the text of a page: in this process at first, in the agent after `hand_over`."""

    def __init__(self, threads: int) -> None:
        """Take how many threads a model may use in this process."""
        parameters: dict[str, Any] = {
            "Global.log_level": "error",
            "EngineConfig.onnxruntime.intra_op_num_threads": threads,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
        parameters |= {f"{stage.section}.model_path": str(stage.file) for stage in STAGES}
        self._rapidocr = RapidOCR(params=parameters)

    def read(self, page: Path) -> list[Line]:
        """Return the lines of text on a page, from top to bottom."""
        result = self._rapidocr(page)
        if not isinstance(result, RapidOCROutput) or result.txts is None or result.scores is None:
            return []  # no line was found
        return [Line(text, score) for text, score in zip(result.txts, result.scores, strict=True)]

    def hand_over(self, client: Client) -> list[PredictSession]:
        """Put a `PredictSession` in the place of each stage's own session, which is gone then."""
        sessions = []
        for stage in STAGES:
            session = PredictSession(client, stage.model)
            getattr(self._rapidocr, f"text_{stage.section.lower()}").session = session
            sessions.append(session)
        return sessions
