"""The libraries that are compiled into the Python runtime: which, of what version, under which licence.

The runtime says which versions of them it carries; their licence texts lie in `licences/`. Berkeley DB, whose licence
would ask the archive's source of everybody who serves it, is a module of its own (`_dbm`), and left out.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

from packageurl import PackageURL

from release.bom import Part
from release.platforms import Platform

TEXTS = Path(__file__).with_name("licences")

LICENCES = {
    "bzip2": "bzip2-1.0.6",
    "expat": "MIT",
    "libedit": "BSD-3-Clause",
    "libffi": "MIT",
    "libmpdec": "BSD-2-Clause",
    "libuuid": "BSD-3-Clause",
    "ncurses": "X11-distribute-modifications-variant",
    "openssl": "Apache-2.0",
    "sqlite": "blessing",
    "xz": "0BSD",
    "zlib": "Zlib",
    "zstd": "BSD-3-Clause",
}
"""Each library's licence, in SPDX's words."""

ELSEWHERE = {"libedit", "libuuid", "ncurses"}
"""Those that Windows' runtime has not."""

_ASK = """
import _decimal, curses, json, pyexpat, sqlite3, ssl, zlib
from compression import zstd
print(json.dumps({
    "expat": pyexpat.EXPAT_VERSION.removeprefix("expat_"),
    "libmpdec": _decimal.__libmpdec_version__,
    "ncurses": "{0.major}.{0.minor}.{0.patch}".format(curses.ncurses_version),
    "openssl": ssl.OPENSSL_VERSION.split()[1],
    "sqlite": sqlite3.sqlite_version,
    "zlib": zlib.ZLIB_RUNTIME_VERSION,
    "zstd": zstd.zstd_version,
}))
"""


def parts(interpreter: Path, platform: Platform) -> Iterator[Part]:
    """Yield the libraries that the runtime of a platform carries, with the versions that an interpreter here tells.

    Those that cannot be asked have none; so has Windows' runtime, whose interpreter does not run here.
    """
    versions: dict[str, str] = {}
    if not platform.windows:
        told = subprocess.run([interpreter, "-I", "-c", _ASK], check=True, capture_output=True, text=True).stdout
        versions = json.loads(told)
    for name, licence in LICENCES.items():
        if not (platform.windows and name in ELSEWHERE):
            text = (TEXTS / f"{name}.txt").read_text(encoding="utf-8")
            yield Part(PackageURL("generic", None, name, versions.get(name)), licence, (("licence", text),))
