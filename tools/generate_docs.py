"""Generate the committed reference pages from the code (`make docs`): docs/configuration.md and docs/errors.md."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from lightkeeper import errors
from lightkeeper.cli import exit_code
from lightkeeper.config.document import MAX_FILE_BYTES
from lightkeeper.config.model import Key, every_key
from lightkeeper.transport import status

ROOT = Path(__file__).resolve().parent.parent
TEMPLATES = ROOT / "tools" / "templates"


def pages() -> dict[str, str]:
    """Return the text of every generated page by its name in docs/."""
    return {"configuration.md": _configuration(), "errors.md": _errors()}


def _configuration() -> str:
    sections: dict[str, list[Key]] = {}
    for key in every_key():
        sections.setdefault(key.section, []).append(key)
    tables = "\n\n".join(f"## {section}\n\n{_key_table(keys)}" for section, keys in sections.items())
    return _filled("configuration.md", tables=tables, max_file=f"{MAX_FILE_BYTES:,}")


def _key_table(keys: list[Key]) -> str:
    rows = [(f"`{key.name}`", key.meaning, key.allowed, key.default or "**required**") for key in keys]
    return _table(("key", "meaning", "allowed", "default"), rows)


def _errors() -> str:
    tables = "\n\n".join(_category(error, depth=2) for error in errors.AgentError.__subclasses__())
    return _filled("errors.md", tables=tables, domain=status.DOMAIN, next_step_key=status.NEXT_STEP_KEY)


def _category(category: type[errors.AgentError], depth: int) -> str:
    """Return the section of one branch of the tree: its own leaves in a table, then its sub-branches."""
    children = category.__subclasses__()
    parts = [f"{'#' * depth} {category.__name__}\n\n{_summary(category)}"]
    leaves = [error for error in children if error.reason]
    if leaves:
        parts.append(_table(("code", "meaning", "status", "exit", "next step"), [_row(error) for error in leaves]))
    parts += [_category(error, depth + 1) for error in children if not error.reason]
    return "\n\n".join(parts)


def _row(error: type[errors.AgentError]) -> tuple[str, ...]:
    code = status.status_code(error)
    name = f"`{code.name}`" if code is not None else "-"
    return (f"`{error.reason}`", _summary(error), name, str(exit_code(error)), error.next_step)


def _summary(error: type[errors.AgentError]) -> str:
    return (error.__doc__ or "").strip().splitlines()[0]


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(_lines(headings, rows))


def _lines(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for cells in (headings, ("---",) * len(headings), *rows):
        escaped = (cell.replace("|", "\\|") for cell in cells)
        yield f"| {' | '.join(escaped)} |"


def _filled(template: str, **parts: str) -> str:
    return (TEMPLATES / template).read_text(encoding="utf-8").format(**parts)


if __name__ == "__main__":
    for name, text in pages().items():
        (ROOT / "docs" / name).write_text(text, encoding="utf-8")
        print(f"wrote docs/{name}")
