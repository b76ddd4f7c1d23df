"""What a runtime is to the agent: it opens a model file and gives back a session that runs it.

A runtime is a plug-in found by the entry point group `lightkeeper.runtimes` (see `discovery.py`); its class is called
with a `RuntimeOptions`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from lightkeeper.tensor import DYNAMIC, TensorMetadata

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class RuntimeOptions:
    """What the configuration says to every runtime. `threads` is at least 1 and within what the process may use."""

    threads: int


class Session(Protocol):
    """A model that is open. `run` may be called from any number of threads at once."""

    @property
    def inputs(self) -> Sequence[TensorMetadata]:
        """The inputs a call must give, in the model's order."""

    @property
    def optional_inputs(self) -> Sequence[TensorMetadata]:
        """The inputs a call may give (they have a default in the model)."""

    @property
    def outputs(self) -> Sequence[TensorMetadata]:
        """The outputs, in the model's order."""

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """Run the model once.

        `inputs` has every required input by name, each of the declared type and shape; the arrays may be read-only
        and are not kept. The answer has one C-contiguous array an output, in the order of `outputs`.

        Raises `InputRejected`, `ModelRunFailed` or `ModelOutOfMemory`.
        """

    def close(self) -> None:
        """Give the model's memory back. Called once, when no `run` is under way."""


class Runtime(Protocol):
    """Opens models of one or more formats."""

    def __init__(self, options: RuntimeOptions) -> None:
        """Keep the options; import nothing heavy yet."""

    @property
    def formats(self) -> frozenset[str]:
        """The manifest's `format` values this runtime takes, such as `onnx`."""

    def memory_bytes(self, model: Path) -> int:
        """Return about how much memory opening the model takes at its peak, from the sizes of its files alone."""

    def open(self, model: Path) -> Session:
        """Open the model's main file; files it refers to lie beside it, in a folder where nobody else writes.

        A runtime may map the files, so nobody may change them until `close`; they may be deleted after the return.

        Raises `ModelUnreadable`, `ModelTypeUnsupported` or `MemoryShort`.
        """


def zeros(metadata: TensorMetadata) -> Array:
    """Return an input of zeros for a warm-up; a dynamic dimension gets the size 1."""
    return np.zeros([1 if size == DYNAMIC else size for size in metadata.shape], metadata.data_type.dtype)
