"""The rules of the house that no linter knows, held against every file of the project."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "lightkeeper"
OURS = "tests/test_house_style.py"
"""This file names what the others may not."""

MAX_LINES_OF_CODE = 250
MAX_FILE_BYTES = 1024 * 1024

LONG_MODULES = {
    "src/lightkeeper/errors.py": "one tree of refusals, read as a list",
    "src/lightkeeper/config/model.py": "one declaration a key, read as a list",
}
"""Modules that are longer than the house likes, each with its reason."""

HOMES = {
    "aiohttp": ("hub/server.py",),
    "boto3": ("providers/aws.py", "providers/session.py", "hub/clients.py"),
    "botocore": (
        "providers/aws.py",
        "providers/awsfleet.py",
        "providers/session.py",
        "hub/clients.py",
        "hub/protocol.py",
    ),
    "ctypes": (
        "providers/custom.py",
        "providers/customlibrary.py",
        "resources.py",
        "system/windows.py",
        "hub/leash.py",
        "hub/worker.py",
    ),
    "grpc": ("transport/grpc_server.py", "client.py"),
    "lightkeeper_wire": ("transport/native_server.py",),
    "onnx": ("runtimes/onnxprepare.py",),
    "onnxruntime": ("runtimes/onnx.py", "runtimes/onnxprepare.py"),
    "pyarrow": ("captures/parquet.py",),
    "pydantic": ("config/model.py",),
    "pydantic_core": ("config/model.py",),
    "sqlalchemy": ("hub/",),
}
"""Where each heavy dependency may be imported; a path that ends in a slash stands for all below it."""

HEAVY = (
    "aiohttp",
    "boto3",
    "cryptography",
    "google.protobuf",
    "grpc",
    "numpy",
    "onnxruntime",
    "psutil",
    "pyarrow",
    "pydantic",
    "rich",
    "sqlalchemy",
)
"""What the command line's `--help` must not wait for."""

GENERATED = {
    f"src/lightkeeper/transport/{contract}_pb2.{kind}"
    for contract in ("agent", "control", "health", "reflection")
    for kind in ("py", "pyi")
}

WRITTEN_BY_OTHERS = ("wire/Cargo.lock", "wire/fuzz/Cargo.lock", "wire/vendor/h2/")
"""What cargo wrote, and another project's source: a path that ends in a slash stands for all below it."""


@cache
def project_files() -> tuple[Path, ...]:
    """Return every file that is part of the project: tracked, or new and not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    return tuple(
        path for name in sorted(listed.stdout.decode().split("\0")) if name and (path := ROOT / name).is_file()
    )


def relative(path: Path) -> str:
    """Return a path as the project names it."""
    return path.relative_to(ROOT).as_posix()


def python_files(*folders: str) -> list[Path]:
    """Return the hand-written Python files below folders of the project."""
    return [
        path
        for path in project_files()
        if path.suffix == ".py" and relative(path).startswith(folders) and relative(path) not in GENERATED
    ]


def text_files() -> Iterator[tuple[str, str]]:
    """Yield each hand-written text file of the project: its name and content."""
    for path in project_files():
        if relative(path) in GENERATED or relative(path).startswith(WRITTEN_BY_OTHERS):
            continue
        try:
            yield relative(path), path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


@cache
def parsed(path: Path) -> ast.Module:
    """Return a file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"))


def lines_of_code(path: Path) -> int:
    """Return how many lines have code on them: no blank lines, comments or docstrings."""
    source = path.read_text(encoding="utf-8")
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in silent:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def imported(path: Path) -> Iterator[str]:
    """Yield every module a file imports, wherever in the file."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def every_test() -> Iterator[tuple[str, ast.FunctionDef]]:
    """Yield every test with its name for a person."""
    for path in python_files("tests/"):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield f"{relative(path)}::{node.name}", node


def callee(call: ast.Call) -> str:
    """Return the last name of what is called."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def checks_something(test: ast.FunctionDef) -> bool:
    """Whether a test has an assertion, expects an error, or calls a function that is named as a check."""
    return any(
        isinstance(node, ast.Assert)
        or (isinstance(node, ast.Call) and re.match(r"raises$|warns$|assert_|expect", callee(node)))
        for node in ast.walk(test)
    )


def test_every_module_says_what_it_owns() -> None:
    """The first thing in a module is a docstring whose first paragraph is a sentence."""
    silent = [
        relative(path)
        for path in python_files("src/", "tests/", "tools/", "bench/", "demo/")
        if not (ast.get_docstring(parsed(path)) or "").split("\n\n")[0].endswith((".", ":"))
    ]
    assert silent == []


def test_modules_are_short_or_have_a_reason() -> None:
    """A module that outgrows the limit is two nouns; a reason that is no longer needed goes."""
    too_long = {
        relative(path): lines for path in python_files("src/") if (lines := lines_of_code(path)) > MAX_LINES_OF_CODE
    }
    assert set(too_long) - set(LONG_MODULES) == set(), too_long
    assert set(LONG_MODULES) - set(too_long) == set()


def test_no_module_is_a_drawer_for_odds_and_ends() -> None:
    """A module is named after its one noun."""
    drawers = {"utils", "util", "helpers", "helper", "common", "misc", "shared", "tools"}
    assert [relative(path) for path in python_files("src/") if drawers & set(path.with_suffix("").parts[-2:])] == []


def test_every_test_says_what_it_shows() -> None:
    """One paragraph under each test's name."""
    silent = [
        name
        for name, test in every_test()
        if not (words := ast.get_docstring(test) or "").endswith(".") or "\n\n" in words
    ]
    assert silent == []


def test_every_test_checks_something() -> None:
    """A test without an assertion cannot fail."""
    assert [name for name, test in every_test() if not checks_something(test)] == []


def test_our_own_code_is_never_patched() -> None:
    """Fakes implement the real protocols; the environment and the working directory may be set."""
    patches = re.compile(
        r"\bmonkeypatch\.(setattr|delattr|setitem|delitem)\b|\bunittest\.mock\b|\bmocker\b|\bimport mock\b"
    )
    found = [
        f"{relative(path)}:{number}"
        for path in python_files("tests/")
        if relative(path) != OURS
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if patches.search(line)
    ]
    assert found == []


def test_only_the_command_line_prints() -> None:
    """Everything else logs."""
    printing = [
        f"{relative(path)}:{node.lineno}"
        for path in python_files("src/")
        if not path.is_relative_to(PACKAGE / "cli")
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert printing == []


@pytest.mark.parametrize("dependency", HOMES)
def test_a_heavy_dependency_stays_in_its_home(dependency: str) -> None:
    """To replace it, one place is changed."""
    strays = [
        relative(path)
        for path in python_files("src/")
        if any(name == dependency or name.startswith(f"{dependency}.") for name in imported(path))
        and not any(
            place.startswith(home) if home.endswith("/") else place == home
            for place in [path.relative_to(PACKAGE).as_posix()]
            for home in HOMES[dependency]
        )
    ]
    assert strays == []


def test_the_command_line_imports_nothing_heavy_before_it_runs_a_command() -> None:
    """`--help` and a typing error answer at once."""
    program = (
        "import sys; from lightkeeper import cli; cli.build_parser(); "
        f"print(*[name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_client_imports_nothing_of_the_agents() -> None:
    """An application pays for numpy, protobuf and gRPC, and for nothing else."""
    program = (
        "import sys; import lightkeeper.client; "
        "print(*[name for name in ('boto3', 'cryptography', 'onnxruntime', 'psutil', 'pydantic', 'rich', 'sqlite3', "
        "'lightkeeper.service') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_nothing_is_left_to_be_done_in_a_comment() -> None:
    """What is missing is written down where work is planned, not in the code."""
    marks = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    assert [name for name, text in text_files() if name != OURS and marks.search(text)] == []


def test_every_exception_to_a_rule_has_a_code_and_a_reason() -> None:
    """Whoever reads it knows what was weighed."""
    comment = re.compile(r"#\s*(noqa|type: ignore)(?P<rest>.*)$", re.MULTILINE)
    reasoned = re.compile(r"(: [A-Z]+\d+(, [A-Z]+\d+)*|\[[a-z-]+(, ?[a-z-]+)*\])\s*(-|#|--|—)+\s*\S.*")
    bare = [
        f"{relative(path)}: {found[0]}"
        for path in python_files("src/", "tests/", "tools/", "bench/", "demo/")
        if relative(path) != OURS
        for found in comment.finditer(path.read_text(encoding="utf-8"))
        if not reasoned.match(found["rest"])
    ]
    assert bare == []


def test_no_file_is_large() -> None:
    """Models and pictures come from packages; fixtures are small."""
    assert [relative(path) for path in project_files() if path.stat().st_size > MAX_FILE_BYTES] == []


def test_no_file_names_a_registry_or_a_path_of_a_machine() -> None:
    """The project is built wherever it is cloned, from whatever registry is configured there."""
    hosts = ["pypi.org", "pythonhosted.org", "crates.io", "npmjs.", "proxy.golang.org", "docker.io"]
    named = re.compile("|".join(re.escape(word) for word in [*hosts, "/work/", "/root/"]))
    assert [name for name, text in text_files() if name != OURS and named.search(text)] == []


def test_the_committed_protobuf_code_is_the_generated_one(tmp_path: Path) -> None:
    """Whoever changes the contract runs `make proto`."""
    spec = spec_from_file_location("generate_proto", ROOT / "tools" / "generate_proto.py")
    assert spec is not None
    assert spec.loader is not None
    generator = module_from_spec(spec)
    spec.loader.exec_module(generator)
    generator.generate(tmp_path)
    for name in GENERATED:
        committed = ROOT / name
        assert committed.read_text() == (tmp_path / committed.name).read_text(), "run make proto"


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "requirements").glob("*.txt")))
def test_locked_requirements_have_hashes_and_no_address(name: str) -> None:
    """What is installed is what was locked, from wherever."""
    text = (ROOT / "requirements" / name).read_text()
    requirements = re.split(r"\n(?=[a-z0-9])", text.strip(), flags=re.IGNORECASE)
    assert len(requirements) > 5
    assert [entry for entry in requirements if not re.search(r"--hash=sha256:[0-9a-f]{64}", entry)] == []
    assert [entry for entry in requirements if not re.match(r"[A-Za-z0-9._-]+==\S+", entry)] == []
    assert re.search(r"://|--(extra-)?index-url|--find-links", text) is None
