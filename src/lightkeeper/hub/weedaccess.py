"""What the SeaweedFS child is told at its start: who may do what, and what its parts know one another by.

Invariants: everything is written for its owner alone; what the parts know one another by is new for every start.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryptography.x509.oid import ExtendedKeyUsageOID

from lightkeeper.modelpackage.issuer import Issuer, Subject, new_key, pem_of, pem_of_key
from lightkeeper.providers.aws import Credentials
from lightkeeper.system import write_private

DEVICE_ROLE = "lightkeeper-device"
DEVICE_ROLE_ARN = f"arn:aws:iam::000000000000:role/{DEVICE_ROLE}"
DEVICE_ACTIONS = (
    "s3:AbortMultipartUpload",
    "s3:GetObject",
    "s3:ListBucketMultipartUploads",
    "s3:ListMultipartUploadParts",
    "s3:PutObject",
)
"""The most a device may do, wherever a session's policy lets it."""

_ISSUER = "lightkeeper-hub"
_ASSUMER = "assumer"
_GRPC_PARTS = ("MASTER", "VOLUME", "FILER", "S3", "CLIENT")
_TOKENS = ("SIGNING", "SIGNING_READ", "FILER_SIGNING", "FILER_SIGNING_READ")


@dataclass(frozen=True, slots=True)
class Access:
    """Who may do what: operators everything, the assumer nothing but get sessions for devices.

    `signing_key` (base64, 32 bytes or more) signs the sessions; they outlive a restart while it stays the same.
    """

    operators: Sequence[Credentials]
    assumer: Credentials
    signing_key: str = field(repr=False)


def write_access(folder: Path, access: Access) -> None:
    """Write who may do what, as the child reads it at its start."""
    everything = ["Admin", "Read", "Write", "List", "Tagging"]
    identities = [_identity(f"operator-{n}", key, everything) for n, key in enumerate(access.operators)]
    identities.append(_identity(_ASSUMER, access.assumer, []))
    trust = _allow({"AWS": f"arn:aws:iam::000000000000:user/{_ASSUMER}"}, ["sts:AssumeRole"], None)
    bound = _allow(None, DEVICE_ACTIONS, ["arn:aws:s3:::*", "arn:aws:s3:::*/*"])
    role = {
        "roleName": DEVICE_ROLE,
        "roleArn": DEVICE_ROLE_ARN,
        "trustPolicy": trust,
        "attachedPolicies": ["Device"],
    }
    sts = {
        "tokenDuration": "1h",
        "maxSessionLength": "12h",
        "issuer": _ISSUER,
        "signingKey": access.signing_key,
    }
    iam = {
        "sts": sts,
        "policy": {"defaultEffect": "Deny", "storeType": "memory"},
        "roles": [role],
        "policies": [{"name": "Device", "document": bound}],
    }
    replace_private(folder / "s3.json", json.dumps({"identities": identities}).encode())
    replace_private(folder / "iam.json", json.dumps(iam).encode())


def sealed_environment(folder: Path) -> Mapping[str, str]:
    """Return the child's whole environment: what its parts know one another by is new for every start."""
    root = Issuer.root("SeaweedFS of one hub", datetime.now(UTC), years=20)
    key = new_key()
    purposes = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
    certificate = root.sign(Subject("SeaweedFS", key.public_key(), purposes), datetime.now(UTC), years=20)
    for name, data in (("ca", root.certificate_pem), ("cert", pem_of(certificate)), ("key", pem_of_key(key))):
        replace_private(folder / f"grpc-{name}.pem", data)
    environment = {"PATH": os.defpath, "HOME": str(folder), "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}
    environment["WEED_GRPC_CA"] = "grpc-ca.pem"
    for part in _GRPC_PARTS:
        environment |= {f"WEED_GRPC_{part}_CERT": "grpc-cert.pem", f"WEED_GRPC_{part}_KEY": "grpc-key.pem"}
    return environment | {f"WEED_JWT_{name}_KEY": secrets.token_hex(32) for name in _TOKENS}


def _identity(name: str, key: Credentials, actions: list[str]) -> dict[str, object]:
    pair = {"accessKey": key.access_key_id, "secretKey": key.secret_access_key}
    return {"name": name, "credentials": [pair], "actions": actions}


def _allow(
    principal: Mapping[str, str] | None, actions: Sequence[str], resources: Sequence[str] | None
) -> dict[str, object]:
    parts = {"Effect": "Allow", "Principal": principal, "Action": list(actions), "Resource": resources}
    statement = {name: part for name, part in parts.items() if part is not None}
    return {"Version": "2012-10-17", "Statement": [statement]}


def replace_private(path: Path, data: bytes) -> None:
    """Write a file for its owner alone, whole or not at all."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    write_private(fresh, data)
    fresh.replace(path)
