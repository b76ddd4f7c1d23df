"""The README's own commands, run as they are printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from demo.ocr import STAGES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SECTION = README.partition("## Your own model")[2].partition("\n## ")[0]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with what the README's commands find in a checkout after `make demo`."""
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "build/demo/models").mkdir(parents=True)
    for stage in STAGES:
        (tmp_path / "build/demo/models" / stage.file.name).symlink_to(stage.file)
    (tmp_path / "build/demo/page.png").symlink_to(STAGES[0].file.parents[2] / "skimage/data/page.png")
    return tmp_path


def test_readme_commands_print_what_the_readme_shows_when_they_are_followed(checkout: Path) -> None:
    """Every command of the quick start succeeds in its order, and the sample prints the lines shown below it."""
    blocks = BLOCK.findall(SECTION)
    commands = [text for language, text in blocks if language == "sh"]
    (sample,) = [text for language, text in blocks if language == "python"]
    _, shown = [text for language, text in blocks if language == ""]
    (checkout / "sample.py").write_text(sample)
    script = ["set -e", "trap 'kill %1 2> /dev/null || true' EXIT", *commands, "python ../../sample.py > shown.txt"]
    script += ["kill %1", "wait %1", "test ! -e agent.sock"]
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)], cwd=checkout, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (checkout / "build/try/shown.txt").read_text() == shown
