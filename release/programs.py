"""The compiled programs of an archive, built by zig's C compiler for each platform and an old glibc."""

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

PROGRAMS = {
    "lightkeeper": "main",
    "sagemaker_edge_agent_binary": "edge_agent_main",
    "sagemaker_edge_agent_client_example": "example_client_main",
}
"""Each program of `bin/` and the function of `lightkeeper.__main__` that it runs."""

FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-s", "-ffile-prefix-map={sources}=.")


def build(platform: Platform, root: Path, python: str) -> None:
    """Write the programs, the library and its header into an archive's root, whose library folder is `python`."""
    runtime = (f'-DLK_PYTHON="{python}"', str(root / "lib" / f"lib{python}.so.1.0"), "-ldl")
    for folder in ("bin", "include"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for program, command in PROGRAMS.items():
        options = (*runtime, f'-DLK_COMMAND="{command}"', "-Wl,-rpath,$ORIGIN/../lib")
        compile_c(platform, ("launcher.c", "runtime.c"), root / "bin" / program, *options)
    shared = ("-shared", "-fPIC", "-fvisibility=hidden", f"-Wl,-soname,{LIBRARY}", "-Wl,-rpath,$ORIGIN")
    library = (*runtime, *shared, f'-DLK_VERSION="{lightkeeper.__version__}"')
    compile_c(platform, ("library.c", "runtime.c"), root / "lib" / LIBRARY, *library)
    shutil.copyfile(HEADER, root / "include" / HEADER.name)


def compile_c(platform: Platform, sources: Sequence[str], output: Path, *options: str) -> None:
    """Compile and link C for a platform."""
    flags = [flag.format(sources=SOURCES) for flag in FLAGS]
    command = [sys.executable, "-m", "ziglang", "cc", "-target", platform.compiler_target, *flags]
    subprocess.run([*command, *(str(SOURCES / name) for name in sources), "-o", str(output), *options], check=True)
