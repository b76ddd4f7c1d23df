"""What an archive is made of: the bill of materials (CycloneDX), and the licence texts of others' parts."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path
from uuid import UUID, uuid5

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

ROOT = Path(__file__).resolve().parent.parent
OWN = {"lightkeeper", "lightkeeper-wire"}
_LICENCES = ("LICEN[CS]E*", "COPYING*", "NOTICE*", "AUTHORS*", "*ThirdPartyNotices*")
_NAMESPACE = UUID("6d1c6f0e-3b0c-5c52-8b55-0e6f3a7f0f4b")


@dataclass(frozen=True, slots=True)
class Part:
    """One part: its package URL, its licence in SPDX's words where it says so, and its texts by name."""

    url: PackageURL
    licence: str
    texts: tuple[tuple[str, str], ...]


def python_parts(metadata: Path) -> Iterator[Part]:
    """Yield the packages whose metadata lie in a folder."""
    for folder in sorted(metadata.glob("*.dist-info")):
        package: Distribution = PathDistribution(folder)
        name = package.name.lower().replace("_", "-").replace(".", "-")
        if name in OWN:
            continue
        licence = _one(package, "License-Expression") or _one(package, "License") or _classified(package)
        texts = tuple(
            (path.name, path.read_text(encoding="utf-8", errors="replace"))
            for pattern in _LICENCES
            for path in sorted(folder.rglob(pattern))
            if path.is_file()
        )
        yield Part(PackageURL("pypi", None, name, package.version), licence.split("\n")[0], texts)


def crate_parts() -> Iterator[Part]:
    """Yield the crates that are compiled into the native wire."""
    locked = tomllib.loads((ROOT / "wire" / "Cargo.lock").read_text(encoding="utf-8"))
    for crate in locked["package"]:
        if crate["name"] not in OWN:
            yield Part(PackageURL("cargo", None, crate["name"], crate["version"]), "", ())


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
    """Return the third parties' names and licence texts, each text once where many share it."""
    lines = ["Third-party software in this archive", ""]
    users: dict[str, list[str]] = {}
    for part in parts:
        name = f"{part.url.name} {part.url.version}"
        lines.append(f"{name}: {part.licence or 'see the texts below, or its package'}")
        for file, text in part.texts:
            users.setdefault(text.strip(), []).append(f"{name}, {file}")
    for text, names in users.items():
        lines += ["", "=" * 100, *names, "-" * 100, text]
    return "\n".join(lines) + "\n"


def _one(package: Distribution, field: str) -> str:
    return next(iter(package.metadata.get_all(field) or ()), "")


def _classified(package: Distribution) -> str:
    classifiers = package.metadata.get_all("Classifier") or ()
    return ", ".join(text.rpartition(" :: ")[2] for text in classifiers if text.startswith("License :: "))
