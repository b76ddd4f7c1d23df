"""The compiled programs of an archive, built by zig's C compiler for each platform; on Linux, for an old glibc."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import lightkeeper
from release.platforms import Platform

SOURCES = Path(__file__).resolve().parent.parent / "embed" / "src"
HEADER = SOURCES.parent / "include" / "lightkeeper.h"
LIBRARY = "liblightkeeper.so"
DLL, IMPORT_LIBRARY = "lightkeeper.dll", "lightkeeper.lib"

PROGRAMS = {
    "lightkeeper": "main",
    "sagemaker_edge_agent_binary": "edge_agent_main",
    "sagemaker_edge_agent_client_example": "example_client_main",
}
"""Each program of `bin/` and the function of `lightkeeper.__main__` that it runs."""

_VERSION = f'-DLK_VERSION="{lightkeeper.__version__}"'
FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-s", "-ffile-prefix-map={sources}=.")


def build(platform: Platform, root: Path, python: str) -> None:
    """Write the programs, the library and its header into an archive's root, whose library folder is `python`."""
    for folder in ("bin", "include"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    shutil.copyfile(HEADER, root / "include" / HEADER.name)
    (_build_for_windows if platform.windows else _build_for_linux)(platform, root, python)


def compile_c(platform: Platform, sources: Sequence[str | Path], output: Path, *options: str) -> None:
    """Compile and link C for a platform."""
    flags = [flag.format(sources=SOURCES) for flag in FLAGS]
    command = [sys.executable, "-m", "ziglang", "cc", "-target", platform.compiler_target, *flags]
    subprocess.run([*command, *(str(SOURCES / name) for name in sources), "-o", str(output), *options], check=True)


def _build_for_linux(platform: Platform, root: Path, python: str) -> None:
    runtime = root / "lib" / f"lib{python}.so.1.0"
    common = (*_names(python, runtime.name), str(runtime), "-ldl")
    sources = ("runtime.c", "system_posix.c")
    for program, command in PROGRAMS.items():
        options = (*common, f'-DLK_COMMAND="{command}"', "-Wl,-rpath,$ORIGIN/../lib")
        compile_c(platform, ("launcher.c", *sources), root / "bin" / program, *options)
    shared = ("-shared", "-fPIC", "-fvisibility=hidden", f"-Wl,-soname,{LIBRARY}", "-Wl,-rpath,$ORIGIN")
    compile_c(platform, ("library.c", *sources), root / "lib" / LIBRARY, *common, *shared, _VERSION)


def _build_for_windows(platform: Platform, root: Path, python: str) -> None:
    """As Windows has it, the library lies beside the programs, and what linkers want of it in `lib`."""
    common = (*_names(python, f"{python.replace('.', '')}.dll"), "-lshell32")
    sources = ("runtime.c", "system_windows.c", "stable_abi_windows.c")
    for program, command in PROGRAMS.items():
        options = (*common, f'-DLK_COMMAND="{command}"')
        compile_c(platform, ("launcher.c", *sources), root / "bin" / f"{program}.exe", *options)
    shared = ("-shared", "-DLK_BUILD", f"-Wl,--out-implib,{root / 'lib' / IMPORT_LIBRARY}")
    compile_c(platform, ("library.c", *sources), root / "bin" / DLL, *common, *shared, _VERSION)


def _names(python: str, library: str) -> tuple[str, str]:
    """Return what the sources must know of the runtime: its folder, and the file that has its functions."""
    return f'-DLK_PYTHON="{python}"', f'-DLK_PYTHON_LIBRARY="{library}"'
