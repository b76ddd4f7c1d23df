"""The C header: what applications compile against."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

EMBED = Path(__file__).resolve().parent.parent.parent / "embed"
HEADER = EMBED / "include" / "lightkeeper.h"


def assert_compiles(*command: str) -> None:
    """Run a compiler that has nothing to say."""
    done = subprocess.run(
        [*command, "-Wall", "-Wextra", "-Werror", "-fsyntax-only"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed: apt-get install g++")
@pytest.mark.parametrize("compiler", [("gcc", "-std=c99", "-xc"), ("g++", "-std=c++17", "-xc++")])
def test_the_header_compiles_by_the_letter_of_the_standard(compiler: tuple[str, ...]) -> None:
    """As C99 and as C++17, without a warning."""
    assert_compiles(*compiler, "-pedantic", str(HEADER))


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed: apt-get install gcc")
@pytest.mark.parametrize("source", ["launcher.c", "runtime.c", "library.c"])
def test_the_sources_compile_without_a_warning(source: str) -> None:
    """Against the declarations of the stable ABI, which need no headers of Python."""
    names = ('-DLK_PYTHON="p"', '-DLK_COMMAND="c"', '-DLK_VERSION="1"')
    assert_compiles("gcc", "-std=gnu11", *names, str(EMBED / "src" / source))


def test_every_function_that_is_declared_is_defined() -> None:
    """And each calls a function of the module behind it that exists."""
    from lightkeeper import embedded

    declared = set(re.findall(r"LK_API [^;(]*?(lk_\w+)\(", HEADER.read_text()))
    source = (EMBED / "src" / "library.c").read_text()
    assert declared == set(re.findall(r"^(?:lk_status|const char \*) ?(lk_\w+)\(", source, re.MULTILINE))
    called = set(re.findall(r'(?:call|simple)\("(\w+)"', source))
    assert called
    assert all(hasattr(getattr(embedded, name), "__wrapped__") for name in called)
