"""Objects in S3: which addresses are taken, and that objects come and go whole."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lightkeeper.errors import (
    AgentError,
    ObjectAddressInvalid,
    ObjectDenied,
    ObjectMissing,
    ObjectStoreUnreachable,
    ObjectTooLarge,
    WorkWithdrawn,
)
from lightkeeper.objects import Address, Objects
from lightkeeper.providers.aws import Credentials
from tests.support.seaweed import ACCESS_KEY, REGION, SECRET_KEY, Seaweed, free_ports

PART_BYTES = 5 * 1024 * 1024
"""The least that S3 takes as a part that is not the last."""


@pytest.fixture(scope="module")
def bucket(seaweed: Seaweed) -> str:
    """A bucket of this module's own."""
    name = f"objects-{secrets.token_hex(4)}"
    seaweed.client().create_bucket(Bucket=name)
    return name


@pytest.fixture
def objects(seaweed: Seaweed) -> Objects:
    """The store, with the key that opens it; nothing is taken from the environment."""
    return Objects(seaweed.endpoint, REGION, Credentials(ACCESS_KEY, SECRET_KEY))


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "bucket/key",
        "https://bucket.s3.amazonaws.com/key",
        "S3://bucket/key",
        "s3://",
        "s3://b/key",
        "s3://Bucket/key",
        "s3://user@bucket/key",
        "s3://bucket:80/key",
        "s3://buc..ket/key",
        "s3://bucket",
        "s3://bucket/",
        "s3://bucket/folder/",
        "s3://bucket//key",
        "s3://bucket/a/../key",
        "s3://bucket/./key",
        "s3://bucket/key?versionId=1",
        "s3://bucket/key#part",
        "s3://bucket/a\\b",
        "s3://bucket/a\nb",
        "s3://bucket/" + "k" * 1025,
    ],
)
def test_an_address_that_is_not_one_objects_is_refused(uri: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ObjectAddressInvalid):
        Address.parse(uri)


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("s3://bucket", "s3://bucket/x.tar.gz"),
        ("s3://bucket/", "s3://bucket/x.tar.gz"),
        ("s3://bucket/a/b", "s3://bucket/a/b/x.tar.gz"),
        ("s3://bucket/a b/ü/", "s3://bucket/a b/ü/x.tar.gz"),
    ],
)
def test_an_object_has_its_address_below_a_place(place: str, expected: str) -> None:
    """With and without a slash at the end."""
    assert str(Address.parse_prefix(place).below("x.tar.gz")) == expected


def test_a_file_comes_back_as_it_was_put(objects: Objects, bucket: str, tmp_path: Path) -> None:
    """With its metadata, and whoever watches is told of every byte."""
    data = secrets.token_bytes(3_000_000)
    (tmp_path / "in").write_bytes(data)
    address = Address(bucket, "a folder/ü.bin")
    sent: list[int] = []
    objects.put(address, tmp_path / "in", content_type="application/gzip", metadata={"one": "1"}, advance=sent.append)
    got: list[int] = []
    objects.fetch(address, tmp_path / "out", limit_bytes=len(data), advance=got.append)
    assert (tmp_path / "out").read_bytes() == data
    assert sum(sent) == sum(got) == len(data)
    found = objects.look(address)
    assert found is not None
    assert (found.size_bytes, found.metadata) == (len(data), {"one": "1"})


def test_a_large_file_is_there_when_its_last_part_is(
    objects: Objects, bucket: str, seaweed: Seaweed, tmp_path: Path
) -> None:
    """What an attempt that died left of parts is dropped, and an attempt that is ended leaves nothing."""
    objects = replace(objects, part_bytes=PART_BYTES)
    path, address = tmp_path / "in", Address(bucket, "large.bin")
    with path.open("wb") as file:
        file.truncate(PART_BYTES + 1000)
        file.write(b"begin")
    client = seaweed.client()
    client.create_multipart_upload(Bucket=bucket, Key=address.key)
    sent_bytes = 0

    def stop(size_bytes: int) -> None:
        nonlocal sent_bytes
        sent_bytes += size_bytes
        if sent_bytes > PART_BYTES:
            raise WorkWithdrawn("enough")

    with pytest.raises(WorkWithdrawn):
        objects.put(address, path, content_type="application/gzip", metadata={"one": "1"}, advance=stop)
    assert objects.look(address) is None
    assert client.list_multipart_uploads(Bucket=bucket, Prefix=address.key).get("Uploads", []) == []
    objects.put(address, path, content_type="application/gzip", metadata={"one": "1"})
    found = objects.look(address)
    assert found is not None
    assert (found.size_bytes, found.metadata) == (PART_BYTES + 1000, {"one": "1"})
    objects.fetch(address, tmp_path / "out", limit_bytes=2 * PART_BYTES)
    assert (tmp_path / "out").read_bytes() == path.read_bytes()


def test_an_object_beyond_the_limit_is_not_fetched(objects: Objects, bucket: str, tmp_path: Path) -> None:
    """Not one byte of it is written."""
    (tmp_path / "in").write_bytes(b"12345")
    address = Address(bucket, "five")
    objects.put(address, tmp_path / "in", content_type="text/plain", metadata={})
    with pytest.raises(ObjectTooLarge, match="5 bytes, and 4"):
        objects.fetch(address, tmp_path / "out", limit_bytes=4)
    assert not (tmp_path / "out").exists()


def fetch(objects: Objects, address: Address, folder: Path) -> None:
    """Fetch an object into a folder."""
    objects.fetch(address, folder / "out", limit_bytes=100)


def put(objects: Objects, address: Address, folder: Path) -> None:
    """Put a small file."""
    (folder / "in").write_bytes(b"1")
    objects.put(address, folder / "in", content_type="text/plain", metadata={})


@pytest.mark.parametrize("act", [fetch, put])
@pytest.mark.parametrize(
    ("changed", "where", "error"),
    [
        ({"credentials": Credentials(ACCESS_KEY, "wrong")}, {}, ObjectDenied),
        ({"credentials": Credentials("nobody", SECRET_KEY)}, {}, ObjectDenied),
        ({"endpoint": "nowhere"}, {}, ObjectStoreUnreachable),
        ({}, {"bucket": "no-such-bucket"}, ObjectMissing),
    ],
    ids=["wrong secret", "unknown key", "nobody listens", "no bucket"],
)
def test_what_the_store_says_is_told_in_words_of_a_job(  # each column is one way to fail
    objects: Objects,
    bucket: str,
    tmp_path: Path,
    act: Callable[[Objects, Address, Path], None],
    changed: dict[str, Any],
    where: dict[str, str],
    error: type[AgentError],
) -> None:
    """Whatever is wrong with it, and whichever way the bytes go."""
    if "endpoint" in changed:
        changed = {"endpoint": f"http://127.0.0.1:{free_ports(1)[0]}"}
    given = {"endpoint": objects.endpoint, "region": REGION, "credentials": objects.credentials} | changed
    with pytest.raises(error) as refused:
        act(Objects(**given), Address(where.get("bucket", bucket), "key"), tmp_path)
    assert SECRET_KEY not in refused.value.diagnostics()
    assert not (tmp_path / "out").exists()


def test_an_object_that_is_not_there_is_missing(objects: Objects, bucket: str, tmp_path: Path) -> None:
    """Its address is in the message."""
    with pytest.raises(ObjectMissing, match=f"s3://{bucket}/none"):
        fetch(objects, Address(bucket, "none"), tmp_path)
    assert objects.look(Address(bucket, "none")) is None


def test_secrets_are_not_shown() -> None:
    """Not in a log line that prints the credentials either."""
    shown = repr(Credentials("access", "the secret", "the token"))
    assert "access" in shown
    assert "secret'" not in shown
    assert "the token" not in shown
