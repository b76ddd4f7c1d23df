"""Builds the archive of one platform, and lays it into its store.

Steps:

1. The Python runtime, without what no device needs, and the locked packages; all as bytecode.
2. The C++ library for systems that have none, and the compiled programs.
3. Documents, examples, the installer, the bill of materials and the notices of third parties.
4. What the binaries ask of a system is measured; a newer glibc than promised ends the build.
5. Packed, with checksum and signature, beside the root certificate that devices trust.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from packageurl import PackageURL

from lightkeeper.modelpackage.signature import Signer
from release import archive, bom, bytecode, debian, linked, packages, programs, python, symbols
from release.bom import Part
from release.platforms import GLIBC_FLOOR, Platform

ROOT = Path(__file__).resolve().parent.parent
FILES = Path(__file__).with_name("files")
MAJOR = 1

DOCUMENTS = (
    "architecture.md",
    "captures.md",
    "configuration.md",
    "errors.md",
    "glossary.md",
    "local-api.md",
    "operations.md",
    "windows.md",
)


@dataclass(frozen=True, slots=True)
class Release:
    """What is being released: the version, the commit's time, and whose signature it carries."""

    version: str
    time_seconds: int
    authority: Path
    region: str


class TooNewError(Exception):
    """A binary asks for a newer glibc than archives promise."""


def version_of_commit() -> tuple[str, int]:
    """Return the version that names this commit, and the commit's time."""
    told = _git("show", "--no-patch", "--format=%H %ct %cd", "--date=format-local:%Y%m%d", "HEAD")
    commit, seconds, date = told.split()
    return f"{MAJOR}.{date}.{commit[:7]}", int(seconds)


def build(release: Release, platform: Platform, dist: Path, say: Callable[[str], None]) -> Path:
    """Build the archive of a platform into its store below `dist`, and return its path."""
    with tempfile.TemporaryDirectory(prefix="lightkeeper-release-") as folder:
        root, metadata = Path(folder) / "root", Path(folder) / "metadata"
        say(f"{platform.name}: Python runtime")
        library = root / "lib" / python.unpack(platform, root)
        say(f"{platform.name}: packages")
        packages.install(platform, library / "site-packages", wheels=Path(folder) / "wheels", metadata=metadata)
        say(f"{platform.name}: bytecode")
        bytecode.compile_below(library, python.interpreter())
        parts = [*_runtime_parts(platform, library.name, root), *bom.python_parts(metadata, library / "site-packages")]
        if (library / "site-packages" / "lightkeeper_wire").is_dir():
            parts += bom.crate_parts(platform.machine)
        say(f"{platform.name}: programs")
        programs.build(platform, root, library.name)
        _add_documents(root, FILES / "windows" if platform.windows else FILES)
        _add_texts(root, release, platform, _needs(root, platform), parts)
        say(f"{platform.name}: packing")
        store = dist / f"release-store-{platform.name}"
        target = store / "Releases" / release.version / f"{release.version}.tgz"
        archive.pack(root, release.version, release.time_seconds, target)
    archive.write_checksum(target)
    archive.sign(target, Signer.load(release.authority))
    _add_certificate(store, release)
    return target


def _runtime_parts(platform: Platform, library: str, root: Path) -> Iterator[Part]:
    """Yield the parts that are no Python packages; the C++ library is put into its place."""
    licence = (python.interpreter().parent.parent / "lib" / library / "LICENSE.txt").read_text(encoding="utf-8")
    yield Part(PackageURL("generic", None, "cpython", python.version()), "PSF-2.0", (("LICENSE.txt", licence),))
    yield from linked.parts(python.interpreter(), platform)
    debian_root = None if platform.windows else debian.root_of(platform)
    if debian_root is None:
        return
    fallback = root / "lib" / "fallback"
    fallback.mkdir()
    for path in debian.cpp_libraries(debian_root, platform):
        shutil.copyfile(path, fallback / path.name)
    text = debian.copyright_of_cpp_library(debian_root)
    yield Part(
        PackageURL("deb", "debian", "libstdc++6", debian.version_of_cpp_library(debian_root)),
        "GPL-3.0-or-later WITH GCC-exception-3.1",
        (("copyright", text),),
    )


def _add_documents(root: Path, files: Path) -> None:
    docs = root / "docs"
    (docs / "api").mkdir(parents=True)
    shutil.copyfile(ROOT / "proto" / "agent.proto", docs / "api" / "agent.proto")
    shutil.copytree(ROOT / "docs" / "spec", docs / "spec")
    for name in DOCUMENTS:
        shutil.copyfile(ROOT / "docs" / name, docs / name)
    shutil.copytree(FILES / "examples", docs / "examples")
    for name in ("LICENSE", "CHANGELOG.md"):
        shutil.copyfile(ROOT / name, root / name)
    for path in files.iterdir():
        if path.is_file():
            shutil.copy(path, root / path.name)


def _needs(root: Path, platform: Platform) -> dict[str, str]:
    """Return what the binaries below a root ask of a system, as the release notes name it."""
    if platform.windows:
        return {"libraries": ", ".join(symbols.libraries_of_windows(root))}
    needs = symbols.of(root)
    glibc = ".".join(map(str, needs.glibc))
    if needs.glibc > GLIBC_FLOOR:
        raise TooNewError(f"{needs.glibc_by} needs glibc {glibc}")
    cpp, libraries = ".".join(map(str, needs.cpp)), ", ".join(needs.libraries)
    return {"glibc": glibc, "glibc_by": needs.glibc_by, "cpp": cpp, "libraries": libraries}


def _add_texts(root: Path, release: Release, platform: Platform, needs: dict[str, str], parts: list[Part]) -> None:
    (root / "MACHINE").write_text(f"{platform.machine}\n", encoding="ascii")
    (root / "VERSION").write_text(f"{release.version}\n", encoding="ascii")
    (root / "sbom.cdx.json").write_text(bom.bill(release.version, release.time_seconds, parts), encoding="utf-8")
    (root / "THIRD_PARTY_NOTICES.txt").write_text(bom.notices(parts), encoding="utf-8")
    notes = root / "RELEASE_NOTES.md"
    facts = needs | {
        "version": release.version,
        "platform": platform.name,
        "machine": platform.machine,
        "processor": platform.processor,
        "oldest": platform.oldest,
        "python": python.version(),
        "wire": "native" if list(root.glob("lib/*/site-packages/lightkeeper_wire")) else "grpcio",
    }
    notes.write_text(notes.read_text(encoding="utf-8").format(**facts), encoding="utf-8")


def _add_certificate(store: Path, release: Release) -> None:
    certificate = store / "Certificates" / release.region / f"{release.region}.pem"
    certificate.parent.mkdir(parents=True, exist_ok=True)
    certificate.unlink(missing_ok=True)
    shutil.copy(release.authority / "certs" / f"{release.region}.pem", certificate)


def _git(*arguments: str) -> str:
    environment = {"TZ": "UTC", "PATH": "/usr/local/bin:/usr/bin:/bin"}
    told = subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True, env=environment)
    return told.stdout
