"""The checks of sockets, modes and root certificates, each failure made on the disk."""

from __future__ import annotations

import socket
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lightkeeper.doctor import Diagnosis, State, access
from lightkeeper.errors import AgentUnreachable, CallTimedOut, Finding
from lightkeeper.modelpackage.issuer import Issuer
from lightkeeper.transport.endpoint import Endpoint
from tests.support.users import ordinary_user

NOW = datetime.now(UTC)


def look(path: Path | str, *, mode: int = 0o600, group: str | None = None, models: int = 0) -> Diagnosis:
    """Check a socket as the command does; an agent there would have so many models."""
    return access.socket(str(path), mode=mode, group=group, models=lambda: models)


def test_a_free_path_passes_and_nothing_is_made(tmp_path: Path) -> None:
    """An agent could be started at once."""
    assert look(tmp_path / "agent.sock").state is State.OK
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("s" * 108, "SOCKET_PATH_TOO_LONG"),
        ("none/agent.sock", "SOCKET_FOLDER_MISSING"),
        ("file", "SOCKET_PATH_EXISTS"),
    ],
)
def test_a_path_that_no_agent_could_serve_fails_with_its_code(tmp_path: Path, name: str, reason: str) -> None:
    """It is the code that the agent would end with."""
    (tmp_path / "file").touch()
    found = look(tmp_path / name)
    assert (found.state, found.reason) == (State.FAILED, reason)
    assert found.fix
    assert look("tcp:host:1").reason == "SOCKET_ADDRESS_INVALID"


def test_a_socket_that_a_killed_agent_left_warns_and_stays(tmp_path: Path) -> None:
    """Only `-f` removes it."""
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    found = look(path)
    assert (found.state, found.reason, "-f" in found.fix) == (State.WARNING, "SOCKET_STALE", True)
    assert path.is_socket()


def test_a_socket_that_is_served_is_asked(tmp_path: Path) -> None:
    """How many models are loaded is told; one that does not answer fails."""
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as served:
        served.bind(str(path))
        served.listen()
        assert look(path, models=3).found.endswith("3 models loaded")

        def no_answer() -> int:
            raise CallTimedOut("no answer within 5 s")

        found = access.socket(str(path), mode=0o600, group=None, models=no_answer)
        assert (found.state, found.reason) == (State.FAILED, "CALL_TIMED_OUT")


def test_rights_that_do_not_reach_their_callers_are_told(tmp_path: Path) -> None:
    """A group that is not there, a folder that keeps the group out, a folder that everybody may empty."""
    path = tmp_path / "agent.sock"
    missing = look(path, group="no-such-group")
    assert (missing.state, missing.fix) == (State.FAILED, "groupadd --system no-such-group")
    inner = tmp_path / "run"
    inner.mkdir(mode=0o700)
    found = look(inner / "agent.sock", mode=0o666)
    assert found.state is State.WARNING
    assert found.fix.startswith("chmod go+x ")
    inner.chmod(0o777)
    assert "everybody may remove" in look(inner / "agent.sock").found


@pytest.fixture
def port() -> Iterator[int]:
    """Return a port of this machine that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as served:
        yield served.getsockname()[1]


def test_a_free_path_of_an_endpoint_passes_and_nothing_is_made(tmp_path: Path) -> None:
    """Not even the lock that an agent has beside it."""
    found = look(f"loopback:{tmp_path / 'agent.endpoint'}")
    assert (found.state, found.facts["path"]) == (State.OK, str(tmp_path / "agent.endpoint"))
    assert list(tmp_path.iterdir()) == []
    assert look(f"loopback:{tmp_path / 'none' / 'agent'}").reason == "SOCKET_FOLDER_MISSING"


def test_an_endpoint_that_is_served_is_asked(tmp_path: Path, port: int) -> None:
    """How many models are loaded is told, and rights that the configuration does not give."""
    path = tmp_path / "agent.endpoint"
    path.write_bytes(Endpoint(port, "aa").to_bytes())
    path.chmod(0o600)
    assert look(f"loopback:{path}", models=3).found.endswith("3 models loaded")
    path.chmod(0o644)
    found = look(f"loopback:{path}", models=3)
    assert (found.state, found.fix.startswith(f"chmod 0600 {path}")) == (State.WARNING, True)
    assert look(f"loopback:{path}", mode=0o644, models=3).state is State.OK


def test_the_file_of_an_agent_that_has_ended_warns_and_stays(tmp_path: Path, port: int) -> None:
    """Where nobody listens on its port, or somebody else does."""

    def no_agent() -> int:
        raise AgentUnreachable("nobody knows the token")

    path = tmp_path / "agent.endpoint"
    path.write_bytes(Endpoint(port, "aa").to_bytes())
    taken = access.socket(f"loopback:{path}", mode=0o600, group=None, models=no_agent)
    assert (taken.state, taken.reason, "-f" in taken.fix) == (State.WARNING, "SOCKET_STALE", True)
    path.write_bytes(Endpoint(free_port(), "aa").to_bytes())
    left = look(f"loopback:{path}")
    assert (left.state, left.reason, "-f" in left.fix) == (State.WARNING, "SOCKET_STALE", True)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_what_is_no_agents_file_fails(tmp_path: Path) -> None:
    """An agent would not start there."""
    path = tmp_path / "agent.endpoint"
    path.write_text("not an agent's")
    assert look(f"loopback:{path}").reason == "SOCKET_PATH_EXISTS"


def test_folders_that_keep_an_endpoints_callers_out_are_told(tmp_path: Path) -> None:
    """Who may read the file may call: the bits for reading count, not those for writing."""
    inner = tmp_path / "run"
    inner.mkdir(mode=0o700)
    assert look(f"loopback:{inner / 'agent'}", mode=0o622).state is State.OK
    assert look(f"loopback:{inner / 'agent'}", mode=0o644).fix.startswith("chmod go+x ")


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as freed:
        return int(freed.getsockname()[1])


def root(folder: Path, name: str, *, made: datetime = NOW, years: int = 10) -> Path:
    """Write a root certificate as an authority gives it out."""
    folder.mkdir(exist_ok=True)
    file = folder / f"{name}.pem"
    file.write_bytes(Issuer.root(name, made, years).certificate_pem)
    file.chmod(0o444)
    return file


def test_sound_root_certificates_pass(tmp_path: Path) -> None:
    """With the day until which each is good."""
    file = root(tmp_path / "roots", "north")
    found = access.root_certificates(file.parent, NOW)
    assert found.state is State.OK
    assert found.facts["north.pem"].startswith("until 20")


def test_root_certificates_that_the_agent_refuses_fail_with_its_code(tmp_path: Path) -> None:
    """None there, one that can be written, one that is none."""
    folder = tmp_path / "roots"
    assert access.root_certificates(folder, NOW).reason == "ROOTS_MISSING"
    file = root(folder, "north")
    file.chmod(0o644)
    writable = access.root_certificates(folder, NOW)
    assert (writable.state, writable.reason, writable.facts["mode"]) == (State.FAILED, "ROOTS_WRITABLE", "0644")
    file.chmod(0o444)
    folder.chmod(0o777)
    assert access.root_certificates(folder, NOW).reason == "ROOTS_WRITABLE"
    folder.chmod(0o775)
    assert access.root_certificates(folder, NOW).fix == f"chmod g-w {folder}"
    (folder / "south.pem").write_text("nothing")
    (folder / "south.pem").chmod(stat.S_IRUSR)
    assert access.root_certificates(folder, NOW).reason == "ROOT_UNUSABLE"


def test_root_certificates_out_of_their_time_warn_or_fail(tmp_path: Path) -> None:
    """One of several is a warning; with none left no package can be loaded."""
    folder = tmp_path / "roots"
    root(folder, "old", made=NOW - timedelta(days=800), years=2)
    assert access.root_certificates(folder, NOW).state is State.FAILED
    root(folder, "new")
    found = access.root_certificates(folder, NOW)
    assert (found.state, "old.pem" in found.found, "new.pem" in found.found) == (State.WARNING, True, False)


def test_files_that_are_open_to_others_warn_with_every_command() -> None:
    """One line to copy."""
    opened = [
        Finding("a.json", "can be changed by other users: run chmod go-w on it"),
        Finding("key", "can be read: run chmod 600 /k"),
    ]
    found = access.file_modes(opened)
    assert (found.state, found.fix) == (State.WARNING, "chmod go-w on it; chmod 600 /k")
    assert access.file_modes([]).state is State.OK


def test_a_folder_that_may_not_be_entered_is_the_systems_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no fault of the doctor's own, on every version of Python."""
    (tmp_path / "closed").mkdir(0o700)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    with ordinary_user():
        found = look("loopback:closed/inner/agent")
    assert (found.state, found.reason) == (State.FAILED, "SOCKET_DENIED")
