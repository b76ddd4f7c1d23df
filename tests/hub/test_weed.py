"""The hub's own SeaweedFS: who gets in, and what a killed hub or a killed store leaves behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import grpc
import psutil
import pytest

from lightkeeper.errors import ObjectStoreFailed
from lightkeeper.hub.reach import Reach, policy
from lightkeeper.hub.weed import BUCKET, Weed
from lightkeeper.providers.aws import Credentials
from tests.support.seaweed import ENVIRONMENT, Seaweed, access, free_ports

PATIENCE_SECONDS = 60.0


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def ports_of(weed: Weed) -> dict[str, int]:
    """Return the ports of a store's parts."""
    ports: dict[str, int] = json.loads((weed._folder / "ports.json").read_text())
    return ports


def http_status(port: int, path: str) -> int:
    """Return how a port answers a plain request."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_the_store_listens_on_the_loopback_alone(seaweed: Seaweed) -> None:
    """No port of it can be reached from another machine."""
    listening = [c for c in psutil.Process(seaweed.weed.pid).net_connections("inet") if c.status == "LISTEN"]
    assert {connection.laddr.ip for connection in listening} == {"127.0.0.1"}
    assert {connection.laddr.port for connection in listening} == set(ports_of(seaweed.weed).values())


@pytest.mark.parametrize(
    ("part", "path"),
    [
        ("s3", f"/{BUCKET}/open"),
        ("filer", f"/buckets/{BUCKET}/open"),
        ("filer", "/buckets/?pretty=y"),
        ("master", "/dir/assign"),
        ("master", "/dir/status"),
        ("volume", "/1,01637037d6"),
    ],
)
def test_a_user_of_the_machine_gets_nothing_without_a_signature(seaweed: Seaweed, part: str, path: str) -> None:
    """What stands behind S3 answers only S3, so that S3's permissions cannot be walked around."""
    seaweed.client().put_object(Bucket=BUCKET, Key="open", Body=b"content")
    assert http_status(ports_of(seaweed.weed)[f"{part}.port"], path) in {401, 403, 404}


@pytest.mark.parametrize("part", ["master", "volume", "filer", "s3"])
def test_a_user_of_the_machine_gets_no_answer_over_grpc(seaweed: Seaweed, part: str) -> None:
    """Without the certificate of this run no call is heard."""
    port = ports_of(seaweed.weed)[f"{part}.port.grpc"]
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary("/filer_pb.SeaweedFiler/Statistics")(b"", timeout=5)
    assert refused.value.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}


def test_what_the_store_is_told_is_for_its_owner_alone(seaweed: Seaweed) -> None:
    """Keys and certificates are in files that nobody else can read, in a folder that nobody else can enter."""
    folder = seaweed.weed._folder
    files = [path for path in folder.iterdir() if path.suffix in {".json", ".pem", ".err"}]
    assert len(files) >= 7
    assert {path.stat().st_mode & 0o077 for path in [*files, folder / "data", folder / "logs"]} == {0}


def test_objects_sessions_and_the_port_outlive_a_killed_store(tmp_path: Path) -> None:
    """A store that dies is started again with what it had: nobody has to fetch new credentials."""
    server = Seaweed(tmp_path / "s3")
    try:
        server.wait_until_started()
        killed = server.weed.pid
        assert killed is not None
        made = server.tokens().session(policy(Reach("d", BUCKET, "f/d/")), device="d", fleet="f", role_arn=None)
        device = server.client(Credentials(made.access_key_id, made.secret_access_key, made.session_token))
        device.put_object(Bucket=BUCKET, Key="f/d/capture", Body=b"kept")
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: server.weed.pid not in {None, killed}, "it is not started again")
        server.wait_until_started()
        assert device.get_object(Bucket=BUCKET, Key="f/d/capture")["Body"].read() == b"kept"
    finally:
        server.stop()
    assert server.weed.pid is None


def test_a_killed_hub_leaves_no_store_behind(tmp_path: Path) -> None:
    """The kernel ends the child with its parent, so that the next hub finds ports and data free."""
    program = (
        "import sys, time; from pathlib import Path; from lightkeeper.hub.weed import Weed; "
        "from tests.support.seaweed import access; "
        "print(Weed(Path(sys.argv[1]), access()).start().pid, flush=True); time.sleep(600)"
    )
    hub = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "s3")],
        stdout=subprocess.PIPE,
        env={**os.environ, **ENVIRONMENT},
        cwd=Path(__file__).parents[2],
    )
    try:
        assert hub.stdout is not None
        store = psutil.Process(int(hub.stdout.readline()))
        assert store.is_running()
    finally:
        hub.kill()
        hub.communicate()

    def is_gone() -> bool:
        with suppress(psutil.NoSuchProcess):
            return store.status() == psutil.STATUS_ZOMBIE
        return True

    wait_for(is_gone, "the store outlived its hub")


def test_a_port_that_another_program_took_is_named(tmp_path: Path) -> None:
    """Devices know the old port, so the store does not quietly take another one."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        (tmp_path / "ports.json").write_text(json.dumps({"s3.port": port}))
        with pytest.raises(ObjectStoreFailed) as refused:
            Weed(tmp_path, access()).start()
    assert refused.value.facts["port"] == str(port)


def test_ports_behind_s3_give_way(tmp_path: Path) -> None:
    """Where another program took a port that only the store itself uses, it takes another and starts."""
    s3_port = free_ports(1)[0]
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        (tmp_path / "ports.json").write_text(json.dumps({"s3.port": s3_port, "filer.port": taken}))
        weed = Weed(tmp_path, access()).start()
        try:
            assert ports_of(weed)["filer.port"] != taken
            assert weed.port == s3_port
        finally:
            weed.stop()


def test_a_store_that_cannot_start_says_why(tmp_path: Path) -> None:
    """The refusal has the store's own words, and nothing is left running."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "filerldb2").write_bytes(b"a file where a folder should be")
    weed = Weed(tmp_path, access())
    with pytest.raises(ObjectStoreFailed, match="did not start"):
        weed.start().wait_until_ready()
    assert weed.pid is None
