"""ONNX models through ONNX Runtime: the only file that imports `onnxruntime`, and only when a model is opened.

Owns how sessions are set up (the reasons and the numbers: docs/adr/0003-onnx-runtime-settings.md), which inputs and
outputs the local API can carry, and what ONNX Runtime's errors mean to the agent.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from lightkeeper.errors import (
    AgentError,
    InputRejected,
    MemoryShort,
    ModelOutOfMemory,
    ModelRunFailed,
    ModelTypeUnsupported,
    ModelUnreadable,
)
from lightkeeper.resources import give_back_memory
from lightkeeper.runtimes.base import Array, RuntimeOptions
from lightkeeper.tensor import DYNAMIC, DataType, TensorMetadata

LOG_FATAL = 4
"""ONNX Runtime's own log, which goes to stderr, keeps silent below this severity: its errors come as exceptions."""

SPIN_MICROSECONDS = 50
"""How long a thread of a session waits for more work in a busy loop before it sleeps.

ONNX Runtime's own figure keeps a whole processor busy for a camera that asks twenty times a second; no spinning at all
makes each of a model's parallel steps wait for a thread to wake.
"""

OPENING_BYTES = 16 << 20
"""What the first session takes whatever its model, measured 13 MiB."""

MODEL_FILE_COPIES = 2
"""How often a model file is in memory while it is opened: parsed, and packed for the processor; measured 1.97."""

LONGEST_REASON = 400
"""Characters of ONNX Runtime's text that an error quotes."""

_DATA_TYPES = {
    "tensor(uint8)": DataType.UINT8,
    "tensor(int16)": DataType.INT16,
    "tensor(int32)": DataType.INT32,
    "tensor(int64)": DataType.INT64,
    "tensor(float16)": DataType.FLOAT16,
    "tensor(float)": DataType.FLOAT32,
    "tensor(double)": DataType.FLOAT64,
}
_OPTIONAL = re.compile(r"optional\((.*)\)")
_NOISE = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : "  # the status code, which the error's class tells
    r"|Load model from .*? failed:\s*"  # a path of the agent's own
    r"|Non-zero status code returned while running "
    r"|/\S+:\d+ [^()]*\([^()]*\)(?: const)?(?: \[with [^]]*\])? "  # where in ONNX Runtime's source
    r"|\w+\.(?:cc|h):\d+ [\w:]+ "  # the same, shorter
    r"|Please fix either the inputs/outputs or the model\."
)
_OUT_OF_MEMORY = re.compile(r"Failed to allocate memory|bad_alloc|bad allocation|smaller than requested bytes")


class OnnxRuntime:
    """Opens `.onnx` files; external data lies beside them."""

    formats = frozenset({"onnx"})

    def __init__(self, options: RuntimeOptions) -> None:
        """Keep the options; `onnxruntime` is imported by the first `open`."""
        self._options = options

    def memory_bytes(self, model: Path) -> int:
        """Return about what opening takes at its peak; files beside the model count as its external data, once."""
        model_bytes = model.stat().st_size
        folder_bytes = sum(file.stat().st_size for file in model.parent.rglob("*") if file.is_file())
        return OPENING_BYTES + MODEL_FILE_COPIES * model_bytes + (folder_bytes - model_bytes)

    def open(self, model: Path) -> OnnxSession:
        """Open a model. External data that is not packed for the processor stays mapped from its file until `close`.

        Raises `ModelUnreadable`, `ModelTypeUnsupported` or `MemoryShort`.
        """
        onnxruntime = library()
        try:
            session = onnxruntime.InferenceSession(
                str(model),
                self._session_options(onnxruntime),
                providers=["CPUExecutionProvider"],
                enable_fallback=0,  # it prints, and opens the model a second time in the same way
                read_config_from_model=0,  # a model does not choose the agent's threads
            )
        except faults(onnxruntime) as fault:
            reason = _reason(fault)
            if _is_out_of_memory(fault):
                raise MemoryShort(f"no memory for {model.name}: {reason}", file=model.name) from fault
            raise ModelUnreadable(f"{model.name} cannot be opened: {reason}", file=model.name) from fault
        return OnnxSession(session, faults(onnxruntime))

    def _session_options(self, onnxruntime: ModuleType) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._options.threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = LOG_FATAL
        options.enable_mem_pattern = False
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN_MICROSECONDS))
        return options


class OnnxSession:
    """One open model. ONNX Runtime's `run` holds no lock and lets go of Python's while it computes."""

    def __init__(self, session: Any, faults: tuple[type[Exception], ...]) -> None:
        """Take a session of ONNX Runtime over, or raise `ModelTypeUnsupported`."""
        self.inputs, self.optional_inputs = _inputs(session)
        self.outputs = tuple(_metadata("output", node) for node in session.get_outputs())
        self._output_names = [output.name for output in self.outputs]
        self._session = session
        self._faults = faults

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """Run the model once; see `Session.run`."""
        # ONNX Runtime reads an array where it lies, at whatever address: only aligned ones are safe on every processor.
        feed = {name: array if array.flags.aligned else array.copy() for name, array in inputs.items()}
        try:
            outputs: list[Array] = self._session.run(self._output_names, feed)
        except self._faults as fault:
            raise _run_error(fault) from fault
        return outputs

    def close(self) -> None:
        """Free the model, and return its memory to the system."""
        self._session = None
        give_back_memory()


def library() -> ModuleType:
    """Return `onnxruntime`, silent and without telemetry."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read by the import, which else leaves a device's id in the user's home
    import onnxruntime

    onnxruntime.set_default_logger_severity(LOG_FATAL)
    onnxruntime.disable_telemetry_events()
    return onnxruntime  # type: ignore[no-any-return]  # the package has no types


def faults(onnxruntime: ModuleType) -> tuple[type[Exception], ...]:
    """Return what ONNX Runtime raises: its own exceptions have no common base, and its binding adds built-in ones."""
    own = vars(onnxruntime.capi.onnxruntime_pybind11_state).values()
    exceptions = (item for item in own if isinstance(item, type) and issubclass(item, Exception))
    return (*exceptions, MemoryError, RuntimeError, TypeError, ValueError)


def _inputs(session: Any) -> tuple[tuple[TensorMetadata, ...], tuple[TensorMetadata, ...]]:
    """Return the inputs a call must give and those it may give.

    The second are the initializers that a call may override, and the inputs of an optional type. One that the local
    API cannot carry is not offered: the model runs without it.
    """
    required, optional = [], []
    for node in session.get_inputs():
        inner = _OPTIONAL.fullmatch(node.type)
        if inner is None:
            required.append(_metadata("input", node))
        elif inner[1] in _DATA_TYPES:
            optional.append(TensorMetadata(node.name, _DATA_TYPES[inner[1]], _shape(node)))
    optional += [
        _metadata("input", node) for node in session.get_overridable_initializers() if node.type in _DATA_TYPES
    ]
    return tuple(required), tuple(optional)


def _metadata(kind: str, node: Any) -> TensorMetadata:
    data_type = _DATA_TYPES.get(node.type)
    if data_type is None:
        raise ModelTypeUnsupported(
            f"the model's {kind} {node.name!r} is of type {node.type}, which the local API cannot carry",
            tensor=node.name,
            given=node.type,
            expected=", ".join(known.name for known in DataType),
        )
    return TensorMetadata(node.name, data_type, _shape(node))


def _shape(node: Any) -> tuple[int, ...]:
    return tuple(size if isinstance(size, int) else DYNAMIC for size in node.shape)


def _run_error(fault: Exception) -> AgentError:
    reason = _reason(fault)
    if _is_out_of_memory(fault):
        return ModelOutOfMemory(f"the model ran out of memory: {reason}")
    if type(fault).__name__ == "InvalidArgument":
        return InputRejected(f"the model does not take this input: {reason}")
    return ModelRunFailed(f"the model failed while running: {reason}")


def _is_out_of_memory(fault: Exception) -> bool:
    return isinstance(fault, MemoryError) or _OUT_OF_MEMORY.search(str(fault)) is not None


def _reason(fault: Exception) -> str:
    """Return ONNX Runtime's own words on one line, without where in its source they were written."""
    words = " ".join(_NOISE.sub(" ", str(fault)).split()) or type(fault).__name__
    return words if len(words) <= LONGEST_REASON else f"{words[:LONGEST_REASON]}…"
