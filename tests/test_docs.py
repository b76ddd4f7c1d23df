"""The generated pages are those of the code, and they are complete."""

from __future__ import annotations

import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from lightkeeper.config.check import OLDER_NAMES
from lightkeeper.config.model import every_key
from lightkeeper.errors import concrete_errors

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """Return the program that writes the pages."""
    spec = spec_from_file_location("generate_docs", ROOT / "tools" / "generate_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["configuration.md", "errors.md"])
def test_a_committed_page_is_the_generated_one(generator: ModuleType, page: str) -> None:
    """Whoever changes a key or an error runs `make docs`."""
    assert (DOCS / page).read_text(encoding="utf-8") == generator.pages()[page], "run make docs"


def test_every_key_has_a_row() -> None:
    """And the older name is spoken of."""
    text = (DOCS / "configuration.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `([a-z0-9_]+)` \|", text, re.MULTILINE) == [key.name for key in every_key()]
    assert all(older in text for older in OLDER_NAMES)


def test_every_error_has_a_row() -> None:
    """With its meaning, its status or none, its exit code and its next step."""
    rows = re.findall(r"^\| `([A-Z_]+)` \|(.*)\|$", (DOCS / "errors.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(code for code, _ in rows) == sorted(concrete_errors())
    for code, rest in rows:
        meaning, status, exit_code, next_step = (cell.strip() for cell in re.split(r"(?<!\\)\|", rest))
        assert meaning.endswith("."), code
        assert re.fullmatch(r"-|`[A-Z_]+`", status), code
        assert exit_code in {"1", "3", "70"}, code
        assert next_step, code


def test_every_word_of_the_glossary_is_there_once_and_in_order() -> None:
    """A glossary is looked things up in."""
    words = re.findall(r"^\| ([^|]+) \|", (DOCS / "glossary.md").read_text(encoding="utf-8"), re.MULTILINE)[2:]
    assert words == sorted(words)
    assert len(words) == len(set(words)) > 40


def test_every_link_between_the_pages_leads_somewhere() -> None:
    """A page that moves takes its links along."""
    pages = [*DOCS.rglob("*.md"), ROOT / "README.md"]
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for text in [re.sub(r"`[^`]*`", "", page.read_text(encoding="utf-8"))]  # code is no link
        for target in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", text)
        if not (page.parent / target).exists()
    ]
    assert broken == []
