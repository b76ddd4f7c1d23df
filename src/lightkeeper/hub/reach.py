"""What a device may reach in S3, and the session policy that says so.

Invariants: a policy names the device's own prefix and the packages deployed to it, nothing else; it has at most
`POLICY_CHARACTERS`, which AWS and SeaweedFS take. Nothing in a key or prefix works as a wildcard.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lightkeeper.errors import CapturePlaceUnusable, SessionPolicyTooLong

POLICY_CHARACTERS = 2048

ARCHIVE_SUFFIX = ".tar.gz"
"""What every package's key ends in, and no capture's."""

_OWN = ["s3:AbortMultipartUpload", "s3:GetObject", "s3:ListMultipartUploadParts", "s3:PutObject"]
_PLACE = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?P<prefix>(?:/[\x20-\x7e]*)?)")
_SPECIAL = str.maketrans({"*": "${*}", "?": "${?}", "$": "${$}"})

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Object:
    """An object of an S3, or the beginning of keys."""

    bucket: str
    key: str


@dataclass(frozen=True, slots=True)
class Reach:
    """What a device may reach: its prefix, which ends in a slash, to keep captures; packages, to read."""

    device: str
    bucket: str
    prefix: str
    packages: tuple[Object, ...] = ()


def captures_of(output_config: Mapping[str, Any]) -> Object:
    """Return where a fleet's devices keep their captures; the key has no slash at its ends.

    Raises `CapturePlaceUnusable`.
    """
    given = str(output_config.get("S3OutputLocation", ""))
    found = _PLACE.fullmatch(given)
    if found is None:
        raise CapturePlaceUnusable(
            f"the fleet's S3OutputLocation {given[:200]!a} is no s3://bucket/prefix", given=given
        )
    return Object(found["bucket"], found["prefix"].strip("/"))


def device_prefix(captures: Object, fleet: str, device: str) -> str:
    """Return what all keys of a device begin with, as `capture.sink.Layout` writes them."""
    return "".join(f"{part}/" for part in (captures.key, fleet, device) if part)


def policy(reach: Reach) -> str:
    """Return the session policy, as short as it needs to be.

    Packages are named one by one while that fits; then as the archives of the folders they lie in; then as many as fit
    are named, with an ERROR that names the others. Raises `SessionPolicyTooLong` where not even the prefix fits.
    """
    exact = [_arn(package.bucket, package.key) for package in reach.packages]
    said = _policy(reach, sorted(set(exact)))
    if len(said) <= POLICY_CHARACTERS:
        return said
    if all(package.key.endswith(ARCHIVE_SUFFIX) for package in reach.packages):
        folders = {(package.bucket, package.key[: package.key.rfind("/") + 1]) for package in reach.packages}
        coarse = _policy(reach, sorted(f"{_arn(bucket, folder)}*{ARCHIVE_SUFFIX}" for bucket, folder in folders))
        if len(coarse) <= POLICY_CHARACTERS:
            logger.warning("session_policy_coarse", extra={"device": reach.device, "packages": len(exact)})
            return coarse
    named: list[str] = []
    for arn in exact:
        if len(_policy(reach, [*named, arn])) > POLICY_CHARACTERS:
            break
        named.append(arn)
    cut = _policy(reach, sorted(named))
    if len(cut) > POLICY_CHARACTERS:
        raise SessionPolicyTooLong(
            f"the session policy of device {reach.device} has {len(cut)} characters, {POLICY_CHARACTERS} are the most",
            device=reach.device,
        )
    left = [f"s3://{package.bucket}/{package.key}" for package in reach.packages[len(named) :]]
    logger.error("session_policy_cut", extra={"device": reach.device, "out_of_reach": left})
    return cut


def _policy(reach: Reach, readable: Iterable[str]) -> str:
    own = f"{reach.prefix.translate(_SPECIAL)}*"
    statements: list[dict[str, object]] = [
        {"Effect": "Allow", "Action": _OWN, "Resource": f"arn:aws:s3:::{reach.bucket}/{own}"},
        {
            "Effect": "Allow",
            "Action": "s3:ListBucketMultipartUploads",
            "Resource": f"arn:aws:s3:::{reach.bucket}",
            "Condition": {"StringLike": {"s3:prefix": own}},
        },
    ]
    resources = list(readable)
    if resources:
        statements.append({"Effect": "Allow", "Action": "s3:GetObject", "Resource": resources})
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, separators=(",", ":"))


def _arn(bucket: str, key: str) -> str:
    return f"arn:aws:s3:::{bucket}/{key.translate(_SPECIAL)}"
