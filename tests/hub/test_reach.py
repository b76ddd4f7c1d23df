"""What a device's session lets it do in a real S3, and what it does not."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from lightkeeper.capture.sink import Layout
from lightkeeper.device import DeviceIdentity
from lightkeeper.errors import CapturePlaceUnusable, SessionPolicyTooLong
from lightkeeper.hub.reach import POLICY_CHARACTERS, Object, Reach, captures_of, device_prefix, policy
from lightkeeper.providers.aws import Credentials
from tests.support.seaweed import Seaweed

BUCKET = "reach"
OWN, OTHER, SIMILAR = "site/lines/cam-1", "site/lines/cam-2", "site/lines/cam-10"
PACKAGE, OTHER_PACKAGE = "models/digits-1.tar.gz", "models/digits-2.tar.gz"
PART = b"p" * (5 * 1024 * 1024)


@dataclass(frozen=True)
class Device:
    """One device's S3 client, and the operator's."""

    s3: Any
    operator: Any


@pytest.fixture(scope="module")
def device(seaweed: Seaweed) -> Iterator[Device]:
    """A device with one package deployed to it, in a bucket with other devices' objects."""
    operator = seaweed.client()
    operator.create_bucket(Bucket=BUCKET)
    for key in (f"{OWN}/old", f"{OTHER}/old", f"{SIMILAR}/old", PACKAGE, OTHER_PACKAGE):
        operator.put_object(Bucket=BUCKET, Key=key, Body=b"content")
    said = policy(Reach("cam-1", BUCKET, f"{OWN}/", (Object(BUCKET, PACKAGE),)))
    tokens = seaweed.tokens()
    made = tokens.session(said, device="cam-1", fleet="lines", role_arn="arn:aws:iam::123456789012:role/of-a-script")
    tokens.close()
    client = seaweed.client(Credentials(made.access_key_id, made.secret_access_key, made.session_token))
    yield Device(client, operator)
    client.close()
    operator.close()


def in_parts(client: Any, key: str) -> None:
    """Put an object as the agent puts a large payload, with an upload given up on the way."""
    given_up = client.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
    client.upload_part(Bucket=BUCKET, Key=key, UploadId=given_up, PartNumber=1, Body=b"part")
    client.abort_multipart_upload(Bucket=BUCKET, Key=key, UploadId=given_up)
    upload = client.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
    etag = client.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=1, Body=PART)["ETag"]
    assert len(client.list_parts(Bucket=BUCKET, Key=key, UploadId=upload)["Parts"]) == 1
    parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
    client.complete_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload, MultipartUpload=parts)
    assert client.head_object(Bucket=BUCKET, Key=key)["ContentLength"] == len(PART)


ALLOWED: dict[str, Callable[[Any], Any]] = {
    "put a capture": lambda s3: s3.put_object(Bucket=BUCKET, Key=f"{OWN}/2026/11/24/10/b.jsonl", Body=b"{}"),
    "look at its own": lambda s3: s3.head_object(Bucket=BUCKET, Key=f"{OWN}/old"),
    "get its own": lambda s3: s3.get_object(Bucket=BUCKET, Key=f"{OWN}/old")["Body"].read(),
    "put in parts": lambda s3: in_parts(s3, f"{OWN}/large"),
    "list its uploads": lambda s3: s3.list_multipart_uploads(Bucket=BUCKET, Prefix=f"{OWN}/"),
    "get its package": lambda s3: s3.get_object(Bucket=BUCKET, Key=PACKAGE)["Body"].read(),
    "look at its package": lambda s3: s3.head_object(Bucket=BUCKET, Key=PACKAGE),
}

DENIED: dict[str, Callable[[Any], Any]] = {
    "put its package": lambda s3: s3.put_object(Bucket=BUCKET, Key=PACKAGE, Body=b"evil"),
    "get another package": lambda s3: s3.get_object(Bucket=BUCKET, Key=OTHER_PACKAGE),
    "get another device's": lambda s3: s3.get_object(Bucket=BUCKET, Key=f"{OTHER}/old"),
    "look at another device's": lambda s3: s3.head_object(Bucket=BUCKET, Key=f"{OTHER}/old"),
    "get a similar device's": lambda s3: s3.get_object(Bucket=BUCKET, Key=f"{SIMILAR}/old"),
    "put another device's": lambda s3: s3.put_object(Bucket=BUCKET, Key=f"{OTHER}/new", Body=b"evil"),
    "put another's in parts": lambda s3: s3.create_multipart_upload(Bucket=BUCKET, Key=f"{OTHER}/new"),
    "climb out of its prefix": lambda s3: s3.put_object(Bucket=BUCKET, Key=f"{OWN}/../cam-2/new", Body=b"evil"),
    "copy from another": lambda s3: s3.copy_object(Bucket=BUCKET, Key=f"{OWN}/c", CopySource=f"{BUCKET}/{OTHER}/old"),
    "copy to another": lambda s3: s3.copy_object(Bucket=BUCKET, Key=f"{OTHER}/c", CopySource=f"{BUCKET}/{OWN}/old"),
    "copy a part from another": lambda s3: s3.upload_part_copy(
        Bucket=BUCKET,
        Key=f"{OWN}/c",
        PartNumber=1,
        CopySource=f"{BUCKET}/{OTHER}/old",
        UploadId=s3.create_multipart_upload(Bucket=BUCKET, Key=f"{OWN}/c")["UploadId"],
    ),
    "delete its own": lambda s3: s3.delete_object(Bucket=BUCKET, Key=f"{OWN}/old"),
    "list the bucket": lambda s3: s3.list_objects_v2(Bucket=BUCKET),
    "list its own": lambda s3: s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{OWN}/"),
    "list all uploads": lambda s3: s3.list_multipart_uploads(Bucket=BUCKET),
    "list others' uploads": lambda s3: s3.list_multipart_uploads(Bucket=BUCKET, Prefix="site/lines/cam-"),
    "put into another bucket": lambda s3: s3.put_object(Bucket="lightkeeper", Key=f"{OWN}/x", Body=b"evil"),
    "make a bucket": lambda s3: s3.create_bucket(Bucket="mine"),
    "change the bucket": lambda s3: s3.put_bucket_policy(Bucket=BUCKET, Policy="{}"),
    "publish its own": lambda s3: s3.put_object_acl(Bucket=BUCKET, Key=f"{OWN}/old", ACL="public-read"),
}


@pytest.mark.parametrize("deed", ALLOWED)
def test_a_device_may(device: Device, deed: str) -> None:
    """All that keeping captures and fetching a deployed package takes."""
    ALLOWED[deed](device.s3)
    assert device.operator.head_object(Bucket=BUCKET, Key=f"{OWN}/old")["ContentLength"] == 7


@pytest.mark.parametrize("deed", DENIED)
def test_a_device_may_not(device: Device, deed: str) -> None:
    """Anything beyond its own prefix and its packages is refused, and nothing there has changed."""
    with pytest.raises(ClientError) as refused:
        DENIED[deed](device.s3)
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] in {400, 403}
    for key in (f"{OWN}/old", f"{OTHER}/old", PACKAGE):
        assert device.operator.get_object(Bucket=BUCKET, Key=key)["Body"].read() == b"content"


def test_a_device_deletes_nothing_by_list(device: Device) -> None:
    """DeleteObjects answers 200 with an error for each key."""
    keys = [f"{OWN}/old", f"{OTHER}/old"]
    answer = device.s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": key} for key in keys]})
    assert [error["Code"] for error in answer["Errors"]] == ["AccessDenied"] * 2
    assert "Deleted" not in answer


def test_a_device_sees_no_buckets(device: Device) -> None:
    """ListBuckets answers with those it may list: none."""
    assert device.s3.list_buckets()["Buckets"] == []


def test_a_device_passes_its_session_on_to_nobody(seaweed: Seaweed, device: Device) -> None:
    """A session gets no further session, wider or longer than itself."""
    held = device.s3._request_signer._credentials
    held = Credentials(held.access_key, held.secret_key, held.token)
    import boto3

    sts = boto3.client(
        "sts",
        region_name="test-1",
        endpoint_url=seaweed.endpoint,
        aws_access_key_id=held.access_key_id,
        aws_secret_access_key=held.secret_access_key,
        aws_session_token=held.session_token,
    )
    role = "arn:aws:iam::000000000000:role/lightkeeper-device"
    with pytest.raises(ClientError, match="AccessDenied"):
        sts.assume_role(RoleArn=role, RoleSessionName="more")
    with pytest.raises(ClientError, match="AccessDenied"):
        sts.get_federation_token(Name="more", Policy=policy(Reach("d", BUCKET, "")))
    sts.close()


def test_the_prefix_is_the_one_the_agent_writes_under() -> None:
    """Policy and agent mean the same keys, with and without the fleet's own prefix."""
    for place, prefix in (("s3://bucket/a/b", "a/b"), ("s3://bucket/a/b/", "a/b"), ("s3://bucket", "")):
        captures = captures_of({"S3OutputLocation": place})
        layout = Layout(DeviceIdentity("cam-1", "lines", "cam-1", "test-1"), prefix)
        assert device_prefix(captures, "lines", "cam-1") == layout.device_prefix


@pytest.mark.parametrize("place", ["https://bucket/a", "s3://", "s3://B/a", "s3://bucket/a\nb", "", "s3:/bucket"])
def test_an_output_location_that_is_no_place_is_refused(place: str) -> None:
    """Nothing is guessed from a fleet's S3OutputLocation."""
    with pytest.raises(CapturePlaceUnusable):
        captures_of({"S3OutputLocation": place})


def resources(said: str) -> list[str]:
    """Return what a policy lets be read beyond the device's own prefix."""
    rest = json.loads(said)["Statement"][2:]
    return [resource for statement in rest for resource in statement["Resource"]]


def test_many_packages_are_named_by_their_folders(caplog: pytest.LogCaptureFixture) -> None:
    """Where not all names fit, the archives beside them come into reach, never a capture, and that is said."""
    packages = tuple(Object(BUCKET, f"models/{'long-name-' * 3}{n}-1.0.tar.gz") for n in range(40))
    with caplog.at_level(logging.WARNING):
        said = policy(Reach("cam-1", BUCKET, f"{OWN}/", packages))
    assert resources(said) == [f"arn:aws:s3:::{BUCKET}/models/*.tar.gz"]
    assert [record.msg for record in caplog.records] == ["session_policy_coarse"]


def test_packages_that_fit_in_no_way_are_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """The most wanted are kept, captures still go out, and an ERROR names what is out of reach."""
    packages = tuple(Object(BUCKET, f"{'folder-' * 9}{n}/m-1.tar.gz") for n in range(40))
    with caplog.at_level(logging.WARNING):
        said = policy(Reach("cam-1", BUCKET, f"{OWN}/", packages))
    named = resources(said)
    assert 0 < len(named) < 40
    assert all(f"arn:aws:s3:::{BUCKET}/{package.key}" in named for package in packages[: len(named)])
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.__dict__["out_of_reach"] == [f"s3://{BUCKET}/{package.key}" for package in packages[len(named) :]]


def test_a_prefix_that_fits_in_no_policy_is_refused() -> None:
    """A session without its prefix would be of no use, so there is none."""
    with pytest.raises(SessionPolicyTooLong):
        policy(Reach("cam-1", BUCKET, "x" * 900 + "/"))


def test_nothing_in_a_key_is_a_wildcard(seaweed: Seaweed, device: Device) -> None:
    """A package that is called like a pattern brings no other package into reach."""
    del device  # the bucket is there
    tokens = seaweed.tokens()
    said = policy(
        Reach(
            "cam-1", BUCKET, f"{OWN}/", (Object(BUCKET, "models/*-1.tar.gz"), Object(BUCKET, "models/digits-?.tar.gz"))
        )
    )
    made = tokens.session(said, device="cam-1", fleet="lines", role_arn=None)
    tokens.close()
    client = seaweed.client(Credentials(made.access_key_id, made.secret_access_key, made.session_token))
    with pytest.raises(ClientError, match="AccessDenied"):
        client.get_object(Bucket=BUCKET, Key=PACKAGE)
    client.close()


KEYS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x2FF), min_size=1, max_size=300)


@given(prefix=KEYS, keys=st.lists(KEYS, max_size=30))
def test_every_policy_fits_and_names_only_what_is_reached(prefix: str, keys: list[str]) -> None:
    """At most 2048 characters, the own prefix first, and no wildcard but at its end or for archives."""
    reach = Reach("d", BUCKET, f"{prefix}/", tuple(Object(BUCKET, key) for key in keys))
    try:
        said = policy(reach)
    except SessionPolicyTooLong:
        assert len(policy(replace(reach, prefix="p/", packages=()))) < POLICY_CHARACTERS
        return
    assert len(said) <= POLICY_CHARACTERS
    own = json.loads(said)["Statement"][0]["Resource"]
    assert own.endswith("/*")
    for resource in [own.removesuffix("*"), *(arn.removesuffix("*.tar.gz") for arn in resources(said))]:
        plain = resource.replace("${*}", "").replace("${?}", "")
        assert "*" not in plain
        assert "?" not in plain
