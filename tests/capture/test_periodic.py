"""The periodic upload against a real S3: what lies on the disk arrives once, and the disk stays as it is."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lightkeeper.capture.disk import DiskSink
from lightkeeper.capture.files import RealFiles
from lightkeeper.capture.ledger import State
from lightkeeper.capture.notes import Notes
from lightkeeper.capture.pace import Pace
from lightkeeper.capture.periodic import PeriodicUpload
from lightkeeper.capture.sent import SentFiles, Version
from lightkeeper.capture.uploader import Uploader
from lightkeeper.providers.aws import AwsStore
from tests.support.batches import LAYOUT, Clock, open_spool, picture, stored, tree
from tests.support.faults import Answer, CutRequest, FaultProxy, Refuse
from tests.support.seaweed import ENVIRONMENT, REGION, Seaweed

PERIOD_SECONDS = 8.0
PICTURE = picture(1, 200_000)


class Station:
    """A folder of captures, a bucket, and the upload between them, on a clock that the test turns."""

    def __init__(self, seaweed: Seaweed, folder: Path, bucket: str) -> None:
        self.client = seaweed.client()
        self.client.create_bucket(Bucket=bucket)
        self.bucket = bucket
        self.proxy = FaultProxy(seaweed.port)
        self.folder = folder
        self.disk = folder / "captures"
        self.clock = Clock(now_ms=time.time() * 1000)
        self.stopping = threading.Event()
        self.open()

    def open(self) -> None:
        """Start, or start again."""
        self.spool = open_spool(self.folder / "spool", root=self.disk.as_uri())
        self.store = AwsStore(self.bucket, region=REGION, endpoint=self.proxy.endpoint)
        pace = Pace(notes=Notes(self.spool.journal), stopping=self.stopping)
        self.upload = PeriodicUpload(
            self.disk,
            Uploader(self.store, place=f"s3://{self.bucket}", pace=pace),
            spool=self.spool,
            bucket=self.bucket,
            period_seconds=PERIOD_SECONDS,
            stopping=self.stopping,
            now_ns=self.clock.ns,
            draw=lambda: 1.0,
        )

    def restart(self) -> None:
        """Let go of everything but the files, and open them again."""
        self.spool.close()
        self.store.close()
        self.open()

    def write_batch(self, prefix: str = "") -> str:
        """Have a batch of two captures written to the disk, one with a picture, and return its name."""
        self.spool.accept(stored(f"{prefix}plain"))
        self.spool.accept(stored(f"{prefix}pictured", large=PICTURE))
        batch = self.spool.next_batch()
        assert batch is not None
        sink = DiskSink(self.disk, layout=LAYOUT, files=RealFiles())
        self.spool.settle(batch, sink.deliver(batch, self.spool.captures_of(batch)))
        return batch.name

    def sent_by(self, steps: int = 1) -> int:
        """Return how many bytes went over the network in so many steps, half a minute apart."""
        before = self.proxy.sent_bytes
        for _ in range(steps):
            self.upload.step()
            self.clock.now_ms += 30_000
        return self.proxy.sent_bytes - before

    def objects(self) -> dict[str, bytes]:
        """Return everything in the bucket."""
        listed = self.client.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        return {
            entry["Key"]: self.client.get_object(Bucket=self.bucket, Key=entry["Key"])["Body"].read()
            for entry in listed
        }

    def lines(self) -> list[dict[str, Any]]:
        """Return the lines in the bucket."""
        objects = self.objects().items()
        return [json.loads(line) for key, data in objects if key.endswith(".jsonl") for line in data.splitlines()]

    def close(self) -> None:
        """Let go of everything."""
        self.spool.close()
        self.store.close()
        self.proxy.close()
        self.client.delete_bucket(Bucket=self.bucket)
        self.client.close()


@pytest.fixture
def station(
    seaweed: Seaweed, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Station]:
    """A station with a bucket of the test's own."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    digest = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:16]
    station = Station(seaweed, tmp_path, f"bucket-{digest}")
    yield station
    station.close()


def test_what_lies_on_the_disk_arrives_and_stays(station: Station) -> None:
    """The same keys, the same payload bytes, references into the bucket; nothing on the disk is touched."""
    station.write_batch()
    before = tree(station.disk)
    assert station.upload.step() == PERIOD_SECONDS
    objects = station.objects()
    assert set(objects) == set(before)
    (line,) = [line for line in station.lines() if line["eventMetadata"]["eventId"] == "pictured"]
    reference = line["deviceFleetAuxiliaryInputs"][0]["data-ref"]
    assert objects[reference.removeprefix(f"s3://{station.bucket}/")] == PICTURE
    assert tree(station.disk) == before


def test_but_for_references_the_lines_are_those_on_the_disk(station: Station) -> None:
    """A consumer of the bucket reads what a consumer of the disk reads."""
    name = station.write_batch()
    station.upload.step()
    (path,) = station.disk.rglob(f"{name}.jsonl")
    on_disk = path.read_text().replace(station.disk.as_uri(), f"s3://{station.bucket}")
    assert station.objects()[path.relative_to(station.disk).as_posix()].decode() == on_disk


def test_the_ledger_says_that_captures_are_uploaded(station: Station) -> None:
    """With the receipt of what lies in the bucket."""
    name = station.write_batch()
    assert station.spool.state_of("plain") is State.WRITTEN
    station.upload.step()
    assert station.spool.state_of("plain") is State.UPLOADED
    ((key, size_bytes, sha256, etag),) = station.spool.journal.read(
        "SELECT key, size_bytes, sha256, etag FROM batches WHERE name = ?", name
    )
    head = station.client.head_object(Bucket=station.bucket, Key=key)
    assert (size_bytes, etag) == (head["ContentLength"], head["ETag"].strip('"'))
    assert sha256 == hashlib.sha256(station.objects()[key]).hexdigest()


def test_nothing_is_sent_twice_also_after_a_restart(station: Station) -> None:
    """Counted on the wire; a new batch in the same folder is found."""
    station.write_batch("a-")
    assert station.sent_by() > len(PICTURE)
    assert station.sent_by(3) == 0
    station.restart()
    assert station.sent_by(3) == 0
    station.write_batch("b-")
    assert station.sent_by() > len(PICTURE)
    assert sorted(line["eventMetadata"]["eventId"] for line in station.lines()) == [
        "a-pictured",
        "a-plain",
        "b-pictured",
        "b-plain",
    ]


def test_batches_from_before_are_sent_too(station: Station) -> None:
    """Another agent wrote them, in an order of folders of its own, and the ledger knows nothing of them."""
    station.write_batch()
    place = station.disk / "older" / "deep"
    place.mkdir(parents=True)
    picture_path = place / "frame.bin"
    picture_path.write_bytes(PICTURE)
    entry = {"name": "f", "mode": "Input", "data-ref": picture_path.as_uri(), "encoding": "NONE"}
    (place / "batch.jsonl").write_text(json.dumps({"deviceFleetInputs": [entry]}) + "\nnot json\n")
    station.upload.step()
    objects = station.objects()
    assert objects["older/deep/frame.bin"] == PICTURE
    first, second = objects["older/deep/batch.jsonl"].splitlines()
    assert json.loads(first)["deviceFleetInputs"][0]["data-ref"] == f"s3://{station.bucket}/older/deep/frame.bin"
    assert second == b"not json"


def test_nothing_outside_the_folder_is_read(station: Station) -> None:
    """Whoever may write there may not have the agent's files sent: not by path, by dots or by a link."""
    secret = station.folder / "secret.bin"
    secret.write_bytes(b"private")
    station.disk.mkdir()
    (station.disk / "link.bin").symlink_to(secret)
    references = [secret.as_uri(), f"{station.disk.as_uri()}/../secret.bin", (station.disk / "link.bin").as_uri()]
    entries = [{"name": "f", "data-ref": reference} for reference in references]
    (station.disk / "batch.jsonl").write_text(json.dumps({"deviceFleetInputs": entries}) + "\n")
    station.upload.step()
    assert set(station.objects()) == {"batch.jsonl"}
    assert [entry["data-ref"] for entry in station.lines()[0]["deviceFleetInputs"]] == references


def test_after_a_cut_only_what_is_missing_is_sent(station: Station) -> None:
    """The payload that had arrived is not sent again, also after a restart."""
    station.write_batch()
    station.proxy.fault = CutRequest(len(PICTURE) + 2_500)
    assert station.upload.step() == 1.0
    station.proxy.fault = None
    station.restart()
    assert 0 < station.sent_by() < 20_000
    assert station.spool.state_of("pictured") is State.UPLOADED


def test_a_bucket_that_is_away_is_tried_later_and_later(station: Station, caplog: pytest.LogCaptureFixture) -> None:
    """By the same table as the delivery's, with one line in the log."""
    station.write_batch()
    station.proxy.fault = Refuse()
    assert [station.upload.step() for _ in range(4)] == [1.0, 2.0, 4.0, 8.0]
    station.proxy.fault = None
    assert station.upload.step() == PERIOD_SECONDS
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == ["destination_away"]


def test_a_file_that_the_store_refuses_holds_up_no_other(station: Station) -> None:
    """It is left out, with a counter, until it changes."""
    station.disk.mkdir()
    (station.disk / "a.jsonl").write_text("{}\n")
    station.proxy.fault = Answer(400, "EntityTooLarge")
    assert station.upload.step() == PERIOD_SECONDS
    station.proxy.fault = None
    station.write_batch()
    station.upload.step()
    assert station.upload.counts == {"uploaded": 1, "failed": 0, "refused": 1}
    (station.disk / "a.jsonl").write_text("{ }\n")
    station.upload.step()
    assert station.objects()["a.jsonl"] == b"{ }\n"


def test_a_file_that_changed_is_sent_again(station: Station) -> None:
    """Under its one key."""
    station.disk.mkdir()
    path = station.disk / "a.jsonl"
    path.write_text("{}\n")
    station.sent_by()
    path.write_text("{}\n{}\n")
    station.sent_by()
    assert station.objects() == {"a.jsonl": b"{}\n{}\n"}


def test_what_is_no_longer_there_is_forgotten(tmp_path: Path) -> None:
    """The table is as long as the folder, whatever comes and goes."""
    spool = open_spool(tmp_path / "spool", root="file:///x")
    sent = SentFiles(spool.journal)
    for number in range(300):
        path = tmp_path / f"{number}.jsonl"
        path.touch()
        sent.add(Version.of(tmp_path, path), sha256="s", etag="e")
        if number % 3:
            path.unlink()
    for _ in range(3):
        sent.prune(tmp_path)
    assert spool.journal.read("SELECT COUNT(*) FROM sent") == [(100,)]
    spool.close()


def test_the_thread_ends_at_once(station: Station) -> None:
    """However long the period is."""
    thread = threading.Thread(target=station.upload.run)
    thread.start()
    time.sleep(0.1)
    began = time.monotonic()
    station.stopping.set()
    thread.join(10)
    assert time.monotonic() - began < 1
