"""Python's modules as bytecode: what a device loads, smaller and sooner.

The standard library and the third parties' packages are kept as bytecode alone. This project's own source stays beside
its bytecode: engineers read it, and tracebacks show its lines. Docstrings are left out (optimisation level 2, which
`embed/src/runtime.c` sets too), and the columns of a line, by which tracebacks underline: a quarter of what the packed
bytecode weighs. No file's time is recorded, so that the same source gives the same bytes.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

OWN = ("lightkeeper", "lightkeeper_wire")
_COMPILE = (
    "-I",
    "-X",
    "no_debug_ranges",
    "-m",
    "compileall",
    "-q",
    "-f",
    "-o",
    "2",
    "--invalidation-mode",
    "unchecked-hash",
)


def compile_below(library: Path, interpreter: Path) -> None:
    """Compile every module of an archive's library folder, with an interpreter of the archive's Python version."""
    packages = library / "site-packages"
    own = [packages / name for name in OWN if (packages / name).is_dir()]
    subprocess.run([interpreter, *_COMPILE, "-s", library, *own], check=True)
    ours = "|".join(f"{folder}/" for folder in own)
    subprocess.run([interpreter, *_COMPILE, "-b", "-x", ours, "-s", library, library], check=True)
    for source in library.rglob("*.py"):
        if not any(source.is_relative_to(folder) for folder in own):
            source.unlink()
