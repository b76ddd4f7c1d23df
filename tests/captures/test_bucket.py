"""Captures that lie in a bucket, read from a real S3."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lightkeeper.captures import Captures, Wanted, open_captures
from lightkeeper.captures.parquet import to_parquet
from lightkeeper.errors import CapturesMissing, DestinationMissing, PayloadUnreadable
from tests.support.captures import vibration, write_batch
from tests.support.seaweed import ENVIRONMENT, REGION, Seaweed

PICTURE = bytes(range(256)) * 20


@pytest.fixture
def bucket(seaweed: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket with two batches of one device, one of another, and an object of somebody else's."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    name = "read-back"
    folder = tmp_path / "made"
    write_batch(folder, [vibration("a", 1), vibration("b", 2)], root=f"s3://{name}")
    write_batch(folder, [vibration("c", 3)], hour="2023/11/15/01", root="file:///srv/captures")
    write_batch(folder, [vibration("d", 4)], name="other", hour="2023/11/16/01", root="s3://elsewhere")
    client = seaweed.client()
    client.create_bucket(Bucket=name)
    for path in [*folder.rglob("*.*")]:
        client.upload_file(str(path), name, path.relative_to(folder).as_posix())
    client.put_object(Bucket=name, Key="private/secret.bin", Body=b"secret")
    yield name
    for item in client.list_objects_v2(Bucket=name)["Contents"]:
        client.delete_object(Bucket=name, Key=item["Key"])
    client.delete_bucket(Bucket=name)
    client.close()


def opened(seaweed: Seaweed, address: str) -> Captures:
    """Return the captures at an address of the server."""
    return open_captures(address, region=REGION, endpoint=seaweed.endpoint)


def test_a_bucket_is_read_like_a_folder(seaweed: Seaweed, bucket: str, tmp_path: Path) -> None:
    """Records, payloads whose addresses are the bucket's, a folder's or another bucket's, filters, and Parquet."""
    captures = opened(seaweed, f"s3://{bucket}")
    records = list(captures.records())
    assert [record.id for record in records] == ["a", "b", "c", "d"]
    assert {record.auxiliary_inputs[0].data() for record in records} == {PICTURE}
    assert records[0].inputs[0].array().shape == (1, 6)
    assert [record.id for record in captures.records(Wanted(model="none"))] == []
    assert to_parquet(captures, tmp_path / "out.parquet") == 4


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_prefix_bounds_what_is_read(seaweed: Seaweed, bucket: str, slash: str) -> None:
    """It is a folder's name: `…/2023/11/1` is not `…/2023/11/14`."""
    day = f"s3://{bucket}/site/yard/cam-1/2023/11"
    assert [record.id for record in opened(seaweed, f"{day}/14{slash}").records()] == ["a", "b"]
    with pytest.raises(CapturesMissing):
        list(opened(seaweed, f"{day}/1{slash}").records())


def test_no_line_makes_a_reader_fetch_what_is_not_under_the_prefix(seaweed: Seaweed, bucket: str) -> None:
    """The same rule as for folders."""
    place = opened(seaweed, f"s3://{bucket}/site").place
    (batch, *_) = place.batches()
    for reference in (f"s3://{bucket}/private/secret.bin", f"s3://{bucket}/site/../private/secret.bin", "s3://x/", ""):
        with pytest.raises(PayloadUnreadable):
            place.payload(batch, reference)


def test_a_bucket_that_is_not_there_is_refused(seaweed: Seaweed, bucket: str) -> None:
    """In the provider's words."""
    with pytest.raises(DestinationMissing):
        list(opened(seaweed, "s3://no-such-bucket-here").records())
