"""What a release asks of a system is measured from its binaries."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from release import symbols

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")


def compiled(folder: Path, name: str, source: str, *options: str) -> None:
    """Compile a C program."""
    (folder / f"{name}.c").write_text(source)
    subprocess.run(["gcc", str(folder / f"{name}.c"), "-o", str(folder / name), *options], check=True)


@needs_gcc
def test_the_newest_glibc_and_who_asks_for_it_are_found(tmp_path: Path) -> None:
    """A binary that asks for an old symbol, and one that asks for a newer."""
    old = '#include <stdio.h>\n__asm__(".symver puts, puts@GLIBC_2.2.5");\nint main(void) { return puts("x"); }\n'
    compiled(tmp_path, "older", old, "-nostartfiles", "-Wl,-emain")
    new = "#include <sys/random.h>\nint main(void) { char c; return (int)getrandom(&c, 1, 0); }\n"
    compiled(tmp_path, "newer", new)
    needs = symbols.of(tmp_path)
    assert needs.glibc >= (2, 25)
    assert needs.glibc_by == "newer"
    assert "libc.so.6" in needs.libraries


@needs_gcc
def test_a_library_of_the_archive_is_not_asked_of_the_system(tmp_path: Path) -> None:
    """Only what is not there has to come from elsewhere."""
    compiled(tmp_path, "libown.so", "int own(void) { return 0; }\n", "-shared", "-fPIC", "-Wl,-soname,libown.so")
    compiled(tmp_path, "user", "int own(void);\nint main(void) { return own(); }\n", f"-L{tmp_path}", "-l:libown.so")
    assert "libown.so" not in symbols.of(tmp_path).libraries


@pytest.mark.skipif(find_spec("ziglang") is None, reason="needs zig: python -m pip install ziglang")
def test_what_a_windows_binary_asks_of_its_system_is_found(tmp_path: Path) -> None:
    """Not what lies in the archive, whatever the case of its name."""
    zig = (sys.executable, "-m", "ziglang", "cc", "-target", "x86_64-windows-gnu", "-nostdlib", "-o")
    sources = {
        "own": "__declspec(dllexport) int own(void) { return 0; }\nint DllMain(void) { return 1; }\n",
        "user": "int own(void);\nvoid ExitProcess(unsigned);\nvoid go(void) { ExitProcess(own()); }\n",
    }
    for name, source in sources.items():
        (tmp_path / f"{name}.c").write_text(source)
    subprocess.run([*zig, tmp_path / "OWN.dll", tmp_path / "own.c", "-shared", "-e", "DllMain"], check=True)
    linked = (f"-L{tmp_path}", "-lOWN", "-lkernel32", "-e", "go")
    subprocess.run([*zig, tmp_path / "user.exe", tmp_path / "user.c", *linked], check=True)
    assert symbols.libraries_of_windows(tmp_path) == ("kernel32.dll",)


def test_what_is_no_binary_asks_for_nothing(tmp_path: Path) -> None:
    """Nor does a file that only begins like one."""
    (tmp_path / "text").write_text("text")
    (tmp_path / "torn").write_bytes(b"\x7fELF\x02\x01\x01")
    assert symbols.of(tmp_path).glibc == (0,)
