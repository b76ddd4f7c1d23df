"""`lightkeeper capture`: the ledger read from outside, and a running agent told to deliver."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest

from lightkeeper.capture.spool import Keep, Receipt, Spool, State
from lightkeeper.capture.upkeep import DAY_MS
from lightkeeper.cli import run
from lightkeeper.client import Client
from lightkeeper.errors import FlushTimeInvalid
from tests.conftest import Stubs
from tests.support.agents import AgentProcess
from tests.support.spools import Clock, open_spool, stored

Output = pytest.CaptureFixture[str]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The state folder of an agent."""
    return tmp_path / "state"


@pytest.fixture
def spool(state: Path) -> Iterator[Spool]:
    """Its spool, open as in a running agent: three delivered captures, three in a batch that waits, one open."""
    spool = open_spool(state / "spool", keep=Keep(ledger_days=30))
    for number in range(7):
        spool.accept(stored(f"id-{number}", 24, 300))
    batch = spool.next_batch()
    assert batch is not None
    spool.settle(batch, Receipt(State.UPLOADED, "a/b.jsonl", 77, "ab" * 32, "etag-1"))
    yield spool
    spool.close()


def asked(capsys: Output, *words: str, code: int = 0) -> Any:
    """Run a command with --json and return what it printed."""
    assert run(["capture", *words, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_an_audit_of_a_running_agents_spool_adds_up(spool: Spool, state: Path, capsys: Output) -> None:
    """Accepted = states + forgotten, and what waits is listed."""
    said = asked(capsys, "audit", "--state", str(state))
    assert said["accepted"] == 7
    assert {name: count for name, count in said["states"].items() if count} == {"open": 1, "waiting": 3, "uploaded": 3}
    assert [(batch["captures"], batch["root"]) for batch in said["waiting"]] == [(3, "file:///captures")]
    assert (said["adds_up"], said["faults"]) == (True, [])


def test_an_audit_reads_as_text_for_people(spool: Spool, state: Path, capsys: Output) -> None:
    """A line a state, and the conclusion in words."""
    assert run(["capture", "audit", "--state", str(state)]) == 0
    out = capsys.readouterr().out
    assert "uploaded\t3" in out
    assert out.endswith("every accepted capture is accounted for\n")


def test_an_audit_counts_what_was_forgotten(state: Path, capsys: Output) -> None:
    """A capture that is long done with is in the sum."""
    clock = Clock()
    spool = open_spool(state / "spool", clock=clock)
    for number in range(3):
        spool.accept(stored(f"id-{number}"))
    batch = spool.next_batch()
    assert batch is not None
    spool.settle(batch, Receipt(State.WRITTEN, "k", 1, "ab"))
    clock.ms += 40 * DAY_MS
    spool.maintain()
    spool.close()
    said = asked(capsys, "audit", "--state", str(state))
    assert (said["accepted"], said["forgotten"]["written"], said["adds_up"]) == (3, 3, True)


@pytest.mark.parametrize(
    ("tampering", "fault"),
    [
        ("DELETE FROM captures WHERE seq = 2", "7 captures were accepted, but 6 are known and 0 forgotten"),
        ("UPDATE batches SET state = 2 WHERE seq = 2", "3 captures wait in no batch"),
        ("UPDATE captures SET weight = 5 WHERE seq = 4", "those that stayed stand for 11"),
        ("UPDATE batches SET captures = 2 WHERE seq = 2", "counts 2 captures and has 3"),
        ("DELETE FROM payloads WHERE capture = 4", "no capture names the payload file"),
    ],
)
def test_an_audit_that_does_not_add_up_says_what_and_fails(
    spool: Spool, state: Path, capsys: Output, tampering: str, fault: str
) -> None:
    """Whatever is taken away or twisted in the ledger is found."""
    spool.close()
    with closing(sqlite3.connect(state / "spool" / "spool.db")) as database, database:
        database.execute(tampering)
    database.close()
    assert run(["capture", "audit", "--state", str(state)]) == 1
    printed = capsys.readouterr()
    assert fault in printed.out
    assert "AUDIT_FAILED" in printed.err
    said = asked(capsys, "audit", "--state", str(state), code=1)  # one document, or it could not be read
    assert (said["adds_up"], any(fault in one for one in said["faults"])) == (False, True)


@pytest.mark.parametrize("damage", ["is missing", "has another size"])
def test_an_audit_finds_payload_files_that_are_not_whole(
    spool: Spool, state: Path, capsys: Output, damage: str
) -> None:
    """Every row's file is there with its size."""
    file = next(iter(spool.payloads.iterdir()))
    if damage == "is missing":
        file.unlink()
    else:
        file.write_bytes(b"short")
    assert run(["capture", "audit", "--state", str(state)]) == 1
    assert f"payload file {file.name} {damage}" in capsys.readouterr().out


def test_the_status_of_a_capture_has_the_proof_of_its_delivery(spool: Spool, state: Path, capsys: Output) -> None:
    """The key, size, checksum and ETag of the object it went into."""
    said = asked(capsys, "status", "id-1", "--state", str(state))
    assert {key: said[key] for key in ("id", "state", "key", "size_bytes", "etag", "sha256", "weight")} == {
        "id": "id-1",
        "state": "uploaded",
        "key": "a/b.jsonl",
        "size_bytes": 77,
        "etag": "etag-1",
        "sha256": "ab" * 32,
        "weight": 1,
    }
    said = asked(capsys, "status", "id-6", "--state", str(state))
    assert (said["state"], said["batch"], said["ended"]) == ("open", None, None)


def test_the_status_of_an_unknown_capture_is_refused(spool: Spool, state: Path, capsys: Output) -> None:
    """With the reason, and exit code 1."""
    said = asked(capsys, "status", "never", "--state", str(state), code=1)
    assert said["error"]["reason"] == "CAPTURE_UNKNOWN"


def test_captures_are_listed_newest_first_and_by_state(spool: Spool, state: Path, capsys: Output) -> None:
    """Up to a limit."""
    said = asked(capsys, "list", "--state", str(state), "--limit", "2")
    assert [capture["id"] for capture in said["captures"]] == ["id-6", "id-5"]
    said = asked(capsys, "list", "--state", str(state), "--only", "uploaded")
    assert [capture["id"] for capture in said["captures"]] == ["id-2", "id-1", "id-0"]


def test_a_folder_without_a_ledger_is_refused(tmp_path: Path, capsys: Output) -> None:
    """And nothing is made there."""
    said = asked(capsys, "audit", "--state", str(tmp_path), code=1)
    assert said["error"]["reason"] == "LEDGER_MISSING"
    assert list(tmp_path.iterdir()) == []


def test_a_flush_delivers_what_waits_long_before_its_time(
    authority: Path, doubled_package: Path, tmp_path: Path, stubs: Stubs, capsys: Output
) -> None:
    """With a push period of an hour, the capture is on the disk when the command returns; the audit agrees."""
    pb, pb_grpc = stubs
    settings = {"sagemaker_edge_core_capture_data_push_period_seconds": 3600}
    agent = AgentProcess(tmp_path, authority / "certs", settings=settings).wait_until_started()
    with Client(agent.address) as client, grpc.insecure_channel(agent.address) as channel:
        client.load_model(str(doubled_package), "doubled")
        tensor = pb.Tensor(
            tensor_metadata=pb.TensorMetadata(name=b"x", data_type=pb.FLOAT32, shape=[1, 4]), byte_data=b"\0" * 16
        )
        pb_grpc.AgentStub(channel).CaptureData(
            pb.CaptureDataRequest(capture_id="one", model_name="doubled", input_tensors=[tensor])
        )
        assert asked(capsys, "status", "one", "-c", str(agent.config))["state"] == "open"
        assert asked(capsys, "flush", "-a", str(agent.socket)) == {"delivered": True}
        said = asked(capsys, "status", "one", "-c", str(agent.config))
        with pytest.raises(FlushTimeInvalid):
            client.flush_captures(-1)
    assert said["state"] == "written"
    assert "one" in (tmp_path / "captures" / said["key"]).read_text()
    assert asked(capsys, "audit", "-c", str(agent.config))["adds_up"]
    assert agent.stop() == 0
    assert asked(capsys, "audit", "-c", str(agent.config))["adds_up"]
