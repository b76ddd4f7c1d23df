"""The socket file: which paths can be served, and that it appears whole."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightkeeper.errors import (
    SocketAddressInvalid,
    SocketDenied,
    SocketFolderMissing,
    SocketInUse,
    SocketPathExists,
    SocketPathTooLong,
    SocketStale,
)
from lightkeeper.transport.unix_socket import PATH_LIMIT_BYTES, SocketFile, path_of
from tests.support.users import ordinary_user


@pytest.fixture
def listeners() -> Iterator[list[socket.socket]]:
    """Sockets that are closed afterwards."""
    opened: list[socket.socket] = []
    yield opened
    for listener in opened:
        listener.close()


def serve(path: str | Path, listeners: list[socket.socket]) -> None:
    """Listen at a path, as a server does."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.fspath(path).removeprefix("unix:"))
    listener.listen()
    listeners.append(listener)


def names_in(folder: Path) -> list[str]:
    """Return what lies in a folder."""
    return sorted(entry.name for entry in folder.iterdir())


def stale(path: Path) -> None:
    """Leave a socket file behind, as a killed server does."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(os.fspath(path))


@pytest.mark.parametrize("address", ["/tmp/a.sock", "unix:/tmp/a.sock", "unix:///tmp/a.sock"])  # noqa: S108  # text only
def test_the_spellings_of_an_address_name_one_path(address: str) -> None:
    """A bare path, and gRPC's two forms."""
    assert path_of(address) == Path("/tmp/a.sock")  # noqa: S108  # text only


@pytest.mark.parametrize("address", ["a.sock", "unix:a.sock", "./a.sock", "./run:1/a.sock"])
def test_a_relative_path_stays_relative(address: str) -> None:
    """To the working directory."""
    assert path_of(address) == Path(address.removeprefix("unix:"))


@pytest.mark.parametrize("address", ["", "unix:", "tcp:1.2.3.4:5", "localhost:5000", "unix:/a\0b", "unix-abstract:a"])
def test_other_addresses_are_refused(address: str) -> None:
    """The refusal tells what the agent serves."""
    with pytest.raises(SocketAddressInvalid):
        path_of(address)


@pytest.mark.parametrize("mode", [0o600, 0o660])
def test_a_published_socket_has_its_rights_and_is_alone(
    tmp_path: Path, listeners: list[socket.socket], mode: int
) -> None:
    """The staging name is gone, and a connection goes through."""
    file = SocketFile(tmp_path / "agent.sock", mode=mode)
    serve(file.claim(force=False), listeners)
    file.publish()
    assert names_in(tmp_path) == ["agent.sock"]
    assert stat.S_IMODE(file.path.stat().st_mode) == mode
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(os.fspath(file.path))
    file.remove()
    assert names_in(tmp_path) == []


def test_the_longest_path_is_served_and_one_byte_more_is_refused(
    tmp_path: Path, listeners: list[socket.socket]
) -> None:
    """The kernel's limit, and no staging name makes it smaller."""
    longest = tmp_path / ("s" * (PATH_LIMIT_BYTES - len(os.fsencode(tmp_path)) - 1))
    file = SocketFile(longest)
    serve(file.claim(force=False), listeners)
    file.publish()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(os.fspath(longest))
    file.remove()
    with pytest.raises(SocketPathTooLong) as caught:
        SocketFile(Path(f"{longest}s")).claim(force=False)
    assert caught.value.facts["given_bytes"] == str(PATH_LIMIT_BYTES + 1)


@pytest.mark.parametrize("name", ["missing/agent.sock", "file/agent.sock"])
def test_a_folder_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    """Missing, or a file."""
    (tmp_path / "file").touch()
    with pytest.raises(SocketFolderMissing):
        SocketFile(tmp_path / name).claim(force=True)


@pytest.mark.parametrize("force", [True, False])
def test_a_file_that_is_no_socket_is_never_removed(tmp_path: Path, force: bool) -> None:
    """Whatever the flag says."""
    path = tmp_path / "agent.sock"
    path.write_text("precious")
    with pytest.raises(SocketPathExists):
        SocketFile(path).claim(force=force)
    assert path.read_text() == "precious"


@pytest.mark.parametrize("force", [True, False])
def test_a_live_socket_is_never_taken_over(tmp_path: Path, listeners: list[socket.socket], force: bool) -> None:
    """A second agent on the same path is refused."""
    path = tmp_path / "agent.sock"
    serve(path, listeners)
    with pytest.raises(SocketInUse):
        SocketFile(path).claim(force=force)
    assert path.is_socket()


def test_a_stale_socket_is_told_from_a_live_one(tmp_path: Path, listeners: list[socket.socket]) -> None:
    """Without the flag it is an error that names the flag; with it, it is removed."""
    path = tmp_path / "agent.sock"
    stale(path)
    with pytest.raises(SocketStale) as caught:
        SocketFile(path).claim(force=False)
    assert "-f" in caught.value.next_step
    file = SocketFile(path)
    serve(file.claim(force=True), listeners)
    file.publish()
    assert path.is_socket()


def test_of_two_agents_that_start_at_once_one_wins(tmp_path: Path, listeners: list[socket.socket]) -> None:
    """Both find the path free; the second to publish is refused and leaves nothing behind."""
    first, second = SocketFile(tmp_path / "agent.sock"), SocketFile(tmp_path / "agent.sock")
    for file in (first, second):
        serve(file.claim(force=False), listeners)
    first.publish()
    with pytest.raises(SocketInUse):
        second.publish()
    second.remove()
    assert names_in(tmp_path) == ["agent.sock"]
    first.remove()


def test_a_socket_that_is_no_longer_ours_is_left_alone(tmp_path: Path, listeners: list[socket.socket]) -> None:
    """Somebody removed it and serves the path now: stopping must not cut them off."""
    file = SocketFile(tmp_path / "agent.sock")
    serve(file.claim(force=False), listeners)
    file.publish()
    file.path.unlink()
    serve(file.path, listeners)
    file.remove()
    assert file.path.is_socket()


def test_an_unknown_group_is_refused(tmp_path: Path, listeners: list[socket.socket]) -> None:
    """And the socket never gets its name."""
    file = SocketFile(tmp_path / "agent.sock", group="no-such-group")
    serve(file.claim(force=False), listeners)
    with pytest.raises(SocketDenied) as caught:
        file.publish()
    assert caught.value.facts["group"] == "no-such-group"
    assert names_in(tmp_path) == []
    file.remove()


@pytest.fixture
def folder_of_another_user() -> Iterator[Path]:
    """A folder that this process may list but not write: it is another user for the while."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    with ordinary_user():
        yield folder
    folder.rmdir()


def test_a_folder_without_write_permission_is_refused(folder_of_another_user: Path) -> None:
    """The refusal carries the system's reason, and comes before anything is bound."""
    with pytest.raises(SocketDenied) as caught:
        SocketFile(folder_of_another_user / "agent.sock").claim(force=False)
    assert caught.value.facts["cause"] == "EACCES"
