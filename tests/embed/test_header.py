"""The C header: what applications compile against."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

EMBED = Path(__file__).resolve().parent.parent.parent / "embed"
HEADER = EMBED / "include" / "lightkeeper.h"
SOURCES = ("launcher.c", "runtime.c", "library.c")
NAMES = ('-DLK_PYTHON="p"', '-DLK_PYTHON_LIBRARY="l"', '-DLK_COMMAND="c"', '-DLK_VERSION="1"')
WINDOWS = (
    sys.executable,
    "-m",
    "ziglang",
    "cc",
    "-target",
    "x86_64-windows-gnu",
    "-Wno-unused-command-line-argument",
    "-c",
)

needs_zig = pytest.mark.skipif(find_spec("ziglang") is None, reason="needs zig: python -m pip install ziglang")


def assert_compiles(*command: str) -> None:
    """Run a compiler that has nothing to say."""
    done = subprocess.run([*command, "-Wall", "-Wextra", "-Werror"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed: apt-get install g++")
@pytest.mark.parametrize("compiler", [("gcc", "-std=c99", "-xc"), ("g++", "-std=c++17", "-xc++")])
def test_the_header_compiles_by_the_letter_of_the_standard(compiler: tuple[str, ...]) -> None:
    """As C99 and as C++17, without a warning."""
    assert_compiles(*compiler, "-fsyntax-only", "-pedantic", str(HEADER))


@needs_zig
@pytest.mark.parametrize("language", [("-std=c99", "-xc"), ("-std=c++17", "-xc++")])
def test_the_header_compiles_for_windows(language: tuple[str, ...], tmp_path: Path) -> None:
    """By the letter of either standard, for the library itself and for those who use it."""
    for role in ((), ("-DLK_BUILD",)):
        assert_compiles(*WINDOWS, *language, "-pedantic", *role, str(HEADER), "-o", str(tmp_path / "made"))


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed: apt-get install gcc")
@pytest.mark.parametrize("source", [*SOURCES, "system_posix.c"])
def test_the_sources_compile_without_a_warning(source: str) -> None:
    """Against the declarations of the stable ABI, which need no headers of Python."""
    assert_compiles("gcc", "-fsyntax-only", "-std=gnu11", *NAMES, str(EMBED / "src" / source))


@needs_zig
@pytest.mark.parametrize("source", [*SOURCES, "system_windows.c", "stable_abi_windows.c"])
def test_the_sources_compile_for_windows(source: str, tmp_path: Path) -> None:
    """With one file in another's place."""
    assert_compiles(
        *WINDOWS, "-std=gnu11", "-DLK_BUILD", *NAMES, str(EMBED / "src" / source), "-o", str(tmp_path / "made")
    )


def test_every_function_of_python_can_be_called_on_windows() -> None:
    """What the stable ABI's header declares is what is looked up by name there."""
    declared = re.findall(r"^\w[^;{]*?\b(Py\w+)\([^;{]*\);", (EMBED / "src/stable_abi.h").read_text(), re.MULTILINE)
    bound = re.findall(r"\bof\((Py\w+)\)", (EMBED / "src/stable_abi_windows.c").read_text())
    assert bound
    assert sorted(bound) == sorted(declared)


def test_every_function_that_is_declared_is_defined() -> None:
    """And each calls a function of the module behind it that exists."""
    from lightkeeper import embedded

    declared = set(re.findall(r"LK_API [^;(]*?(lk_\w+)\(", HEADER.read_text()))
    source = (EMBED / "src" / "library.c").read_text()
    assert declared == set(re.findall(r"^(?:lk_status|const char \*) ?(lk_\w+)\(", source, re.MULTILINE))
    called = set(re.findall(r'(?:call|simple)\("(\w+)"', source))
    assert called
    assert all(hasattr(getattr(embedded, name), "__wrapped__") for name in called)
