"""The compiled programs of an archive, built by zig's C compiler for each platform and an old glibc."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from release.platforms import Platform

SOURCES = Path(__file__).resolve().parent.parent / "embed" / "src"

PROGRAMS = {
    "lightkeeper": "main",
    "sagemaker_edge_agent_binary": "edge_agent_main",
    "sagemaker_edge_agent_client_example": "example_client_main",
}
"""Each program of `bin/` and the function of `lightkeeper.__main__` that it runs."""

FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-s", "-ffile-prefix-map={sources}=.")


def build(platform: Platform, root: Path, python: str) -> None:
    """Write the programs into the `bin` folder of an archive's root, whose runtime's library folder is `python`."""
    folder = root / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    for program, command in PROGRAMS.items():
        compile_c(
            platform,
            [SOURCES / "launcher.c", SOURCES / "runtime.c"],
            folder / program,
            f'-DLK_PYTHON="{python}"',
            f'-DLK_COMMAND="{command}"',
            str(root / "lib" / f"lib{python}.so.1.0"),
            "-Wl,-rpath,$ORIGIN/../lib",
            "-ldl",
        )


def compile_c(platform: Platform, sources: list[Path], output: Path, *arguments: str) -> None:
    """Compile and link C for a platform."""
    flags = [flag.format(sources=SOURCES) for flag in FLAGS]
    command = [sys.executable, "-m", "ziglang", "cc", "-target", platform.compiler_target, *flags]
    subprocess.run([*command, *map(str, sources), "-o", str(output), *arguments], check=True)
