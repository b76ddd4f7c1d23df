"""What an archive is made of: the bill of materials (CycloneDX), and the licence texts of others' parts."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

ROOT = Path(__file__).resolve().parent.parent
OWN = {"lightkeeper", "lightkeeper-wire"}
WIRE = ROOT / "wire" / "Cargo.toml"
_TEXTS = ("LICEN[CS]E*", "UNLICENSE*", "COPYING*", "NOTICE*", "AUTHORS*", "ThirdPartyNotices*")
_APACHE = "Apache-2.0"
_SPDX = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": _APACHE,
    "Apache License 2.0": _APACHE,
    "Apache-2.0 / MIT": "Apache-2.0 OR MIT",
    "Dual License": "Apache-2.0 OR BSD-3-Clause",  # python-dateutil's
    "MIT License": "MIT",
}
"""What packages call a licence, and its name in SPDX."""

_NAMESPACE = UUID("6d1c6f0e-3b0c-5c52-8b55-0e6f3a7f0f4b")


@dataclass(frozen=True, slots=True)
class Part:
    """One part: its package URL, its licence in SPDX's words where it says so, and its texts by name."""

    url: PackageURL
    licence: str
    texts: tuple[tuple[str, str], ...]


class UnlicensedError(Exception):
    """A part comes without a licence, or without its text."""


def python_parts(metadata: Path, packages: Path) -> Iterator[Part]:
    """Yield the packages whose metadata lie in a folder; texts that lie among the modules themselves count too."""
    for folder in sorted(metadata.glob("*.dist-info")):
        package: Distribution = PathDistribution(folder)
        name = package.name.lower().replace("_", "-").replace(".", "-")
        if name in OWN:
            continue
        licence = _one(package, "License-Expression") or _one(package, "License") or _classified(package)
        texts = (*_texts(folder.rglob), *_texts((packages / name).glob))
        yield _part(PackageURL("pypi", None, name, package.version), licence.split("\n")[0], texts)


def crate_parts(machine: str) -> Iterator[Part]:
    """Yield the crates that are compiled into the native wire of a machine: not those that only help to build it."""
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--manifest-path", str(WIRE)]
    told = subprocess.run(
        [*command, "--filter-platform", f"{machine}-unknown-linux-gnu"], check=True, stdout=subprocess.PIPE
    ).stdout
    known = json.loads(told)
    crates = {crate["id"]: crate for crate in known["packages"]}
    nodes = {node["id"]: node for node in known["resolve"]["nodes"]}
    linked: set[str] = set()
    open_ends = {known["resolve"]["root"]}
    while open_ends:
        linked |= open_ends
        asked = {
            end["pkg"]
            for one in open_ends
            for end in nodes[one]["deps"]
            if any(kind["kind"] is None for kind in end["dep_kinds"]) and not _is_macro(crates[end["pkg"]])
        }
        open_ends = asked - linked
    for crate in sorted((crates[one] for one in linked), key=lambda crate: (crate["name"], crate["version"])):
        if crate["name"] not in OWN:
            texts = _texts(Path(crate["manifest_path"]).parent.glob)
            yield _part(PackageURL("cargo", None, crate["name"], crate["version"]), crate["license"] or "", texts)


def bill(version: str, time_seconds: int, parts: Iterable[Part]) -> str:
    """Return the bill of materials of a release as CycloneDX JSON; the same parts give the same text."""
    licences = LicenseFactory()
    bom = Bom(serial_number=uuid5(_NAMESPACE, version))
    bom.metadata.timestamp = datetime.fromtimestamp(time_seconds, UTC)
    bom.metadata.component = Component(
        type=ComponentType.APPLICATION, name="lightkeeper", version=version, bom_ref="lightkeeper"
    )
    for part in parts:
        component = Component(
            type=ComponentType.LIBRARY,
            name=part.url.name,
            version=part.url.version,
            purl=part.url,
            bom_ref=part.url.to_string(),
            licenses=[licences.make_from_string(part.licence)] if part.licence else [],
        )
        bom.components.add(component)
        bom.register_dependency(bom.metadata.component, [component])
    return JsonV1Dot6(bom).output_as_string(indent=2) + "\n"


def notices(parts: Iterable[Part]) -> str:
    """Return the third parties' names and licence texts, each text once where many share it.

    Raises `UnlicensedError` for a part without a licence or without its text.
    """
    lines = ["Third-party software in this archive", ""]
    users: dict[str, list[str]] = {}
    for part in parts:
        name = f"{part.url.name} {part.url.version or ''}".strip()
        if not (part.licence and part.texts):
            raise UnlicensedError(f"{name} says nothing of its licence, or lacks the text of {part.licence}")
        lines.append(f"{name}: {part.licence}")
        for file, text in part.texts:
            users.setdefault(text.strip(), []).append(f"{name}, {file}")
    for text, names in users.items():
        lines += ["", "=" * 100, *names, "-" * 100, text]
    return "\n".join(lines) + "\n"


def _part(url: PackageURL, licence: str, texts: tuple[tuple[str, str], ...]) -> Part:
    """Return a part with its licence as SPDX has it; this project's own text stands for a missing one of the same."""
    licence = _SPDX.get(licence, licence)
    if not texts and _APACHE in licence:
        texts = (("LICENSE", (ROOT / "LICENSE").read_text(encoding="utf-8")),)
    return Part(url, licence, texts)


def _texts(glob: Callable[[str], Iterable[Path]]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (path.name, path.read_text(encoding="utf-8", errors="replace"))
        for pattern in _TEXTS
        for path in sorted(glob(pattern))
        if path.is_file()
    )


def _is_macro(crate: dict[str, Any]) -> bool:
    return any("proc-macro" in target["kind"] for target in crate["targets"])


def _one(package: Distribution, field: str) -> str:
    return next(iter(package.metadata.get_all(field) or ()), "")


def _classified(package: Distribution) -> str:
    classifiers = package.metadata.get_all("Classifier") or ()
    return ", ".join(text.rpartition(" :: ")[2] for text in classifiers if text.startswith("License :: "))
