"""A Windows Python below wine: the standalone runtime that releases pin, locked wheels, and the project's own.

Debian 12's wine is 8.0, made for the Windows of its time. What the wheels ask of Windows and it has not is built here
by zig (`lacking/`): random bytes for programs in Rust, and the C library's complex numbers for numpy, whose modules
are led to it by the name they import. Nothing else of the wheels is changed. `platform` must not ask WMI, nor `shutil`
call CopyFile2, where this wine ends the process: both have another way.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from release import python

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "windows"
LACKING = Path(__file__).with_name("lacking")
REQUIREMENTS = ROOT / "requirements" / "windows.txt"
RUNTIME = "windows-amd64"
TARGET = "x86_64-windows-gnu"

_MATH, _OURS = b"api-ms-win-crt-math-l1-1-0.dll", b"wine-math.dll"
_AT_START = 'import sys\nsys.modules["_wmi"] = None\nimport _winapi\ndel _winapi.CopyFile2\n'
_PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")


def _sources() -> bytes:
    files = (REQUIREMENTS, python.PINNED / "go.sum", Path(__file__), *sorted(LACKING.iterdir()))
    return b"".join(file.read_bytes() for file in files)


class Wine:
    """One wine prefix with one Python in it, below `build/windows`; it is made anew where what makes it has changed."""

    def __init__(self) -> None:
        self.python = BUILD / "python"
        self.packages = BUILD / "packages"
        self._prefix = BUILD / "prefix"
        made, of = BUILD / "made-of", _sources()
        if not made.exists() or made.read_bytes() != of:
            shutil.rmtree(BUILD, ignore_errors=True)
            self._make()
            made.write_bytes(of)
        self._install_project()

    def run(self, *arguments: str, seconds: float) -> subprocess.CompletedProcess[str]:
        """Run Python with arguments, and return what it printed; then end whatever is left in the prefix."""
        return self.run_program(self.python / "python.exe", *arguments, seconds=seconds)

    def run_program(
        self, program: Path, *arguments: str, seconds: float, search: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program as `run` does Python; Windows looks for its libraries in the folder `search` too."""
        with (BUILD / "output.txt").open("w+b") as output:
            path = {"WINEPATH": windows_path(search)} if search else {}
            try:
                done = subprocess.run(
                    _piped(Path(output.name), program, *arguments),
                    cwd=ROOT,
                    env=self._environment() | path,
                    stdin=subprocess.DEVNULL,
                    timeout=seconds,
                    check=False,
                )
                code = done.returncode
            except subprocess.TimeoutExpired:
                code = -1
            finally:
                self.end()
            output.seek(0)
            return subprocess.CompletedProcess(arguments, code, output.read().decode(errors="replace"))

    def start(self, output: Path, program: Path, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a program that writes what it prints into a file."""
        command = _piped(output, program, *arguments)
        return subprocess.Popen(command, cwd=ROOT, env=self._environment(), stdin=subprocess.DEVNULL)

    def end(self) -> None:
        """End every program of the prefix."""
        subprocess.run(["wineserver", "-k"], env=self._environment(), check=False)

    def _environment(self) -> dict[str, str]:
        return os.environ | {
            "WINEPREFIX": str(self._prefix),
            "WINEDEBUG": "-all",
            "LC_ALL": "C.UTF-8",  # how wine reads the names of files
            "WINEDLLOVERRIDES": "mscoree,mshtml=",
            "PYTHONPATH": windows_path(self.packages),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUTF8": "1",
        }

    def _make(self) -> None:
        python.unpack_runtime(RUNTIME, self.python)
        (self.python / "Lib" / "sitecustomize.py").write_text(_AT_START)
        tags = ("--platform=win_amd64", "--python-version=3.14", "--implementation=cp")
        abis = ("--abi=cp314", "--abi=abi3", "--abi=none", "--only-binary=:all:", "--ignore-requires-python")
        lock = ("--no-deps", "--no-compile", "--require-hashes", "--requirement", str(REQUIREMENTS))
        subprocess.run([*_PIP, "install", *tags, *abis, *lock, "--target", str(self.packages)], check=True)
        lead_to_stand_ins(self.packages)
        add_stand_ins(self.python)
        version = ("reg", "add", r"HKCU\Software\Wine", "/v", "Version", "/d", "win10", "/f")
        subprocess.run(["wine", *version], env=self._environment(), stdout=subprocess.PIPE, check=True)

    def _install_project(self) -> None:
        wheels = BUILD / "wheels"
        shutil.rmtree(wheels, ignore_errors=True)
        made = ("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(ROOT))
        subprocess.run([*_PIP, *made], check=True)
        shutil.rmtree(self.packages / "lightkeeper", ignore_errors=True)
        for wheel in wheels.glob("lightkeeper-*.whl"):
            shutil.unpack_archive(wheel, self.packages, "zip")


def windows_path(path: Path) -> str:
    """Return a path of this machine as programs below wine see it."""
    return "Z:" + str(path).replace("/", "\\")


def lead_to_stand_ins(packages: Path) -> None:
    """Have the modules of numpy that need complex numbers look for them in the stand-in."""
    for module in (packages / "numpy").rglob("*.pyd"):
        content = module.read_bytes()
        if _MATH in content and b"creal" in content:
            module.write_bytes(content.replace(_MATH, _OURS.ljust(len(_MATH), b"\0")))


def add_stand_ins(folder: Path) -> None:
    """Build what wine lacks into a program's folder, where Windows looks for libraries first."""
    zig = (sys.executable, "-m", "ziglang", "cc", "-target", TARGET, "-O2", "-shared", "-o")
    random = (str(folder / "bcryptprimitives.dll"), str(LACKING / "bcryptprimitives.c"), "-ladvapi32")
    subprocess.run([*zig, *random], check=True)
    math = (str(LACKING / "wine-math.c"), str(LACKING / "wine-math.def"))
    subprocess.run([*zig, str(folder / _OURS.decode()), *math], check=True)


def _piped(output: Path, program: Path, *arguments: str) -> list[str]:
    """Return the command that runs a program with a pipe for its output, which Python needs there."""
    command = f'wine "$0" "$@" 2>&1 | cat >"{output}"; exit "${{PIPESTATUS[0]}}"'
    return ["bash", "-c", command, str(program), *arguments]
