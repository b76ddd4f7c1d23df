"""What an archive asks of the system it runs on, measured from its binaries: symbol versions and libraries."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pefile
from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection

_GLIBC = re.compile(r"GLIBC_(\d+)\.(\d+)(?:\.\d+)?")
_SET_OF_WINDOWS = re.compile(r"(api-ms-win-[a-z]+)-.*")
_CPP = re.compile(r"GLIBCXX_(\d+)\.(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Needs:
    """The newest glibc and C++ library asked for, by which file, and every library that is not in the archive."""

    glibc: tuple[int, ...]
    glibc_by: str
    cpp: tuple[int, ...]
    cpp_by: str
    libraries: tuple[str, ...]


def of(root: Path) -> Needs:
    """Measure every binary below a root."""
    binaries = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    present = {path.name for path in binaries.values()}
    glibc: tuple[tuple[int, ...], str] = ((0,), "")
    cpp: tuple[tuple[int, ...], str] = ((0,), "")
    libraries: set[str] = set()
    for name, path in sorted(binaries.items()):
        for library, version in _needed(path):
            if library not in present or library in {"libstdc++.so.6", "libgcc_s.so.1"}:
                libraries.add(library)
            if match := _GLIBC.fullmatch(version):
                glibc = max(glibc, (tuple(map(int, match.groups())), name))
            if match := _CPP.fullmatch(version):
                cpp = max(cpp, (tuple(map(int, match.groups())), name))
    return Needs(*glibc, *cpp, tuple(sorted(libraries)))


def libraries_of_windows(root: Path) -> tuple[str, ...]:
    """Return the libraries that binaries of Windows below a root need and that are not there, in small letters.

    Windows' sets of functions stand as one: `api-ms-win-crt-*.dll` is the universal C runtime.
    """
    binaries = [path for path in root.rglob("*") if path.suffix in {".dll", ".exe", ".pyd"}]
    present = {path.name.lower() for path in binaries}
    lacking = {library for path in binaries for library in _imported(path)} - present
    return tuple(sorted({_SET_OF_WINDOWS.sub(r"\1-*.dll", library) for library in lacking}))


def _imported(path: Path) -> Iterator[str]:
    kinds = ("IMPORT", "DELAY_IMPORT")
    with pefile.PE(path, fast_load=True) as binary:
        binary.parse_data_directories([pefile.DIRECTORY_ENTRY[f"IMAGE_DIRECTORY_ENTRY_{kind}"] for kind in kinds])
        for kind in kinds:
            for library in getattr(binary, f"DIRECTORY_ENTRY_{kind}", ()):
                yield library.dll.decode("ascii").lower()


def _needed(path: Path) -> Iterator[tuple[str, str]]:
    """Yield each library that a binary needs, with each version of it, or an empty text."""
    with path.open("rb") as file:
        if file.read(4) != b"\x7fELF":
            return
        file.seek(0)
        try:
            sections = list(ELFFile(file).iter_sections())
        except ELFError:
            return
        for section in sections:
            if isinstance(section, DynamicSection):
                yield from ((str(tag.needed), "") for tag in section.iter_tags("DT_NEEDED"))  # type: ignore[attr-defined]  # pyelftools adds it
            elif isinstance(section, GNUVerNeedSection):
                for library, versions in section.iter_versions():
                    yield from ((str(library.name), str(version.name)) for version in versions)
