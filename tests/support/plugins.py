"""A plug-in: an importable module on disk, as another distribution would bring it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAME = "lightkeeper_test_plugin"
CLASSES = """
class Made:
    formats = frozenset({"made", "onnx"})
    def __init__(self, options):
        self.options = options

class Refusing:
    def __init__(self, options):
        raise OSError("libmade.so: cannot open shared object file")
"""


@contextmanager
def plugin_on_path(folder: Path) -> Iterator[str]:
    """Yield the name of a module with two classes: one that can be made, one that cannot."""
    (folder / f"{NAME}.py").write_text(CLASSES, encoding="utf-8")
    sys.path.insert(0, str(folder))
    try:
        yield NAME
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop(NAME, None)
