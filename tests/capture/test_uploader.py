"""The destination Cloud against a real S3, through a network that fails."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from lightkeeper.capture.delivery import Delivery
from lightkeeper.capture.files import RealFiles
from lightkeeper.capture.ledger import Receipt, State
from lightkeeper.capture.notes import Notes
from lightkeeper.capture.pace import Pace
from lightkeeper.capture.undelivered import Undelivered
from lightkeeper.capture.uploader import ObjectSink, Uploader
from lightkeeper.errors import (
    ClockWrong,
    DeliveryFailed,
    DeliveryInterrupted,
    DestinationBusy,
    DestinationDenied,
    DestinationMissing,
    DestinationRefusing,
    DestinationUnreachable,
    ObjectRefused,
    UploadBudgetSpent,
)
from lightkeeper.providers.aws import AwsStore
from lightkeeper.providers.base import Body, ObjectStore, StoredObject
from tests.support.batches import LAYOUT, MIB, Clock, open_spool, picture, stored
from tests.support.faults import Answer, CutAnswer, CutRequest, Fault, FaultProxy, Portal, Refuse, Slow
from tests.support.seaweed import ENVIRONMENT, REGION, Seaweed

PART_BYTES = 5 * MIB
"""The least that S3 takes for a part that is not the last."""

SMALL = picture(1, 20_000)
LARGE = picture(2, 300_000)
IN_PARTS = picture(3, PART_BYTES + 100_000)


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """What boto3's usual chain finds."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def proxy(seaweed: Seaweed) -> Iterator[FaultProxy]:
    """The way to the store."""
    proxy = FaultProxy(seaweed.port)
    yield proxy
    proxy.close()


class Cloud:
    """A bucket of its own, and a spool whose captures go there."""

    def __init__(self, seaweed: Seaweed, proxy: FaultProxy, folder: Path, bucket: str) -> None:
        self.client = seaweed.client()
        self.client.create_bucket(Bucket=bucket)
        self.bucket = bucket
        self.root = f"s3://{bucket}"
        self.folder = folder
        self.proxy = proxy
        self.large = LARGE
        self.stopping = threading.Event()
        self.spool = open_spool(folder / "spool", root=self.root, batch=3)
        self.store = AwsStore(bucket, region=REGION, endpoint=proxy.endpoint)

    def accept(self, prefix: str = "") -> None:
        """Accept a batch: one capture without a payload file, one with a small and one with a large one."""
        self.spool.accept(stored(f"{prefix}plain"))
        self.spool.accept(stored(f"{prefix}small", large=SMALL))
        self.spool.accept(stored(f"{prefix}large", large=self.large))

    def restart(self) -> None:
        """Let go of everything but the files, and open them again."""
        self.spool.close()
        self.store.close()
        self.spool = open_spool(self.folder / "spool", root=self.root, batch=3)
        self.store = AwsStore(self.bucket, region=REGION, endpoint=self.proxy.endpoint)

    def pace(self, **limits: Any) -> Pace:
        """Return limits."""
        return Pace(notes=Notes(self.spool.journal), **{"stopping": self.stopping, **limits})

    def sink(self, store: ObjectStore | None = None, pace: Pace | None = None) -> ObjectSink:
        """Return the sink."""
        uploader = Uploader(store or self.store, place=self.root, pace=pace or self.pace(), part_bytes=PART_BYTES)
        return ObjectSink(uploader, layout=LAYOUT, spool=self.spool)

    def deliver(self, sink: ObjectSink | None = None) -> Receipt:
        """Deliver the oldest batch as the delivery does."""
        batch = self.spool.next_batch()
        assert batch is not None
        receipt = (sink or self.sink()).deliver(batch, self.spool.captures_of(batch))
        self.spool.settle(batch, receipt)
        return receipt

    def objects(self) -> dict[str, bytes]:
        """Return everything in the bucket."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        return {key: self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read() for key in keys}

    def uploads(self) -> list[str]:
        """Return the ids of unfinished uploads."""
        return [
            upload["UploadId"] for upload in self.client.list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])
        ]

    def close(self) -> None:
        """Let go of everything."""
        self.spool.close()
        self.store.close()
        self.client.delete_bucket(Bucket=self.bucket)
        self.client.close()


@pytest.fixture
def cloud(seaweed: Seaweed, proxy: FaultProxy, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Cloud]:
    """A bucket of the test's own."""
    digest = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:16]
    cloud = Cloud(seaweed, proxy, tmp_path, f"bucket-{digest}")
    yield cloud
    cloud.close()


def expect_everything_once(cloud: Cloud, prefixes: tuple[str, ...] = ("",)) -> None:
    """Every capture is in the bucket exactly once, with its bytes, and nothing else is there."""
    objects = cloud.objects()
    lines = [json.loads(line) for key, data in objects.items() if key.endswith(".jsonl") for line in data.splitlines()]
    ids = [line["eventMetadata"]["eventId"] for line in lines]
    assert sorted(ids) == sorted(f"{prefix}{name}" for prefix in prefixes for name in ("plain", "small", "large"))
    referenced = set()
    for line in lines:
        for entry in line["deviceFleetAuxiliaryInputs"]:
            key = entry["data-ref"].removeprefix(f"{cloud.root}/")
            referenced.add(key)
            assert objects[key] == (SMALL if line["eventMetadata"]["eventId"].endswith("small") else cloud.large)
    assert referenced == {key for key in objects if not key.endswith(".jsonl")}
    assert cloud.uploads() == []
    for identity in ids:
        assert cloud.spool.state_of(identity) is State.UPLOADED


def test_the_receipt_is_what_the_store_says(cloud: Cloud) -> None:
    """Key, size, ETag and SHA-256 are the object's."""
    cloud.accept()
    receipt = cloud.deliver()
    head = cloud.client.head_object(Bucket=cloud.bucket, Key=receipt.key)
    assert (head["ContentLength"], head["ETag"].strip('"')) == (receipt.size_bytes, receipt.etag)
    assert head["Metadata"]["sha256"] == receipt.sha256
    assert hashlib.sha256(cloud.objects()[receipt.key]).hexdigest() == receipt.sha256
    expect_everything_once(cloud)


def test_payload_objects_say_what_they_are(cloud: Cloud) -> None:
    """Content type and SHA-256, of whole objects and of those that came in parts."""
    cloud.large = IN_PARTS
    cloud.accept()
    cloud.deliver()
    for key, data in cloud.objects().items():
        head = cloud.client.head_object(Bucket=cloud.bucket, Key=key)
        assert head["Metadata"]["sha256"] == hashlib.sha256(data).hexdigest()
        assert head["ContentType"] == ("image/jpeg" if key.endswith(".jpg") else "application/x-ndjson")


FAULTS: Mapping[str, tuple[Fault, type[DeliveryFailed]]] = {
    "refused": (Refuse(), DestinationUnreachable),
    "cut in a head": (CutRequest(100), DestinationUnreachable),
    "cut in a body": (CutRequest(10_000), DestinationUnreachable),
    "cut in a part": (CutRequest(150_000), DestinationUnreachable),
    "answer cut": (CutAnswer(), DestinationUnreachable),
    "captive portal": (Portal(b"<html>Log in, please"), DestinationBusy),
    "silent portal": (Portal(b""), DestinationUnreachable),
    "slow down": (Answer(503, "SlowDown"), DestinationBusy),
    "internal error": (Answer(500, "InternalError"), DestinationBusy),
    "bare 502": (Answer(502, ""), DestinationBusy),
    "clock wrong": (Answer(403, "RequestTimeTooSkewed"), ClockWrong),
    "denied": (Answer(403, "AccessDenied"), DestinationDenied),
    "token expired": (Answer(400, "ExpiredToken"), DestinationDenied),
    "bucket gone": (Answer(404, "NoSuchBucket"), DestinationMissing),
    "damaged on the way": (Answer(400, "BadDigest"), DestinationBusy),
    "refused as too large": (Answer(400, "EntityTooLarge"), ObjectRefused),
    "something else": (Answer(400, "NobodyKnows"), DestinationRefusing),
}


@pytest.mark.parametrize(("fault", "refusal"), FAULTS.values(), ids=FAULTS)
def test_a_fault_has_its_name_and_after_it_all_arrives_once(
    cloud: Cloud, fault: Fault, refusal: type[DeliveryFailed]
) -> None:
    """The batch waits in the spool meanwhile; bytes are equal."""
    cloud.large = IN_PARTS if fault == CutRequest(150_000) else LARGE
    cloud.accept()
    cloud.proxy.fault = fault
    with pytest.raises(DeliveryFailed) as caught:
        cloud.deliver()
    assert type(caught.value) is refusal
    assert cloud.spool.state_of("large") is State.WAITING
    cloud.proxy.fault = None
    cloud.deliver()
    expect_everything_once(cloud)


def test_a_wrong_secret_and_an_unknown_bucket_are_named_by_the_real_server(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the store really answers is what the table expects."""
    cloud.accept()
    other = AwsStore(f"{cloud.bucket}-none", region=REGION, endpoint=cloud.proxy.endpoint)
    with pytest.raises(DestinationMissing, match="NoSuchBucket"):
        cloud.deliver(cloud.sink(other))
    other.close()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    other = AwsStore(cloud.bucket, region=REGION, endpoint=cloud.proxy.endpoint)
    with pytest.raises(DestinationDenied, match="SignatureDoesNotMatch"):
        cloud.deliver(cloud.sink(other))
    other.close()


def test_credentials_that_come_later_are_found(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a restart: the agent may be up before they are."""
    cloud.accept()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    keys = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(keys))
    store = AwsStore(cloud.bucket, region=REGION, endpoint=cloud.proxy.endpoint)
    with pytest.raises(DestinationDenied, match="no credentials"):
        cloud.deliver(cloud.sink(store))
    keys.write_text(
        f"[default]\naws_access_key_id = {ENVIRONMENT['AWS_ACCESS_KEY_ID']}\n"
        f"aws_secret_access_key = {ENVIRONMENT['AWS_SECRET_ACCESS_KEY']}\n"
    )
    cloud.deliver(cloud.sink(store))
    store.close()
    expect_everything_once(cloud)


def test_only_missing_parts_are_sent_after_a_cut(cloud: Cloud) -> None:
    """Counted on the wire: what had arrived is not sent again, also after a restart."""
    cloud.large = IN_PARTS
    cloud.accept()
    cloud.proxy.fault = CutRequest(len(SMALL) + PART_BYTES + 40_000)
    with pytest.raises(DestinationUnreachable):
        cloud.deliver()
    cloud.restart()
    already_sent = cloud.proxy.sent_bytes
    cloud.deliver()
    missing = len(IN_PARTS) - PART_BYTES
    assert missing <= cloud.proxy.sent_bytes - already_sent < missing + 20_000
    expect_everything_once(cloud)


def test_an_upload_that_the_store_forgot_begins_anew(cloud: Cloud) -> None:
    """A bucket's rules may drop unfinished uploads."""
    cloud.large = IN_PARTS
    cloud.accept()
    cloud.proxy.fault = CutRequest(len(SMALL) + PART_BYTES)
    with pytest.raises(DestinationUnreachable):
        cloud.deliver()
    (upload,) = cloud.uploads()
    (key,) = [entry["Key"] for entry in cloud.client.list_multipart_uploads(Bucket=cloud.bucket)["Uploads"]]
    cloud.client.abort_multipart_upload(Bucket=cloud.bucket, Key=key, UploadId=upload)
    cloud.deliver()
    expect_everything_once(cloud)


def test_an_upload_that_nobody_goes_on_with_is_dropped(cloud: Cloud) -> None:
    """Its parts would cost room in the bucket for ever; other devices' uploads stay."""
    mine = f"{LAYOUT.device_prefix}2025/01/01/00/x.bin"
    cloud.client.create_multipart_upload(Bucket=cloud.bucket, Key=mine)
    other = cloud.client.create_multipart_upload(Bucket=cloud.bucket, Key="site/a/yard/cam-2/x.bin")["UploadId"]
    cloud.accept()
    cloud.deliver()
    assert cloud.uploads() == [other]


class Killed(BaseException):
    """The process ends here; nothing catches it."""


class KillingStore:
    """A store whose user dies at one call, counted from 1, before or after the store did it."""

    def __init__(self, store: ObjectStore, *, at: int, after: bool) -> None:
        self._store = store
        self._at, self._after = at, after
        self.calls = 0

    def _do(self, work: Callable[[], Any]) -> Any:
        self.calls += 1
        if self.calls == self._at and not self._after:
            raise Killed
        result = work()
        if self.calls == self._at:
            raise Killed
        return result

    def put(self, key: str, body: Body, *, content_type: str, metadata: Mapping[str, str]) -> str:
        """See `ObjectStore.put`."""
        return str(self._do(lambda: self._store.put(key, body, content_type=content_type, metadata=metadata)))

    def look(self, key: str) -> StoredObject | None:
        """See `ObjectStore.look`."""
        return self._store.look(key)

    def begin_upload(self, key: str, *, content_type: str, metadata: Mapping[str, str]) -> str:
        """See `ObjectStore.begin_upload`."""
        return str(self._do(lambda: self._store.begin_upload(key, content_type=content_type, metadata=metadata)))

    def put_part(self, key: str, upload: str, number: int, body: Body) -> str | None:
        """See `ObjectStore.put_part`."""
        etag: str | None = self._do(lambda: self._store.put_part(key, upload, number, body))
        return etag

    def finish_upload(self, key: str, upload: str, etags: list[str]) -> str | None:
        """See `ObjectStore.finish_upload`."""
        etag: str | None = self._do(lambda: self._store.finish_upload(key, upload, etags))
        return etag

    def abort_upload(self, key: str, upload: str) -> None:
        """See `ObjectStore.abort_upload`."""
        self._do(lambda: self._store.abort_upload(key, upload))

    def unfinished_uploads(self, prefix: str) -> Iterator[tuple[str, str]]:
        """See `ObjectStore.unfinished_uploads`."""
        return self._store.unfinished_uploads(prefix)

    def close(self) -> None:
        """See `ObjectStore.close`."""
        self._store.close()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_between_any_two_steps_the_bucket_holds_each_capture_once(cloud: Cloud, after: bool) -> None:
    """For every request, before and after the store did it: the next start delivers, and the same objects are there."""
    cloud.large = IN_PARTS
    prefixes: list[str] = []
    at = 0
    while True:
        at += 1
        prefixes.append(f"k{at}-")
        cloud.accept(prefixes[-1])
        store = KillingStore(cloud.store, at=at, after=after)
        try:
            cloud.deliver(cloud.sink(store))
        except Killed:
            cloud.restart()
            cloud.deliver()
        if store.calls < at:
            break
    assert at > 6
    expect_everything_once(cloud, tuple(prefixes))


def test_uploads_keep_to_their_bytes_a_second(cloud: Cloud) -> None:
    """Measured on the real clock: no sooner than the bytes take at the rate; the next test counts the waits."""
    cloud.accept()
    rate = 256 * 1024
    began = time.monotonic()
    cloud.deliver(cloud.sink(pace=cloud.pace(bytes_per_second=rate)))
    took_seconds = time.monotonic() - began
    least_seconds = (len(SMALL) + len(LARGE)) / rate
    assert took_seconds >= least_seconds - 0.3
    expect_everything_once(cloud)


def test_a_body_leaves_no_faster_than_its_rate_on_a_clock_that_is_turned(cloud: Cloud) -> None:
    """Counted in bytes: the waits add up to what the bodies take, hashing and signing count nothing."""
    cloud.accept()
    clock = Clock()
    cloud.deliver(cloud.sink(pace=cloud.pace(bytes_per_second=100_000, monotonic=clock.seconds, sleep=clock.sleep)))
    lines_bytes = sum(len(data) for key, data in cloud.objects().items() if key.endswith(".jsonl"))
    assert sum(clock.slept) == pytest.approx((len(SMALL) + len(LARGE) + lines_bytes) / 100_000, abs=0.5)
    assert max(clock.slept) < 1


def test_a_days_budget_holds_over_a_restart_and_ends_at_midnight(cloud: Cloud) -> None:
    """What does not fit waits for the next day, and then arrives."""
    cloud.large = IN_PARTS
    clock = Clock()
    cloud.accept()
    budget_bytes = len(SMALL) + PART_BYTES + 1000

    def sink() -> ObjectSink:
        return cloud.sink(pace=cloud.pace(bytes_per_day=budget_bytes, now=clock.seconds))

    with pytest.raises(UploadBudgetSpent) as caught:
        cloud.deliver(sink())
    assert caught.value.wait_seconds == 86_400
    assert cloud.proxy.sent_bytes < budget_bytes + 16_000
    cloud.restart()
    already_sent = cloud.proxy.sent_bytes
    with pytest.raises(UploadBudgetSpent):
        cloud.deliver(sink())
    assert cloud.proxy.sent_bytes - already_sent < 4_000
    for _ in range(4):
        clock.now_ms += 86_400_000
        try:
            cloud.deliver(sink())
        except UploadBudgetSpent:
            continue
        break
    expect_everything_once(cloud)


def test_a_stop_ends_an_upload_at_once(cloud: Cloud) -> None:
    """However slow the rate: nothing is lost, the batch waits."""
    cloud.accept()
    timer = threading.Timer(0.3, cloud.stopping.set)
    timer.start()
    began = time.monotonic()
    with pytest.raises(DeliveryInterrupted):
        cloud.deliver(cloud.sink(pace=cloud.pace(bytes_per_second=1000)))
    assert time.monotonic() - began < 2
    timer.join()
    cloud.stopping.clear()
    cloud.deliver()
    expect_everything_once(cloud)


def test_the_delivery_gets_all_through_a_network_that_fails_again_and_again(cloud: Cloud) -> None:
    """The thread itself, with faults in turn, each for a moment."""
    for number in range(4):
        cloud.accept(f"{number}-")
    delivery = Delivery(
        cloud.spool,
        cloud.sink(),
        undelivered=Undelivered(cloud.spool.quarantine, layout=LAYOUT, files=RealFiles()),
        push_period_seconds=3600,
        stopping=cloud.stopping,
        draw=lambda: 0.0,  # the shortest waits
    )
    cloud.proxy.fault = Refuse()
    thread = threading.Thread(target=delivery.run, name="delivery")
    thread.start()
    faults: list[Fault] = [
        CutRequest(60_000),
        Answer(503, "SlowDown"),
        CutAnswer(),
        CutRequest(400_000),
        Slow(2_000_000),
        Refuse(),
    ]
    for fault in faults:
        time.sleep(0.25)
        cloud.proxy.fault = fault
    time.sleep(0.25)
    cloud.proxy.fault = None
    assert delivery.flush(30)
    delivery.stop()
    thread.join(10)
    assert delivery.counts["quarantined"] == 0
    expect_everything_once(cloud, ("0-", "1-", "2-", "3-"))
