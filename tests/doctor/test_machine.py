"""What the machine must have, held against processors and libraries of all kinds, and starts that end badly."""

from __future__ import annotations

import os
import platform
import signal
import time
from pathlib import Path

import pytest

from lightkeeper.doctor import State, machine, trial
from release.platforms import GLIBC_FLOOR

V2 = "fpu cx16 lahf_lm popcnt ssse3 sse4_1 sse4_2"


def cpuinfo(folder: Path, text: str) -> Path:
    """Write what a kernel says of its processor."""
    file = folder / "cpuinfo"
    file.write_text(text)
    return file


def test_this_machine_passes() -> None:
    """The tests run models here, so nothing can be missing."""
    assert machine.processor(platform.machine()).state in {State.OK, State.WARNING}
    assert machine.system_library(machine.glibc()).state is State.OK


@pytest.mark.parametrize(
    ("kind", "text", "state", "word"),
    [
        ("x86_64", f"flags\t\t: {V2} avx2 fma\n", State.OK, "all that is needed"),
        ("AMD64", f"flags\t\t: {V2} avx\n", State.WARNING, "avx2, fma"),
        ("x86_64", "flags\t\t: fpu sse2 ssse3 cx16 lahf_lm popcnt\n", State.FAILED, "sse4_1, sse4_2"),
        ("aarch64", "Features\t: fp asimd\n", State.OK, "without asimddp"),
        ("aarch64", "Features\t: fp asimd asimddp\n", State.OK, "all that is needed"),
        ("aarch64", "Features\t: fp\n", State.FAILED, "asimd"),
        ("armv7l", "Features\t: neon\n", State.FAILED, "armv7l"),
        ("x86_64", "nothing\n", State.SKIPPED, "does not list"),
    ],
)
def test_a_processor_is_judged_by_what_its_kernel_lists(
    tmp_path: Path, kind: str, text: str, state: State, word: str
) -> None:
    """What is missing is named; what only costs speed is a warning."""
    found = machine.processor(kind, cpuinfo(tmp_path, text))
    assert (found.state, word in found.found) == (state, True), found
    assert bool(found.fix) == (state in {State.WARNING, State.FAILED})


@pytest.mark.parametrize(
    ("version", "state"),
    [("glibc 2.28", State.OK), ("glibc 2.41.1", State.OK), ("glibc 2.27", State.FAILED), (None, State.FAILED)],
)
def test_a_system_library_is_judged_by_its_version(version: str | None, state: State) -> None:
    """Alpine's musl has no such version at all."""
    assert machine.system_library(version).state is state


def test_the_floor_is_the_one_that_releases_are_held_to() -> None:
    """One figure, whoever tells it."""
    assert machine.GLIBC_LEAST == GLIBC_FLOOR


def test_the_trial_runs_a_model_in_a_process_of_its_own() -> None:
    """ONNX Runtime itself multiplies, and what it was is told."""
    found = machine.starts("what runs models", trial.run, fix="-")
    assert found.state is State.OK
    assert "ONNX Runtime 1." in found.found


def killed() -> None:
    """End as on a processor that lacks an instruction."""
    os.kill(os.getpid(), signal.SIGILL)


def missing() -> None:
    """End as where a library is not there."""
    raise ImportError("libstdc++.so.6: cannot open shared object file")


def hanging() -> None:
    """Do not end."""
    time.sleep(60)


@pytest.mark.parametrize(
    ("start", "word"),
    [(killed, "SIGILL"), (missing, "libstdc++.so.6"), (hanging, "did not start within 0.2 s")],
)
def test_a_start_that_fails_is_told_and_ends_nothing_else(start: object, word: str) -> None:
    """The command goes on to its next check."""
    assert callable(start)
    found = machine.starts("it", start, fix="install it anew", seconds=0.2 if start is hanging else 30)
    assert found.state is State.FAILED
    assert word in found.found
    assert found.fix == "install it anew"
