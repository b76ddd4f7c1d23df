"""The Python runtime of an archive: a standalone CPython without what no device needs, pinned in `runtime/go.sum`."""

from __future__ import annotations

import gzip
import json
import platform as this
import shutil
import subprocess
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

from release.platforms import PLATFORMS, Platform

MODULE = "github.com/kluctl/go-embed-python"
PINNED = Path(__file__).with_name("runtime")
BUILD = Path(__file__).resolve().parent.parent / "build"
_DATA = Path("python", "internal", "data")

LEFT_OUT = (
    "bin/*",  # the archive's own programs start the runtime
    "lib/libtcl*",  # windows on a screen: Tcl, Tk and what uses them
    "lib/itcl*",
    "lib/thread3*",
    "lib/tcl9*",
    "lib/tk9*",
    "lib/libpython3.so",  # names the library for those who link to any version
    "lib/libpython3.??.so",
    "lib/pkgconfig/*",
    "lib/python3.*/tkinter/*",
    "lib/python3.*/turtle*",
    "lib/python3.*/idlelib/*",
    "lib/python3.*/lib-dynload/_tkinter*",
    "lib/python3.*/lib-dynload/_test*",  # CPython's tests of itself
    "lib/python3.*/lib-dynload/_ctypes_test*",
    "lib/python3.*/lib-dynload/_dbm*",  # Berkeley DB, under the Affero GPL
    "lib/python3.*/test/*",
    "lib/python3.*/config-*/*",  # building extensions, and packages
    "lib/python3.*/ensurepip/*",
    "lib/python3.*/venv/*",
    "lib/python3.*/lib2to3/*",
    "lib/python3.*/site-packages/*",
    "lib/python3.*/pydoc*",  # a person at a prompt
    "lib/python3.*/_pyrepl/*",
    "include/*",
    "share/*",
    "lib/*.exe",  # Windows' own, as an archive has them
    "lib/tcl/*",
    "lib/python3.*/lib-dynload/t*86t.dll",
    "lib/python3.*/lib-dynload/winsound*",
    "lib/python3.*/lib-dynload/_wmi*",  # `platform` would ask WMI, which takes seconds, for what it finds without
)
"""What is left out, by path below the archive's root."""


def unpack(platform: Platform, root: Path, *, whole: bool = False) -> str:
    """Write the runtime's files below a root, and return the name of its library folder, such as `python3.14`."""
    place = _place_of_windows_file if platform.windows else str
    unpack_runtime(platform.runtime, root, left_out=() if whole else LEFT_OUT, place=place)
    (folder,) = (root / "lib").glob("python3.*/")
    return folder.name


def unpack_runtime(
    runtime: str, root: Path, *, left_out: Sequence[str] = (), place: Callable[[str], str] = str
) -> None:
    """Write the files of a runtime of the module, such as `windows-amd64`, below a root, each where `place` says.

    Those whose place matches a pattern of `left_out` are not written.
    """
    source = _module() / _DATA / runtime
    for entry in json.loads((source / "files.json").read_text())["files"]:
        path = place(entry["name"])
        if not any(fnmatch(path, pattern) for pattern in left_out):
            _write(source, root / path, entry)


@cache
def version() -> str:
    """Return the runtime's version, such as 3.14.6."""
    said = dict(line.split("=") for line in (_module() / _DATA / "PYTHON_VERSION").read_text().split())
    return said["PYTHON_VERSION"].strip('"')


@cache
def interpreter() -> Path:
    """Return an interpreter of the runtime for this machine, whole and unpacked once into `build/`."""
    root = BUILD / f"python-{version()}"
    if not root.is_dir():
        (platform,) = (platform for platform in PLATFORMS.values() if platform.machine == this.machine())
        making = root.with_name(f".{root.name}")
        shutil.rmtree(making, ignore_errors=True)
        unpack(platform, making, whole=True)
        making.rename(root)
    (found,) = (root / "bin").glob("python3.??")
    return found


@cache
def _module() -> Path:
    """Return the folder of the runtime's module; Go fetches it once, and checks it against the pinned checksum."""
    told = subprocess.run(
        ["go", "mod", "download", "-json", MODULE], cwd=PINNED, check=True, stdout=subprocess.PIPE, text=True
    )
    return Path(json.loads(told.stdout)["Dir"])


def _place_of_windows_file(name: str) -> str:
    """Return where an archive has a file of Windows' runtime: where it would be on Linux."""
    library = f"lib/python{version().rpartition('.')[0]}"
    top, _, below = name.partition("/")
    return {"Lib": f"{library}/{below}", "DLLs": f"{library}/lib-dynload/{below}"}.get(top, f"lib/{name}")


def _write(source: Path, target: Path, entry: dict[str, Any]) -> None:
    name = entry["name"]
    if (source / name).is_dir():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if "symlink" in entry:
        target.symlink_to(entry["symlink"])
        return
    packed = source / f"{name}.gz"
    target.write_bytes(gzip.decompress(packed.read_bytes()) if packed.exists() else (source / name).read_bytes())
    target.chmod(0o755 if entry["perm"] & 0o111 else 0o644)


if __name__ == "__main__":
    print(interpreter())
