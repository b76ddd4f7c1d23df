"""ONNX models through the real ONNX Runtime."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper

from lightkeeper.errors import (
    AgentError,
    InputRejected,
    ModelOutOfMemory,
    ModelRunFailed,
    ModelTypeUnsupported,
    ModelUnreadable,
)
from lightkeeper.resources import give_back_memory
from lightkeeper.runtimes.base import Runtime, RuntimeOptions, Session, zeros
from lightkeeper.runtimes.onnx import OnnxRuntime
from lightkeeper.tensor import DataType, TensorMetadata
from tests.support import models
from tests.support.systems import posix_only

ELEMENTS = {
    DataType.UINT8: TensorProto.UINT8,
    DataType.INT16: TensorProto.INT16,
    DataType.INT32: TensorProto.INT32,
    DataType.INT64: TensorProto.INT64,
    DataType.FLOAT16: TensorProto.FLOAT16,
    DataType.FLOAT32: TensorProto.FLOAT,
    DataType.FLOAT64: TensorProto.DOUBLE,
}

Open = Callable[[bytes], Session]


@pytest.fixture
def runtime() -> Runtime:
    """A runtime as the agent makes it."""
    return OnnxRuntime(RuntimeOptions(threads=1))


@pytest.fixture
def opened(runtime: Runtime, tmp_path: Path) -> Open:
    """Opens the bytes of a model."""

    def open_bytes(model: bytes) -> Session:
        file = tmp_path / "model.onnx"
        file.write_bytes(model)
        return runtime.open(file)

    return open_bytes


def resident_bytes() -> int:
    """Return this process's resident memory."""
    return int(psutil.Process().memory_info().rss)


# --- types and shapes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data_type", DataType, ids=lambda data_type: data_type.name)
def test_a_tensor_of_each_type_comes_back_bit_for_bit(opened: Open, data_type: DataType) -> None:
    """Every type the wire has runs through a model unchanged, extremes included."""
    session = opened(models.identity(ELEMENTS[data_type], ("n",)))
    dtype: np.dtype[Any] = data_type.dtype
    if dtype.kind in "iu":
        given = np.array([np.iinfo(dtype).min, 0, 1, np.iinfo(dtype).max], dtype)
    else:
        given = np.array([-np.inf, np.nan, -0.0, np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal], dtype)
    assert session.inputs == (TensorMetadata("x", data_type, (-1,)),)
    assert session.outputs == (TensorMetadata("y", data_type, (-1,)),)
    (answer,) = session.run({"x": given})
    assert answer.dtype == dtype
    assert answer.tobytes() == given.tobytes()


@pytest.mark.parametrize(
    ("declared", "reported"),
    [((), ()), ((2, 3), (2, 3)), (("n", 3), (-1, 3)), (("n", "m"), (-1, -1)), ((None, 4), (-1, 4)), ((0,), (0,))],
)
def test_dimensions_without_a_size_are_reported_as_dynamic(
    opened: Open, declared: tuple[int | str, ...], reported: tuple[int, ...]
) -> None:
    """Words and blanks become -1; sizes, zero among them, stay."""
    session = opened(models.identity(TensorProto.FLOAT, declared))
    assert session.inputs[0].shape == reported
    (answer,) = session.run({"x": zeros(session.inputs[0])})
    assert answer.shape == zeros(session.inputs[0]).shape


def test_a_scalar_comes_back_as_an_array_without_dimensions(opened: Open) -> None:
    """A shape of () is one element, and no Python number."""
    (answer,) = opened(models.identity(TensorProto.FLOAT, ())).run({"x": np.array(2.5, np.float32)})
    assert isinstance(answer, np.ndarray)
    assert (answer.shape, float(answer)) == ((), 2.5)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0, 3)])
def test_an_empty_tensor_keeps_its_shape(opened: Open, shape: tuple[int, ...]) -> None:
    """A dimension of zero is a size like any other."""
    session = opened(models.identity(TensorProto.INT64, tuple(f"d{axis}" for axis in range(len(shape)))))
    (answer,) = session.run({"x": np.zeros(shape, np.int64)})
    assert answer.shape == shape
    assert answer.dtype == np.int64


def test_several_inputs_and_outputs_keep_the_models_order(opened: Open) -> None:
    """The answer lies in the order of `outputs`, whatever the order of the inputs in the call."""
    session = opened(models.sum_and_difference())
    assert [metadata.name for metadata in session.inputs] == ["a", "b"]
    total, difference = session.run({"b": np.array([1, 2], np.float32), "a": np.array([5, 7], np.float32)})
    assert (total.tolist(), difference.tolist()) == ([6, 9], [4, 5])


def test_an_initializer_with_a_default_is_an_optional_input(opened: Open) -> None:
    """A call may override the default, and the next call has it again."""
    session = opened(models.with_default(10))
    assert [metadata.name for metadata in session.inputs] == ["x"]
    assert session.optional_inputs == (TensorMetadata("bias", DataType.FLOAT32, (1,)),)
    x = np.array([1], np.float32)
    assert session.run({"x": x})[0].tolist() == [11]
    assert session.run({"x": x, "bias": np.array([5], np.float32)})[0].tolist() == [6]
    assert session.run({"x": x})[0].tolist() == [11]


def test_an_input_of_an_optional_type_may_be_left_out(opened: Open) -> None:
    """The model itself sees whether the input was given."""
    session = opened(models.with_optional())
    assert (session.inputs, session.optional_inputs) == ((), (TensorMetadata("maybe", DataType.FLOAT32, (-1,)),))
    assert session.run({})[0] == 0
    assert session.run({"maybe": np.zeros(3, np.float32)})[0] == 1


@pytest.mark.parametrize("model", [models.with_optional(TensorProto.STRING), models.with_optional(TensorProto.UINT16)])
def test_an_optional_input_that_the_wire_cannot_carry_is_not_offered(opened: Open, model: bytes) -> None:
    """The model can be used without it, so it is no reason to refuse the model."""
    session = opened(model)
    assert (session.inputs, session.optional_inputs) == ((), ())
    assert session.run({})[0] == 0


# --- models refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "kind", "name", "given"),
    [
        (models.identity(TensorProto.STRING), "input", "x", "tensor(string)"),
        (models.identity(TensorProto.BOOL), "input", "x", "tensor(bool)"),
        (models.identity(TensorProto.UINT16), "input", "x", "tensor(uint16)"),
        (models.identity(TensorProto.INT8), "input", "x", "tensor(int8)"),
        (models.identity(TensorProto.BFLOAT16), "input", "x", "tensor(bfloat16)"),
        (models.sequence_output(), "output", "pieces", "seq(tensor(float))"),
    ],
    ids=lambda value: value if isinstance(value, str) and "(" in value else "",
)
def test_a_model_is_refused_when_the_wire_cannot_carry_a_tensor(
    opened: Open, model: bytes, kind: str, name: str, given: str
) -> None:
    """The refusal names the tensor and its type."""
    with pytest.raises(ModelTypeUnsupported, match=re.escape(f"{kind} {name!r} is of type {given}")) as refusal:
        opened(model)
    assert refusal.value.facts["tensor"] == name
    assert refusal.value.facts["given"] == given


def test_a_model_that_is_not_one_is_refused_with_the_reason(opened: Open) -> None:
    """Garbage, nothing at all, and half a file are told apart from a model."""
    for content in (b"this is no model", b"", models.weighty(8, 8).SerializeToString()[:-100]):
        with pytest.raises(ModelUnreadable, match=r"model\.onnx cannot be opened: \S") as refusal:
            opened(content)
        assert "ONNXRuntimeError" not in refusal.value.message


def test_a_model_that_is_missing_is_refused(runtime: Runtime, tmp_path: Path) -> None:
    """A file that went away between verification and opening is a refusal too."""
    with pytest.raises(ModelUnreadable, match="File doesn't exist"):
        runtime.open(tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("opset", "ir_version", "reason"),
    [(999, 8, "Opset 999 is under development"), (17, 999, "Unsupported model IR version: 999")],
)
def test_a_model_newer_than_the_runtime_is_refused(opened: Open, opset: int, ir_version: int, reason: str) -> None:
    """The reason says which version is too new, without where in ONNX Runtime's source it was found."""
    made = onnx.load_from_string(models.identity())
    made.ir_version = ir_version
    made.opset_import[0].version = opset
    with pytest.raises(ModelUnreadable, match=reason) as refusal:
        opened(made.SerializeToString())
    assert "onnxruntime_src" not in refusal.value.message


def test_a_model_with_an_operator_nobody_knows_is_refused(opened: Open) -> None:
    """The operator's name is in the reason."""
    made = onnx.load_from_string(models.identity())
    made.graph.node[0].op_type = "Conjure"
    with pytest.raises(ModelUnreadable, match="No Op registered for Conjure"):
        opened(made.SerializeToString())


@pytest.mark.parametrize("fault", ["missing", "short", "outside"])
def test_a_model_is_refused_when_its_external_data_is_not_there(runtime: Runtime, tmp_path: Path, fault: str) -> None:
    """Weights that are missing, cut short or outside the model's folder are not read."""
    folder = tmp_path / "package"
    folder.mkdir()
    made = models.weighty(64, 64)
    models.save_with_external_data(made, folder / "model.onnx")
    weights = folder / "weights.bin"
    if fault == "missing":
        weights.unlink()
    elif fault == "short":
        weights.write_bytes(weights.read_bytes()[:1000])
    else:
        weights.rename(tmp_path / "weights.bin")
        made = onnx.load(folder / "model.onnx", load_external_data=False)
        for initializer in made.graph.initializer:
            initializer.external_data[0].value = "../weights.bin"
        (folder / "model.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(ModelUnreadable, match=r"weights\.bin|file_length: 1000") as refusal:
        runtime.open(folder / "model.onnx")
    assert not re.search(r"\.cc|\.h:", refusal.value.message)


# --- runs refused ----------------------------------------------------------------------------------------------------


def test_an_index_out_of_range_is_the_inputs_fault(opened: Open) -> None:
    """ONNX Runtime says which index, and so does the refusal; the model lives on."""
    session = opened(models.gather(rows=4))
    with pytest.raises(InputRejected, match=r"Gather node.*idx=7 must be within the inclusive range \[-4,3\]"):
        session.run({"index": np.array([7])})
    assert session.run({"index": np.array([3])})[0].tolist() == [3]


def test_a_shape_that_does_not_fit_fails_the_run(opened: Open) -> None:
    """What only the model's own arithmetic finds is a failed run, told without ONNX Runtime's source."""
    session = opened(models.reshape())
    with pytest.raises(ModelRunFailed, match=r"cannot be reshaped.*\{3\}, requested shape:\{7,1\}") as refusal:
        session.run({"x": np.zeros(3, np.float32), "shape": np.array([7, 1])})
    assert "onnxruntime_src" not in refusal.value.message
    assert "ONNXRuntimeError" not in refusal.value.message


def test_a_run_that_needs_more_memory_than_there_is_says_so(opened: Open) -> None:
    """The allocation is refused, not the process killed; the model lives on."""
    session = opened(models.memory_hog())
    with pytest.raises(ModelOutOfMemory, match="Failed to allocate memory"):
        session.run({"x": np.ones(1, np.float32), "shape": np.array([10**13])})
    assert session.run({"x": np.ones(1, np.float32), "shape": np.array([2])})[0].tolist() == [1, 1]


def test_nothing_is_written_to_stdout_or_stderr_by_models_that_fail(tmp_path: Path) -> None:
    """ONNX Runtime's own log would litter the agent's: its faults come as errors alone."""
    (tmp_path / "bad.onnx").write_bytes(b"bad")
    (tmp_path / "gather.onnx").write_bytes(models.gather())
    program = """
import sys
from pathlib import Path
import numpy as np
from lightkeeper.errors import AgentError
from lightkeeper.runtimes.base import RuntimeOptions
from lightkeeper.runtimes.onnx import OnnxRuntime
runtime = OnnxRuntime(RuntimeOptions(threads=2))
refused = 0
for file in ("bad.onnx", "none.onnx", "gather.onnx"):
    try:
        runtime.open(Path(sys.argv[1], file)).run({"index": np.array([99])})
    except AgentError:
        refused += 1
sys.exit(refused)
"""
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"", b"")


# --- memory ----------------------------------------------------------------------------------------------------------


def aliasing_models() -> dict[str, bytes]:
    """Return models whose output could be the caller's own memory, were it not copied."""
    x = models.tensor("x", TensorProto.FLOAT, ("n",))
    y = models.tensor("y", TensorProto.FLOAT, ("n",))
    flat = helper.make_tensor("flat", TensorProto.INT64, [1], [-1])
    return {
        "identity": models.identity(),
        "reshape": models.model([helper.make_node("Reshape", ["x", "flat"], ["y"])], [x], [y], [flat]),
        "two outputs": models.model(
            [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Identity", ["y"], ["z"])],
            [x],
            [y, models.tensor("z", TensorProto.FLOAT, ("n",))],
        ),
        "input is output": models.model([helper.make_node("Identity", ["x"], ["y"])], [x], [x, y]),
    }


@pytest.mark.parametrize("name", aliasing_models())
def test_no_output_lies_in_the_callers_memory(opened: Open, name: str) -> None:
    """The input may be a shared segment that is gone when the answer is read."""
    session = opened(aliasing_models()[name])
    given = np.arange(1000, dtype=np.float32)
    given.flags.writeable = False
    outputs = session.run({"x": given})
    for output in outputs:
        assert not np.shares_memory(given, output)
        assert output.flags.c_contiguous
        assert output.tolist() == given.tolist()


def test_an_output_is_not_overwritten_by_the_next_run(opened: Open) -> None:
    """An answer may still be on its way while the next call runs."""
    session = opened(models.doubled((1, 4)))
    (first,) = session.run({"x": np.full((1, 4), 1, np.float32)})
    (second,) = session.run({"x": np.full((1, 4), 2, np.float32)})
    assert (first.tolist(), second.tolist()) == ([[2] * 4], [[4] * 4])


def test_a_large_read_only_input_is_read_where_it_lies(opened: Open) -> None:
    """A copy of 256 MiB would show as memory, at the latest at its peak."""
    session = opened(
        models.model(
            [helper.make_node("Shape", ["x"], ["y"])],
            [models.tensor("x", TensorProto.UINT8, ("n",))],
            [models.tensor("y", TensorProto.INT64, (1,))],
        )
    )
    given = np.zeros(256 << 20, np.uint8)
    given[::4096] = 1  # so that its pages exist
    given.flags.writeable = False
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the kernel's peak starts anew
    before = resident_bytes()
    assert session.run({"x": given})[0].tolist() == [256 << 20]
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    assert peak is not None
    assert int(peak[1]) * 1024 - before < 64 << 20


def test_an_input_at_an_odd_address_gives_the_right_answer(opened: Open) -> None:
    """Bytes out of a message lie at any address; not every processor reads a float there."""
    session = opened(models.doubled((1, 4)))
    values = np.array([[1, 2, 3, 4]], np.float32)
    buffer = np.frombuffer(b"\0" + values.tobytes(), np.uint8)
    askew = buffer[1:].view(np.float32).reshape(1, 4)
    assert not askew.flags.aligned
    assert session.run({"x": askew})[0].tolist() == [[2, 4, 6, 8]]


def test_a_strided_input_gives_the_right_answer(opened: Open) -> None:
    """A caller in the same process may hand in a view."""
    session = opened(models.identity(TensorProto.FLOAT, ("n", "m")))
    given = np.arange(12, dtype=np.float32).reshape(3, 4).T
    (answer,) = session.run({"x": given})
    assert answer.tolist() == given.tolist()
    assert answer.flags.c_contiguous


@posix_only
def test_external_data_may_be_deleted_after_opening(runtime: Runtime, tmp_path: Path) -> None:
    """The staged package is gone when a model runs, whether its weights were packed or stay mapped."""
    made = models.weighty(512, 256)
    folder = tmp_path / "package"
    folder.mkdir()
    models.save_with_external_data(made, folder / "model.onnx")
    session = runtime.open(folder / "model.onnx")
    shutil.rmtree(folder)
    x = np.zeros((1, 512), np.float32)
    x[0, 511] = 1
    product, row = session.run({"x": x, "index": np.array([511])})
    expected = (np.arange(511 * 256, 512 * 256, dtype=np.float32) % 251).reshape(1, 256)
    assert product.tolist() == expected.tolist()
    assert row.tolist() == expected.tolist()


def test_closing_gives_the_models_memory_back(runtime: Runtime, tmp_path: Path) -> None:
    """Sixty-four MiB of weights are resident while the model is open, and gone when it is closed."""
    file = tmp_path / "model.onnx"
    file.write_bytes(models.weighty(4096, 2048).SerializeToString())
    runtime.open(file).close()  # what stays after the first model stays once
    give_back_memory()
    before = resident_bytes()
    session = runtime.open(file)
    session.run({metadata.name: zeros(metadata) for metadata in session.inputs})
    assert resident_bytes() - before > 56 << 20
    session.close()
    assert resident_bytes() - before < 8 << 20


def test_memory_after_a_hundred_loads_is_that_after_ten(runtime: Runtime, tmp_path: Path) -> None:
    """Opening, running and closing leaves nothing behind."""
    file = tmp_path / "model.onnx"
    file.write_bytes(models.weighty(512, 512).SerializeToString())
    after_ten = 0
    for cycle in range(100):
        session = runtime.open(file)
        session.run({metadata.name: zeros(metadata) for metadata in session.inputs})
        session.close()
        if cycle == 9:
            after_ten = resident_bytes()
    assert resident_bytes() < after_ten * 1.05


def test_an_answer_outlives_its_model(opened: Open) -> None:
    """The last answer may be sent after the model is closed."""
    session = opened(models.doubled((1, 4)))
    (answer,) = session.run({"x": np.ones((1, 4), np.float32)})
    session.close()
    give_back_memory()
    assert answer.tolist() == [[2, 2, 2, 2]]


@posix_only
@pytest.mark.parametrize("beside", [False, True], ids=["weights inside", "weights beside"])
def test_the_estimate_covers_what_opening_takes(tmp_path: Path, beside: bool) -> None:
    """A process that opens a model of 128 MiB peaks below the estimate, and the estimate is not twice too much."""
    made = models.weighty(8192, 2048)
    file = tmp_path / "model.onnx"
    if beside:
        models.save_with_external_data(made, file)
    else:
        onnx.save(made, file)
    program = """
import sys
from pathlib import Path
import onnxruntime
from lightkeeper.runtimes.base import RuntimeOptions
from lightkeeper.runtimes.onnx import OnnxRuntime
def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
runtime = OnnxRuntime(RuntimeOptions(threads=1))
before = peak()
runtime.open(Path(sys.argv[1]))
print(runtime.memory_bytes(Path(sys.argv[1])), peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", program, file], capture_output=True, check=True, text=True)
    estimate, taken = map(int, done.stdout.split())
    assert taken <= estimate <= 2.2 * taken


# --- threads ---------------------------------------------------------------------------------------------------------


def test_many_threads_may_run_one_model_at_once(opened: Open) -> None:
    """Each caller gets the answer to its own question."""
    session = opened(models.doubled((1, 4)))
    wrong: list[Any] = []

    def call(number: int) -> None:
        given = np.full((1, 4), number, np.float32)
        for _ in range(200):
            (answer,) = session.run({"x": given})
            if answer.tolist() != [[2 * number] * 4]:
                wrong.append(answer)

    callers = [threading.Thread(target=call, args=(number,)) for number in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == []


def test_python_goes_on_while_a_model_runs(opened: Open) -> None:
    """A slow model must not hold up the answers of the others."""
    session = opened(models.slow())
    done = threading.Event()

    def run() -> None:
        session.run({"turns": np.array(200_000), "x": np.array(0, np.float32)})
        done.set()

    caller = threading.Thread(target=run)
    turns = 0
    caller.start()
    while not done.is_set():
        time.sleep(0.001)
        turns += 1
    caller.join()
    assert turns > 20  # were Python's lock held, the run would be one turn long


def test_models_may_be_opened_by_several_threads_at_once(runtime: Runtime, tmp_path: Path) -> None:
    """Two clients may load at the same moment."""
    answers: dict[int, float] = {}

    def open_and_run(number: int) -> None:
        file = tmp_path / f"{number}.onnx"
        file.write_bytes(models.with_default(number))
        for _ in range(10):
            session = runtime.open(file)
            answers[number] = float(session.run({"x": np.zeros(1, np.float32)})[0][0])
            session.close()

    openers = [threading.Thread(target=open_and_run, args=(number,)) for number in range(4)]
    for opener in openers:
        opener.start()
    for opener in openers:
        opener.join()
    assert answers == {number: float(number) for number in range(4)}


@posix_only
def test_a_session_has_no_more_threads_than_the_options_say(tmp_path: Path) -> None:
    """One thread is the caller's own; with one thread a session makes none."""
    (tmp_path / "model.onnx").write_bytes(models.doubled())
    program = """
import os, sys
from pathlib import Path
import onnxruntime
from lightkeeper.runtimes.base import RuntimeOptions
from lightkeeper.runtimes.onnx import OnnxRuntime
before = len(os.listdir("/proc/self/task"))
session = OnnxRuntime(RuntimeOptions(threads=int(sys.argv[2]))).open(Path(sys.argv[1], "model.onnx"))
print(len(os.listdir("/proc/self/task")) - before)
"""
    for threads in (1, 2, 3):
        command = [sys.executable, "-c", program, str(tmp_path), str(threads)]
        done = subprocess.run(command, capture_output=True, check=True, text=True)
        assert int(done.stdout) == threads - 1


def test_a_waiting_session_uses_no_processor_time(tmp_path: Path) -> None:
    """A thread that spins between the calls of a slow caller would warm the device for nothing."""
    (tmp_path / "model.onnx").write_bytes(models.weighty(2048, 2048).SerializeToString())
    program = """
import sys, time
from pathlib import Path
from lightkeeper.runtimes.base import RuntimeOptions, zeros
from lightkeeper.runtimes.onnx import OnnxRuntime
session = OnnxRuntime(RuntimeOptions(threads=2)).open(Path(sys.argv[1], "model.onnx"))
feed = {metadata.name: zeros(metadata) for metadata in session.inputs}
before = time.process_time()
for _ in range(20):
    session.run(feed)
    time.sleep(0.05)
print(time.process_time() - before)
"""
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, check=True, text=True)
    assert float(done.stdout) < 0.4  # twenty pauses of 50 ms spent spinning would be a whole second


@posix_only
def test_a_session_leaves_nothing_in_the_users_home(tmp_path: Path) -> None:
    """ONNX Runtime's telemetry, which would keep an id of the device there, never starts."""
    (tmp_path / "model.onnx").write_bytes(models.doubled())
    (tmp_path / "home").mkdir()
    program = """
import sys
from pathlib import Path
from lightkeeper.runtimes.base import RuntimeOptions
from lightkeeper.runtimes.onnx import OnnxRuntime
OnnxRuntime(RuntimeOptions(threads=1)).open(Path(sys.argv[1], "model.onnx"))
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, check=True, text=True, env={"HOME": str(tmp_path / "home")})
    assert list((tmp_path / "home").rglob("*")) == []
    assert done.stderr == ""


def test_onnxruntime_is_not_imported_before_a_model_is_opened() -> None:
    """Making the runtime costs a starting agent next to nothing."""
    program = """
import sys
from lightkeeper.runtimes.base import RuntimeOptions
from lightkeeper.runtimes.discovery import Runtimes
Runtimes(RuntimeOptions(threads=1)).for_format("onnx")
sys.exit("onnxruntime" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_every_refusal_has_a_reason_and_facts_without_paths(opened: Open, tmp_path: Path) -> None:
    """A refusal travels to the caller, who has no business with the agent's folders."""
    with pytest.raises(AgentError) as refusal:
        opened(b"this is no model")
    assert str(tmp_path) not in refusal.value.diagnostics()
