"""Makes docs/demo.svg: what `make demo` prints on a terminal, as it came out of a real run."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs" / "demo.svg"
WIDTH_CHARACTERS = 112
FONT_FACES = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
"""rich's way to fetch a font from the network: a picture in a repository should need none."""
FONTS = "DejaVu Sans Mono, Menlo, Consolas"


def main() -> None:
    """Run the demo and write the picture."""
    environment = os.environ | {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": str(WIDTH_CHARACTERS)}
    done = subprocess.run([sys.executable, "-m", "demo"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True)
    console = Console(record=True, width=WIDTH_CHARACTERS, file=io.StringIO(), force_terminal=True)
    console.print("[bold]$[/] make demo", highlight=False)
    console.print(Text.from_ansi(done.stdout.decode().rstrip()))
    picture = FONT_FACES.sub("", console.export_svg(title="make demo", unique_id="demo")).replace("Fira Code", FONTS)
    TARGET.write_text("\n".join(line.rstrip() for line in picture.splitlines()) + "\n", encoding="utf-8")
    print(f"wrote {TARGET.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
