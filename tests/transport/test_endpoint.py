"""The file of an agent on loopback TCP: what it holds, whom it lets in, and that one agent at a time has it."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from lightkeeper.errors import (
    SocketAddressInvalid,
    SocketDenied,
    SocketFolderMissing,
    SocketInUse,
    SocketPathExists,
    SocketStale,
)
from lightkeeper.system import HAS_MODES, HAS_UNIX_SOCKETS
from lightkeeper.transport import door, endpoint
from lightkeeper.transport.door import EndpointFile
from lightkeeper.transport.endpoint import Endpoint

PORT = 49712


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where an agent's file will lie."""
    return tmp_path / "agent.endpoint"


def test_the_file_tells_port_and_token_and_only_its_owner_may_read_it(path: Path) -> None:
    """What a client in any language reads, and the least rights."""
    file = EndpointFile(path)
    assert file.claim(force=False) == "127.0.0.1:0"
    file.publish(PORT)
    assert json.loads(path.read_text()) == {"address": f"127.0.0.1:{PORT}", "token": file.token}
    assert endpoint.read(path) == Endpoint(PORT, file.token or "")
    assert not HAS_MODES or path.stat().st_mode & 0o777 == 0o600
    file.remove()
    assert not path.exists()


def test_the_token_is_a_new_one_each_time(path: Path) -> None:
    """An old token opens nothing."""
    first, second = EndpointFile(path).token, EndpointFile(path).token
    assert first != second
    assert len(bytes.fromhex(first or "")) == door.TOKEN_BYTES


@pytest.mark.skipif(not HAS_MODES, reason="this system has no modes")
def test_the_configured_mode_and_group_are_given_to_the_file(path: Path) -> None:
    """Who may read the file may call."""
    with pytest.raises(SocketDenied, match="no group"):
        EndpointFile(path, group="no-such-group").publish(PORT)
    assert not path.exists()
    EndpointFile(path, mode=0o640).publish(PORT)
    assert path.stat().st_mode & 0o777 == 0o640
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_two_agents_cannot_have_one_file(path: Path) -> None:
    """The second is refused, with -f too, and the file stays the first one's."""
    first, second = EndpointFile(path), EndpointFile(path)
    first.claim(force=False)
    first.publish(PORT)
    for force in (False, True):
        with pytest.raises(SocketInUse):
            second.claim(force=force)
        second.remove()
    assert endpoint.read(path) == Endpoint(PORT, first.token or "")
    first.remove()
    second.claim(force=False)
    second.remove()


def test_the_file_of_a_killed_agent_is_removed_with_force_only(path: Path) -> None:
    """As a stale socket is."""
    path.write_bytes(Endpoint(PORT, "aa").to_bytes())
    file = EndpointFile(path)
    with pytest.raises(SocketStale):
        file.claim(force=False)
    file.remove()
    file.claim(force=True)
    assert not path.exists()
    file.remove()


def test_a_look_raises_what_a_start_would_and_changes_nothing(path: Path) -> None:
    """A free path, a missing folder, another's file, a served one, one that was left: all as they were."""
    looking = EndpointFile(path)
    looking.look()
    with pytest.raises(SocketFolderMissing):
        EndpointFile(path / "missing" / "agent").look()
    path.write_text("not an agent's")
    with pytest.raises(SocketPathExists):
        looking.look()
    path.unlink()
    with socket.create_server(("127.0.0.1", 0)) as served:
        path.write_bytes(Endpoint(served.getsockname()[1], "aa").to_bytes())
        with pytest.raises(SocketInUse):
            looking.look()
    with pytest.raises(SocketStale):
        looking.look()
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_mode_and_group_without_effect_are_told_once_and_stop_nothing(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A configuration that was made for Linux starts an agent on Windows."""
    EndpointFile(path, mode=0o660, group="no-such-group", has_modes=False).publish(PORT)
    (told,) = caplog.records
    assert told.message == "socket_rights_without_effect"
    assert vars(told)["keys"] == ["lightkeeper_socket_mode", "lightkeeper_socket_group"]
    EndpointFile(path, has_modes=False).publish(PORT)
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"address": 1}',
        b'{"address": "10.0.0.1:1", "token": "a"}',
        b'{"address": "127.0.0.1:65536", "token": "a"}',
    ],
)
def test_what_is_no_agents_file_is_never_removed(path: Path, content: bytes) -> None:
    """Nor read as one: an address elsewhere gets no call."""
    path.write_bytes(content)
    assert endpoint.read(path) is None
    file = EndpointFile(path)
    with pytest.raises(SocketPathExists):
        file.claim(force=True)
    file.remove()
    assert path.read_bytes() == content


def test_a_file_that_another_agent_has_written_stays_at_the_end(path: Path) -> None:
    """Each removes its own."""
    file = EndpointFile(path)
    file.claim(force=False)
    file.publish(PORT)
    path.write_bytes(Endpoint(PORT, "another").to_bytes())
    file.remove()
    assert path.exists()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """The agent makes no folder for it."""
    with pytest.raises(SocketFolderMissing):
        EndpointFile(tmp_path / "missing" / "agent").claim(force=False)


def test_an_address_without_a_name_is_refused() -> None:
    """As one of a socket is."""
    with pytest.raises(SocketAddressInvalid):
        door.at("loopback:")


def test_the_scheme_tells_a_file_from_a_socket(path: Path) -> None:
    """A bare path is a socket's where there are sockets."""
    assert endpoint.path_of(f"loopback:{path}") == path
    assert endpoint.path_of("127.0.0.1:50051") is None
    assert endpoint.path_of(os.fspath(path)) == (None if HAS_UNIX_SOCKETS else path)


@pytest.mark.parametrize(
    ("metadata", "admitted"),
    [
        ([("authorization", "Bearer secret")], True),
        ([("authorization", b"Bearer secret"), ("user-agent", "x")], True),
        ([], False),
        ([("authorization", "secret")], False),
        ([("authorization", "Bearer secret2")], False),
        ([("authorization", "Bearer \u00e9")], False),
        ([("authorization", "Bearer secret"), ("authorization", "Bearer secret")], False),
    ],
)
def test_only_the_whole_token_admits(metadata: list[tuple[str, str | bytes]], *, admitted: bool) -> None:
    """Once, and in the customary form."""
    assert endpoint.admits(metadata, "secret") is admitted
