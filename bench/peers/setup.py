"""Sets the peers up below build/peers: `python -m bench.peers.setup`. What is there already is left alone.

Each has a virtual environment of its own with locked, hashed requirements (requirements/peers-NAME.txt). One that
cannot be set up leaves its reason there; the run goes on without it, and the page says why.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from rich.console import Console

REPOSITORY = Path(__file__).parent.parent.parent
FOLDER = REPOSITORY / "build" / "peers"
SOURCE = Path(__file__).parent / "echo.cc"
ECHO = FOLDER / "echo" / "echo"

DEBIAN_PYTHON = Path("/usr/bin/python3.11")
DEBIAN_LIBRARY = "libpython3.11.so.1.0"
ENVIRONMENTS = ("triton", "mlserver", "litserve", "bentoml")
PEERS = ("echo", *ENVIRONMENTS)

STAMP = "installed"
REASON = "reason"


class SetupError(Exception):
    """A peer cannot be set up here; the text says why, and what would help."""


def main() -> None:
    """Set everything up that is not there yet, and print what came of it."""
    console = Console(stderr=True)
    for name in PEERS:
        with console.status(f"setting up {name}"):
            why = set_up(name)
        console.print(f"{name}: {'skipped: ' + why if why else 'ready'}", markup=False, highlight=False)


def set_up(name: str) -> str | None:
    """Set a peer up unless it is there as locked; return why it cannot be, or None."""
    folder = FOLDER / name
    wanted = _fingerprint(name)
    stamp, reason_file = folder / STAMP, folder / REASON
    if stamp.is_file() and stamp.read_text() == wanted:
        return None
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        if name == "echo":
            compile_echo(ECHO)
        else:
            _install(name, folder)
    except SetupError as why:
        reason_file.write_text(str(why))
        return str(why)
    stamp.write_text(wanted)
    return None


def reason(name: str) -> str | None:
    """Return why a peer is not there, or None where it is."""
    folder = FOLDER / name
    stamp = folder / STAMP
    if stamp.is_file():
        return None if stamp.read_text() == _fingerprint(name) else "not set up as locked (make peers)"
    file = folder / REASON
    return file.read_text() if file.is_file() else "not set up (make peers)"


def python_of(name: str) -> Path:
    """Return the interpreter of a peer's virtual environment."""
    return FOLDER / name / "bin" / "python"


def packages_of(name: str) -> Path:
    """Return where a peer's packages lie."""
    return next((FOLDER / name / "lib").glob("python3*/site-packages"))


def triton_folder() -> Path:
    """Return where Triton's server lies."""
    return packages_of("triton") / "pytriton" / "tritonserver"


def version_of(name: str, package: str) -> str:
    """Return a package in a peer's virtual environment, with its version."""
    program = f"from importlib.metadata import version; print({package!r}, version({package!r}))"
    return subprocess.run([python_of(name), "-c", program], check=True, capture_output=True, text=True).stdout.strip()


def version_of_grpc() -> str:
    """Return the gRPC that the echo is built with."""
    said = subprocess.run(["pkg-config", "--modversion", "grpc++"], check=False, capture_output=True, text=True)
    return f"grpc++ {said.stdout.strip() or '(of unknown version)'}"


def _fingerprint(name: str) -> str:
    source = SOURCE if name == "echo" else REPOSITORY / "requirements" / f"peers-{name}.txt"
    return hashlib.sha256(source.read_bytes()).hexdigest()


def compile_echo(program: Path) -> None:
    """Compile the echo. Raises `SetupError`."""
    try:
        flags = _said(["pkg-config", "--cflags", "--libs", "grpc++"]).split()
        _said(["g++", "-O2", "-std=c++17", str(SOURCE), "-o", str(program), *flags])
    except SetupError as why:
        raise SetupError(
            f"it needs a C++ compiler and gRPC (Debian: apt-get install g++ libgrpc++-dev): {why}"
        ) from why


def _install(name: str, folder: Path) -> None:
    python = Path(sys.executable)
    if name == "triton":
        if not DEBIAN_PYTHON.exists():
            raise SetupError(
                f"Triton's stub needs Debian's own Python (apt-get install python3.11-venv): {DEBIAN_PYTHON}"
            )
        python = DEBIAN_PYTHON
    _said([str(python), "-m", "venv", str(folder)])
    requirements = REPOSITORY / "requirements" / f"peers-{name}.txt"
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
    _said([str(python_of(name)), *install, "-r", str(requirements)])
    if name == "triton":
        _link_stub()


def _link_stub() -> None:
    """Put the stub for this Python where Triton looks for it."""
    stub = triton_folder() / "python_backend_stubs" / "3.11" / "triton_python_backend_stub"
    if f"{DEBIAN_LIBRARY} => not found" in _said(["ldd", str(stub)]):
        raise SetupError(f"Triton's stub needs {DEBIAN_LIBRARY} (Debian: apt-get install libpython3.11)")
    (triton_folder() / "backends" / "python" / stub.name).symlink_to(stub)


def _said(command: list[str]) -> str:
    """Run a command and return what it printed, or raise `SetupError` with the end of its complaint."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise SetupError(f"{command[0]}: {error.strerror}") from error
    if done.returncode:
        raise SetupError(" ".join((done.stderr or done.stdout).strip().splitlines()[-1:])[:300])
    return done.stdout


if __name__ == "__main__":
    main()
