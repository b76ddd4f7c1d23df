"""Measures ONNX Runtime's settings on this machine: what docs/adr/0003-onnx-runtime-settings.md chose from.

Every setting runs in a process of its own, so that neither thread pools nor memory of one is seen by the next. The
models are the three that the `rapidocr` wheel ships, and small ones made here. `make bench-onnx` prints the tables.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import psutil
from onnx import TensorProto, helper, numpy_helper

from lightkeeper.resources import give_back_memory, usable_cpus
from lightkeeper.runtimes.base import RuntimeOptions
from lightkeeper.runtimes.onnx import OnnxRuntime

THREADS = usable_cpus()
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Settings:
    """One column of a table."""

    shared_pool: bool = False
    spinning: bool = True
    spin_microseconds: int = 0  # 0: ONNX Runtime's own
    stop_spinning_after_run: bool = False
    arena: bool = True
    memory_pattern: bool = True
    arena_for_weights: bool = True
    prepacking: bool = True
    shrink: bool = False

    def label(self) -> str:
        """Return what differs from ONNX Runtime's own settings."""
        changed = {name: value for name, value in asdict(self).items() if value != getattr(Settings(), name)}
        words = {True: "on", False: "off"}
        return ", ".join(f"{name}={words.get(value, value)}" for name, value in changed.items()) or "default"

    def prepare(self) -> onnxruntime.SessionOptions:
        """Return options for sessions of this process."""
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = THREADS
        options.inter_op_num_threads = 1
        options.use_per_session_threads = not self.shared_pool
        options.enable_cpu_mem_arena = self.arena
        options.enable_mem_pattern = self.memory_pattern
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(self.spinning)))
        options.add_session_config_entry("session.force_spinning_stop", str(int(self.stop_spinning_after_run)))
        if self.spin_microseconds:
            options.add_session_config_entry("session.intra_op.spin_duration_us", str(self.spin_microseconds))
        options.add_session_config_entry(
            "session.use_device_allocator_for_initializers", str(int(not self.arena_for_weights))
        )
        options.add_session_config_entry("session.disable_prepacking", str(int(not self.prepacking)))
        return options

    def run_options(self) -> onnxruntime.RunOptions | None:
        """Return options for each run."""
        if not self.shrink:
            return None
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        return options


def picture_models() -> dict[str, Path]:
    """Return the models of the rapidocr wheel: det (10 MB), rec (21 MB), cls (0.6 MB)."""
    found = find_spec("rapidocr")
    if found is None or found.origin is None:
        sys.exit("this benchmark needs the package rapidocr (make setup installs it)")
    models = Path(found.origin).parent / "models"
    return {kind: next(models.glob(f"*_{kind}_*.onnx")) for kind in ("cls", "det", "rec")}


SHAPES = {"cls": (1, 3, 48, 192), "det": (1, 3, 320, 320), "rec": (1, 3, 48, 320)}


def small_model(floats: int = 64) -> bytes:
    """Return a model of one addition."""
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "one"], ["y"])],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [floats])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [floats])],
        [numpy_helper.from_array(np.ones(floats, np.float32), "one")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def big_model(mebibytes: int) -> onnx.ModelProto:
    """Return a model of matrix products whose weights take this much."""
    side = 1024  # 4 MiB a matrix
    generator = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(generator.random((side, side), np.float32), f"w{n}") for n in range(mebibytes // 4)
    ]
    nodes = [helper.make_node("MatMul", [f"x{n}", f"w{n}"], [f"x{n + 1}"]) for n in range(len(weights))]
    graph = helper.make_graph(
        nodes,
        "big",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, [1, side])],
        [helper.make_tensor_value_info(f"x{len(weights)}", TensorProto.FLOAT, [1, side])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


class Model:
    """A session with an input ready to run."""

    def __init__(self, settings: Settings, source: str | bytes, shape: tuple[int, ...]) -> None:
        """Open the model."""
        self.session = onnxruntime.InferenceSession(source, settings.prepare(), providers=["CPUExecutionProvider"])
        self.feed = {
            self.session.get_inputs()[0].name: np.random.default_rng(0).random(shape, np.float32),
        }
        self.options = settings.run_options()

    def __call__(self) -> None:
        """Run once."""
        self.session.run(None, self.feed, self.options)


def resident_bytes() -> int:
    """Return the process's resident memory."""
    return int(psutil.Process().memory_info().rss)


def latencies(call: Callable[[], object], seconds: float, pause_seconds: float = 0.0) -> list[float]:
    """Call for some time and return each call's seconds."""
    found = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
        if pause_seconds:
            time.sleep(pause_seconds)
    return found


def p50_p99(found: list[float]) -> tuple[float, float]:
    """Return the median and the 99th percentile, in milliseconds."""
    ordered = sorted(found)
    return statistics.median(ordered) * 1e3, ordered[int(len(ordered) * 0.99)] * 1e3


# --- what one process measures ---------------------------------------------------------------------------------------


def measure_threads(settings: Settings) -> dict[str, float]:
    """Latency alone and beside another model, and the processor time of a camera that asks 20 times a second."""
    paths = picture_models()
    cls, det = (Model(settings, str(paths[kind]), SHAPES[kind]) for kind in ("cls", "det"))
    small = Model(settings, small_model(), (64,))
    for model in (cls, det, small):
        for _ in range(5):
            model()
    found: dict[str, float] = {}
    found["small p50 us"] = p50_p99(latencies(small, 1))[0] * 1e3
    found["cls p50 ms"], found["cls p99 ms"] = p50_p99(latencies(cls, 3))
    found["det p50 ms"], _ = p50_p99(latencies(det, 3))

    together: dict[str, list[float]] = {}
    callers = [
        threading.Thread(target=lambda name=name, model=model: together.update({name: latencies(model, 5)}))
        for name, model in (("cls", cls), ("det", det))
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    found["both: cls p50 ms"], found["both: cls p99 ms"] = p50_p99(together["cls"])
    found["both: det p50 ms"], found["both: det p99 ms"] = p50_p99(together["det"])
    found["both: runs/s"] = sum(len(runs) for runs in together.values()) / 5

    before = time.process_time()
    paced = latencies(cls, 5, pause_seconds=0.05)
    found["20 Hz: cls cpu ms/call"] = (time.process_time() - before) / len(paced) * 1e3
    found["20 Hz: cls p50 ms"] = p50_p99(paced)[0]
    before = time.process_time()
    time.sleep(2)
    found["idle cpu %"] = (time.process_time() - before) / 2 * 100
    return found


def measure_many(settings: Settings) -> dict[str, float]:
    """Memory and threads of 30 small models, a model."""
    models = [Model(settings, small_model(), (64,))]
    models[0]()
    before = resident_bytes(), psutil.Process().num_threads()
    for _ in range(30):
        models.append(Model(settings, small_model(), (64,)))
        models[-1]()
    return {
        "small model KiB": (resident_bytes() - before[0]) / 30 / 1024,
        "threads a model": (psutil.Process().num_threads() - before[1]) / 30,
    }


def measure_memory(settings: Settings) -> dict[str, float]:
    """Memory of the three real models open and after runs, and over 100 loads and unloads."""
    paths = picture_models()
    start = resident_bytes()
    models = [Model(settings, str(paths[kind]), SHAPES[kind]) for kind in SHAPES]
    give_back_memory()
    found = {"3 models open MiB": (resident_bytes() - start) / MIB}
    for model in models:
        model()
    give_back_memory()
    found["3 models after a run MiB"] = (resident_bytes() - start) / MIB
    models[1].feed = {name: np.zeros((1, 3, 960, 960), np.float32) for name in models[1].feed}
    models[1]()
    models[1].feed = {}
    give_back_memory()
    found["after one large run MiB"] = (resident_bytes() - start) / MIB
    models.clear()
    del model
    give_back_memory()
    found["all closed MiB"] = (resident_bytes() - start) / MIB
    for cycle in range(1, 101):
        model = Model(settings, str(paths["det"]), SHAPES["det"])
        model()
        del model
        give_back_memory()
        if cycle in (10, 100):
            found[f"after {cycle} cycles MiB"] = (resident_bytes() - start) / MIB
    return found


def measure_arena(settings: Settings) -> dict[str, float]:
    """What a run costs with and without a pool of memory, from small to large, and what stays afterwards."""
    paths = picture_models()
    start = resident_bytes()
    found: dict[str, float] = {}
    for name, kind, shape in (
        ("cls", "cls", SHAPES["cls"]),
        ("det 320", "det", SHAPES["det"]),
        ("det 960", "det", (1, 3, 960, 960)),
    ):
        model = Model(settings, str(paths[kind]), shape)
        model()
        before = time.process_time()
        runs = latencies(model, 6)
        found[f"{name}: p50 ms"] = p50_p99(runs)[0]
        found[f"{name}: cpu ms/run"] = (time.process_time() - before) / len(runs) * 1e3
        model.feed = {}
        found[f"{name}: MiB kept after"] = (resident_bytes() - start) / MIB
    return found


def measure_load(settings: Settings) -> dict[str, float]:
    """Peak and settled memory of opening, as multiples of the bytes on disk; the peak is the kernel's own figure."""
    found: dict[str, float] = {}
    paths = picture_models()
    with tempfile.TemporaryDirectory() as folder:
        inline, beside = Path(folder, "inline.onnx"), Path(folder, "beside.onnx")
        onnx.save(big_model(256), inline)
        onnx.save(big_model(256), beside, save_as_external_data=True, location="weights.bin")
        Path(folder, "small.onnx").write_bytes(small_model())
        sources = {**paths, "256 MiB inline": inline, "256 MiB beside": beside}
        for name, path in sources.items():
            on_disk = path.stat().st_size + (Path(folder, "weights.bin").stat().st_size if path == beside else 0)
            gc.collect()
            give_back_memory()
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # start the peak anew
            before = resident_bytes()
            session = onnxruntime.InferenceSession(str(path), settings.prepare(), providers=["CPUExecutionProvider"])
            peak = _peak_bytes() - before
            give_back_memory()
            settled = resident_bytes() - before
            del session
            found[f"{name}: peak / file"] = peak / on_disk
            found[f"{name}: settled / file"] = settled / on_disk
    return found


def measure_call(_settings: Settings) -> dict[str, float]:
    """What Lightkeeper's session adds to ONNX Runtime's own, for a model that does next to nothing."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.onnx")
        file.write_bytes(small_model())
        ours = OnnxRuntime(RuntimeOptions(threads=1)).open(file)
    session = ours._session  # noqa: SLF001 -- what lies beneath is what is measured
    feed = {"x": np.zeros(64, np.float32)}

    def with_ort_values() -> None:
        value = onnxruntime.OrtValue.ortvalue_from_numpy(feed["x"])
        session.run_with_ort_values(["y"], {"x": value})[0].numpy()

    ways: dict[str, Callable[[], object]] = {
        "C binding, us": lambda: session._sess.run(["y"], feed, None),  # noqa: SLF001 -- same
        "session.run, us": lambda: session.run(["y"], feed),
        "run_with_ort_values, us": with_ort_values,
        "lightkeeper, us": lambda: ours.run(feed),
    }
    found = dict.fromkeys(ways, float("inf"))
    for _ in range(20):  # the ways in turn, the best of each: other programs only ever make it slower
        for name, way in ways.items():
            start = time.perf_counter()
            for _ in range(2000):
                way()
            found[name] = min(found[name], (time.perf_counter() - start) / 2000 * 1e6)
    return found


def _peak_bytes() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


MEASURES = {
    "threads": measure_threads,
    "arena": measure_arena,
    "many": measure_many,
    "memory": measure_memory,
    "load": measure_load,
    "call": measure_call,
}
TABLES: dict[str, list[Settings]] = {
    "threads": [
        Settings(),
        Settings(shared_pool=True),
        Settings(shared_pool=True, spinning=False),
        Settings(spinning=False),
        Settings(stop_spinning_after_run=True),
        Settings(spin_microseconds=200),
        Settings(spin_microseconds=50),
    ],
    "arena": [
        Settings(spin_microseconds=50),
        Settings(spin_microseconds=50, shrink=True),
        Settings(spin_microseconds=50, arena=False),
        Settings(spin_microseconds=50, memory_pattern=False),
    ],
    "many": [Settings(), Settings(shared_pool=True), Settings(shared_pool=True, arena=False)],
    "memory": [Settings(), Settings(arena_for_weights=False), Settings(shrink=True), Settings(arena=False)],
    "load": [Settings(), Settings(arena=False), Settings(prepacking=False)],
    "call": [Settings()],
}


def one(measure: str, settings: Settings) -> dict[str, Any]:
    """Run one measure in a process of its own."""
    command = [sys.executable, __file__, measure, json.dumps(asdict(settings))]
    answer: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return answer


def tables(names: list[str]) -> Iterator[str]:
    """Measure, and yield the lines of Markdown tables."""
    for name in names:
        columns = TABLES[name]
        results = [one(name, settings) for settings in columns]
        yield f"\n| {name} | " + " | ".join(settings.label() for settings in columns) + " |"
        yield "|---|" + "---|" * len(columns)
        for row in results[0]:
            yield f"| {row} | " + " | ".join(f"{result[row]:.2f}" for result in results) + " |"


def main(argv: list[str]) -> None:
    """Measure everything, the tables named, or (as a child) one column."""
    if len(argv) == 2:
        settings = Settings(**json.loads(argv[1]))
        if settings.shared_pool:
            onnxruntime.set_global_thread_pool_sizes(THREADS, 1)
        print(json.dumps(MEASURES[argv[0]](settings)))
        return
    print(f"ONNX Runtime {onnxruntime.__version__}, {os.cpu_count()} processors, {THREADS} threads", flush=True)
    for line in tables(argv or list(TABLES)):
        print(line, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
