"""DataInputConfig: the names and shapes of a model's inputs as a compilation job declares them, a JSON text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lightkeeper.errors import JobUnsupported
from lightkeeper.modelpackage.manifest import DIMENSION_MAXIMUM, RANK_MAXIMUM
from lightkeeper.tensor import DYNAMIC


def shapes(config: str | None) -> dict[str, list[int]]:
    """Return each declared input's shape; a dimension of -1 or null stays as the model has it.

    Both `{"x": [1, 3]}` and `{"x": {"shape": [1, 3]}}` are read. Raises `JobUnsupported`.
    """
    if config is None:
        return {}
    try:
        document = json.loads(config)
    except (ValueError, RecursionError) as error:
        raise JobUnsupported(f"DataInputConfig is not JSON: {error}") from error
    if not isinstance(document, dict) or not document:
        raise JobUnsupported('DataInputConfig must name the inputs, such as {"input": [1, 3, 224, 224]}')
    return {name: _shape(name, said) for name, said in document.items()}


def _shape(name: str, said: object) -> list[int]:
    sizes: Any = said.get("shape") if isinstance(said, Mapping) and said.keys() == {"shape"} else said
    if not isinstance(sizes, list) or len(sizes) > RANK_MAXIMUM:
        raise JobUnsupported(f"DataInputConfig: the shape of {name!r} must be a list of at most {RANK_MAXIMUM} sizes")
    return [_size(name, size) for size in sizes]


def _size(name: str, size: object) -> int:
    if size is None or size == DYNAMIC:
        return DYNAMIC
    if not isinstance(size, int) or isinstance(size, bool) or not 0 < size <= DIMENSION_MAXIMUM:
        raise JobUnsupported(f"DataInputConfig: the shape of {name!r} has {size!r}, which is no size")
    return size
