"""What runs on Windows too stays portable: no Unix-only import, and no name that one system's library has not."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "lightkeeper"

UNIX_ONLY = frozenset(
    {
        "fcntl",
        "grp",
        "posix",
        "posixshmem",
        "pty",
        "pwd",
        "readline",
        "resource",
        "syslog",
        "sysv_ipc",
        "termios",
        "tty",
    }
)
WINDOWS_ONLY = frozenset({"_winapi", "msvcrt", "winreg", "winsound"})

ELSEWHERE = {
    "doctor": "it looks at a Linux device: /proc, mounts, owners",
    "hub": "a hub runs on a server, which is no Windows machine",
    "system/posix.py": "what POSIX has",
    "system/windows.py": "what Windows has",
    "transport/unix_socket.py": "the socket itself",
}
"""What need not be portable, by its path in the package, and why."""


def portable_modules() -> list[Path]:
    """Return every module of the portable part."""
    return [
        path
        for path in sorted(PACKAGE.rglob("*.py"))
        if not any(path.relative_to(PACKAGE).as_posix().startswith(each) for each in ELSEWHERE)
    ]


def imports_at_start(path: Path) -> set[str]:
    """Return the top-level packages that a module imports when it is imported, the type checker aside."""
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").partition(".")[0])
        waiting.extend(ast.iter_child_nodes(node))
    return found


def signatures(module: str) -> dict[str, str]:
    """Return the public names that a module of `system` makes, each with what a caller must know of it."""
    tree = ast.parse((PACKAGE / "system" / module).read_text(encoding="utf-8"))
    found: dict[str, str] = {}
    for node in tree.body:
        match node:
            case ast.FunctionDef():
                found[node.name] = f"{ast.unparse(node.args)} -> {node.returns and ast.unparse(node.returns)}"
            case ast.ClassDef():
                methods = [each for each in node.body if isinstance(each, ast.FunctionDef) and each.name[0] != "_"]
                found[node.name] = str({each.name: ast.unparse(each.args) for each in methods})
            case ast.Assign(targets=[ast.Name(id=name)]):
                found[name] = "value"
    return {name: told for name, told in found.items() if not name.startswith("_")}


def test_no_module_of_the_portable_part_imports_what_one_system_has() -> None:
    """Neither at its start nor, for all but System V's segments, ever."""
    guilty = {
        path.name: found
        for path in portable_modules()
        if (found := imports_at_start(path) & (UNIX_ONLY | WINDOWS_ONLY))
    }
    assert guilty == {}


def test_both_systems_have_the_same_names_and_signatures() -> None:
    """`system` promises one name for each thing, whichever module gives it."""
    posix = signatures("posix.py")
    assert posix == signatures("windows.py")
    chosen = ast.parse((PACKAGE / "system" / "__init__.py").read_text(encoding="utf-8"))
    listed = next(node.value for node in chosen.body if isinstance(node, ast.Assign))
    assert set(ast.literal_eval(listed)) == set(posix)


@pytest.mark.timeout(300)
def test_the_portable_part_uses_no_name_that_windows_lacks() -> None:
    """The type checker, told that it is on Windows, knows what `os`, `signal` and `socket` have there."""
    packages = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in portable_modules()}
    named = [f"--package=lightkeeper.{name}" for name in sorted(packages - {"__init__"})]
    options = ["--platform=win32", f"--cache-dir={ROOT / '.mypy_cache' / 'windows'}", "--follow-imports=silent"]
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", *options, *named], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
