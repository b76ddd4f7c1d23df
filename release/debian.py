"""A small Debian of the oldest release that can be had: where archives are tried, and whose C++ library they carry.

debootstrap makes it, from the mirror that debootstrap knows; it needs root's rights, and is kept in `build/`, a folder
for each set of packages.
"""

from __future__ import annotations

import os
import platform as this
import shutil
import subprocess
from pathlib import Path

from release.platforms import Platform

ROOT = Path(__file__).resolve().parent.parent
SUITE = "bullseye"
SYSTEMD = ("systemd-sysv", "dbus")
"""The packages that make a root one that boots."""

CPP_LIBRARIES = ("libgcc_s.so.1", "libstdc++.so.6")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def root_of(platform: Platform, include: tuple[str, ...] = ()) -> Path | None:
    """Return the root folder for a platform, with more packages, made once; None where it cannot be made here."""
    architecture = _ARCHITECTURES[platform.machine]
    folder = ROOT / "build" / "debian" / "-".join((SUITE, architecture, *include))
    if folder.is_dir():
        return folder
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        return None
    making = folder.with_name(f".{folder.name}")
    shutil.rmtree(making, ignore_errors=True)
    making.parent.mkdir(parents=True, exist_ok=True)
    options = ["--foreign", "--variant=minbase", f"--arch={architecture}"]
    if include:
        options.append(f"--include={','.join(include)}")
    with (ROOT / "build" / "debian" / "debootstrap.log").open("wb") as log:
        subprocess.run(["debootstrap", *options, SUITE, making], check=True, stdout=log, stderr=log)
        if platform.machine == this.machine():  # else only its files are used, and nothing of it is run
            subprocess.run(
                ["chroot", making, "/debootstrap/debootstrap", "--second-stage"], check=True, stdout=log, stderr=log
            )
    for name in ("proc", "sys"):
        if (making / name).is_symlink():  # debootstrap's way where it may not mount
            (making / name).unlink()
        (making / name).mkdir(exist_ok=True)
    making.rename(folder)
    return folder


def cpp_libraries(root: Path, platform: Platform) -> list[Path]:
    """Return the C++ library's files in a root."""
    places = (root / "usr/lib" / platform.library_folder, root / "lib" / platform.library_folder)
    return [next(place / name for place in places if (place / name).exists()) for name in CPP_LIBRARIES]


def copyright_of_cpp_library(root: Path) -> str:
    """Return the licence text of the C++ library."""
    return (root / "usr/share/doc/libstdc++6/copyright").resolve().read_text(encoding="utf-8", errors="replace")


def version_of_cpp_library(root: Path) -> str:
    """Return the version of the C++ library's package."""
    (package,) = (root / "var/cache/apt/archives").glob("libstdc++6_*.deb")
    return package.name.split("_")[1]
