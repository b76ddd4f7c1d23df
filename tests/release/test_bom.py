"""The bill of materials and the notices: every part with version and licence."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from release import bom, linked
from release.bom import Part, UnlicensedError

PARTS = (
    Part(PackageURL("pypi", None, "one", "1.0"), "MIT", (("LICENSE", "permission is granted"),)),
    Part(PackageURL("pypi", None, "two", "2.0"), "Apache-2.0", (("LICENSE.txt", "permission is granted\n"),)),
    Part(PackageURL("cargo", None, "three", "3.0"), "0BSD", (("LICENSE-0BSD", "permission"),)),
)


def test_the_bill_is_valid_and_names_every_part() -> None:
    """By the schema of CycloneDX, checked strictly."""
    text = bom.bill("1.20261101.0a1b2c3", 1_790_000_000, PARTS)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    for part in PARTS:
        assert part.url.to_string() in text


def test_the_same_parts_give_the_same_bill() -> None:
    """No random numbers, no time of day."""
    first, second = (bom.bill("v", 1_790_000_000, PARTS) for _ in range(2))
    assert first == second


def test_a_text_that_many_share_is_printed_once() -> None:
    """With the names of all who share it."""
    text = bom.notices(PARTS)
    assert text.count("permission is granted") == 1
    assert all(name in text for name in ("one 1.0, LICENSE", "two 2.0, LICENSE.txt", "three 3.0"))


def test_licences_are_read_from_packages_metadata(tmp_path: Path) -> None:
    """The newer field, the older one, and the classifier stand for each other; own packages are left out."""
    for name, field in {
        "new": "License-Expression: MIT",
        "old": "License: BSD",
        "listed": "Classifier: License :: OSI Approved :: ISC License",
        "lightkeeper": "License: Apache-2.0",
    }.items():
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{field}\n")
    found = {part.url.name: part.licence for part in bom.python_parts(tmp_path, tmp_path)}
    assert found == {"new": "MIT", "old": "BSD", "listed": "ISC License"}


def test_licence_texts_are_found_in_metadata_and_among_modules(tmp_path: Path) -> None:
    """Some packages ship them with their code; the text of Apache 2.0 is this project's own where one has none."""
    for name, licence in {"beside": "MIT License", "bare": "Apache 2.0"}.items():
        folder = tmp_path / "metadata" / f"{name}-1.0.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nLicense: {licence}\n")
    (tmp_path / "packages" / "beside").mkdir(parents=True)
    (tmp_path / "packages" / "beside" / "ThirdPartyNotices.txt").write_text("of others")
    bare, beside = bom.python_parts(tmp_path / "metadata", tmp_path / "packages")
    assert (beside.licence, beside.texts) == ("MIT", (("ThirdPartyNotices.txt", "of others"),))
    assert bare.licence == "Apache-2.0"
    assert "Apache License" in bare.texts[0][1]


@pytest.mark.parametrize("part", [replace(PARTS[0], licence=""), replace(PARTS[0], texts=())])
def test_a_part_without_licence_or_text_ends_the_build(part: Part) -> None:
    """Nothing is shipped whose terms are unknown."""
    with pytest.raises(UnlicensedError, match=r"one 1\.0"):
        bom.notices((part,))


@pytest.mark.skipif(shutil.which("cargo") is None, reason="cargo is not installed")
def test_the_crates_that_are_compiled_into_the_native_wire_are_parts() -> None:
    """With their licences' texts; what only helps to build it, or is for other systems, is not in it."""
    crates = {part.url.name: part for part in bom.crate_parts("x86_64")}
    assert {"h2", "tokio", "pyo3"} <= crates.keys()
    assert crates.keys().isdisjoint({"syn", "arbitrary", "windows-sys", "lightkeeper-wire"})
    assert all(part.licence and part.texts for part in crates.values())


def test_every_library_of_the_runtime_has_its_text() -> None:
    """As `licences/` has them."""
    assert {path.stem for path in linked.TEXTS.glob("*.txt")} == set(linked.LICENCES)
