"""Whether a package can be trusted: the verifier of OpenSSF Model Signing v1.0 signatures with X.509 certificates.

`verify` is the whole procedure, in numbered steps, without I/O: it gets the signature's bytes, a view of the files'
digests, the trusted roots and the time. Clauses marked § are those of the Model Signing specification v1.0, the
format's home; `docs/spec/model-package.md`, clause 4, has the same steps with what is stricter here and why.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from lightkeeper.errors import (
    ArchivePathEscape,
    CertificateExpired,
    CertificateNotYetValid,
    FileChanged,
    FileExtra,
    FileMissing,
    SignatureInvalid,
    SignatureMalformed,
    SignatureRefused,
)
from lightkeeper.modelpackage import certificate, chain, member
from lightkeeper.modelpackage.certificate import CertificateUnreadable
from lightkeeper.modelpackage.document import DocumentInvalid, Node
from lightkeeper.modelpackage.roots import Root
from lightkeeper.modelpackage.signature import (
    FILE_NAME,
    MEDIA_TYPE,
    PAYLOAD_TYPE,
    PREDICATE_TYPE,
    STATEMENT_TYPE,
    curve_hash,
    pae,
)

CERTIFICATES_MAXIMUM = 10
"""The most certificates a signature may carry."""
_HASH = "sha256"
_HASH_HEX_LENGTH = 64
_SHARD_MAXIMUM = 2**62
_OFFSET = re.compile(r"[0-9]{1,19}")


class File(Protocol):
    """What is known of a file before anybody trusts it."""

    @property
    def size_bytes(self) -> int:
        """The size."""

    @property
    def sha256(self) -> str:
        """The digest of the content, in hexadecimal."""


class Contents(Protocol):
    """A package's files, as they are."""

    @property
    def files(self) -> Mapping[str, File]:
        """Every file of the package, `model.sig` included, by its name."""

    def sha256(self, name: str, start: int, end: int) -> str:
        """Return the SHA-256 of a range of a file's bytes, in hexadecimal."""


@dataclass(frozen=True, slots=True)
class TrustTime:
    """What this device knows of the time. `docs/adr/0002-which-clock-counts.md` says why.

    `now` is the system clock. `floor` is a time that the true time cannot be before. A clock that is behind the floor
    is wrong for certain, and says nothing; any other is believed.
    """

    now: datetime
    floor: datetime

    @property
    def clock_is_wrong(self) -> bool:
        """Whether the system clock is behind a time that is known to have passed."""
        return self.now < self.floor

    def fault(self, path: chain.Path) -> SignatureRefused | None:
        """Return why no time that may be the true one lies within the validity of the whole path, or None."""
        begins_last = max(path, key=lambda each: each.not_valid_before_utc)
        ends_first = min(path, key=lambda each: each.not_valid_after_utc)
        begin, end = begins_last.not_valid_before_utc, ends_first.not_valid_after_utc
        # A wrong clock leaves every time from the floor on: the earliest that suits the path's begin is the best case.
        time = max(self.floor, begin) if self.clock_is_wrong else self.now
        clock = {"clock": self.now.isoformat(), "known_to_have_passed": self.floor.isoformat()}
        if time > end:
            return CertificateExpired(
                f"the certificate {certificate.name(ends_first)} ended on {end:%Y-%m-%d %H:%M} UTC",
                certificate=certificate.name(ends_first),
                not_after=end.isoformat(),
                **clock,
            )
        if time < begin:
            return CertificateNotYetValid(
                f"the certificate {certificate.name(begins_last)} begins on {begin:%Y-%m-%d %H:%M} UTC",
                certificate=certificate.name(begins_last),
                not_before=begin.isoformat(),
                **clock,
            )
        return None


@dataclass(frozen=True, slots=True)
class Verified:
    """A package that can be trusted."""

    digest: str
    """The package's own digest, in hexadecimal (`digest_of`)."""
    path: chain.Path
    """The certificates, the signer's first, the trusted root last."""
    warnings: tuple[str, ...]
    """What was let pass, in a sentence each."""

    @property
    def begins(self) -> datetime:
        """The latest begin of a certificate of the path: a time that has passed when the package was signed."""
        return max(each.not_valid_before_utc for each in self.path)


def digest_of(files: Mapping[str, File]) -> str:
    """Return the digest that identifies a package's content: SHA-256 over the lines `sha256sum` prints, sorted by name.

    `model.sig` is no part of it: the same content signed anew is the same package.
    """
    lines = (f"{files[name].sha256}  {name}\n" for name in sorted(files) if name != FILE_NAME)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def verify(
    bundle: bytes, contents: Contents, roots: Sequence[Root], time: TrustTime, accepted: Collection[str] = ()
) -> Verified:
    """Verify a package: its signature first, and its files against what was signed only then.

    `bundle` is the content of `model.sig`, `accepted` has the digests of packages that this device accepted before.
    Raises a `SignatureRefused` or `ContentRefused` with the file's name, or `ArchivePathEscape`.
    """
    warnings: list[str] = []
    try:
        # 1. The bundle is a Sigstore bundle v0.3 that carries a certificate chain and one DSSE envelope (§4.1, §8.1).
        document = Node.parse(bundle)
        leaf, others = _certificates(document)
        payload, signature = _envelope(document)

        # 2. Signatures lead from the leaf to a root this device trusts, and each certificate of that path may be used
        #    as it is used: the leaf for digital signatures, the others as authorities (§4.1, §8.2; RFC 5280, 6.1).
        path = chain.find(leaf, others, roots)

        # 3. The leaf's key signed the envelope: the payload and its type together (§6.7, §8.2; DSSE v1.0.0).
        key = leaf.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)  # noqa: S101  # step 2 has refused every other
        try:
            key.verify(signature, pae(payload), ec.ECDSA(_hash_of(key)))
        except InvalidSignature as error:
            raise SignatureInvalid(
                f"the signature in {FILE_NAME} is not that of {certificate.name(leaf)}",
                file=FILE_NAME,
                signer=certificate.name(leaf),
            ) from error

        # 4. The path is valid at a time that may be the true one (§4.1). A package this very device has accepted
        #    before outlives its certificates and a clock that jumps.
        fault = time.fault(path)
        digest = digest_of(contents.files)
        if fault is not None and digest not in accepted:
            raise fault
        if fault is not None:
            warnings.append(f"accepted although {fault.message}: this device has accepted the same package before")
        elif time.clock_is_wrong:
            warnings.append(
                f"the device's clock says {time.now:%Y-%m-%d %H:%M} UTC, which is wrong: {time.floor:%Y-%m-%d} has "
                "passed; the end of the certificates could only be held against that"
            )

        # 5. The payload is one in-toto statement v1 about one model, with this predicate type (§5.1, §6.5, §8.3).
        statement = Node.parse(payload)
        statement["_type"].equals(STATEMENT_TYPE)
        statement["predicateType"].equals(PREDICATE_TYPE)
        subject = _only(statement["subject"])
        subject["name"].text()
        predicate = statement["predicate"]

        # 6. It says how the files were read: as whole files or in shards, with SHA-256 (§5.2.2, §6.3, §7).
        #    `ignore_paths` is not used: whatever it names must not be there at all, save `model.sig` (step 9).
        shard_bytes = _shard_bytes(predicate["serialization"])

        # 7. Each resource is named once, by a path within the package, and the subject's digest is that of all
        #    resources' digests in a row (§5.2.1, §6.1.2, §6.5.1).
        signed = _resources(predicate["resources"], shard_bytes)
        row = b"".join(bytes.fromhex(each) for each in signed.values())
        subject["digest"][_HASH].equals(hashlib.sha256(row).hexdigest())
    except DocumentInvalid as error:
        raise SignatureMalformed(f"{FILE_NAME}: {error}", file=FILE_NAME, field=error.path) from error

    # 8. Every file that was signed is there, and is what was signed (§8.4).
    given = {name: file for name, file in contents.files.items() if name != FILE_NAME}
    covered = _check_shards(signed, given, contents, shard_bytes) if shard_bytes else _check_files(signed, given)

    # 9. No file is there that was not signed (§8.4, §8.5).
    for name in sorted(given.keys() - covered):
        raise FileExtra(f"{name} was not signed", file=name)

    return Verified(digest, path, tuple(warnings))


def _certificates(document: Node) -> tuple[x509.Certificate, list[x509.Certificate]]:
    document.only("mediaType", "verificationMaterial", "dsseEnvelope")
    document["mediaType"].equals(MEDIA_TYPE)
    material = document["verificationMaterial"]
    material.only("x509CertificateChain", "tlogEntries")
    entries = material.get("tlogEntries")
    if entries is not None and list(entries.items()):
        raise entries.wrong("must be empty: a certificate's signature has no transparency log entries")
    certificates: list[x509.Certificate] = []
    for item in material["x509CertificateChain"]["certificates"].items():
        if len(certificates) == CERTIFICATES_MAXIMUM:
            raise item.wrong(f"is one certificate too many: at most {CERTIFICATES_MAXIMUM}")
        item.only("rawBytes")
        data = item["rawBytes"].base64()
        try:
            certificates.append(certificate.from_der(data))
        except CertificateUnreadable as error:
            raise item.wrong(f"is not an X.509 certificate: {error}") from error
    if not certificates:
        raise material["x509CertificateChain"].wrong("has no certificate")
    return certificates[0], certificates[1:]


def _envelope(document: Node) -> tuple[bytes, bytes]:
    envelope = document["dsseEnvelope"]
    envelope.only("payload", "payloadType", "signatures")
    envelope["payloadType"].equals(PAYLOAD_TYPE)
    signature = _only(envelope["signatures"])
    signature.only("sig", "keyid")  # the key identifier is a hint for finding a key, and is not used
    return envelope["payload"].base64(), signature["sig"].base64()


def _only(node: Node) -> Node:
    items = list(node.items())
    if len(items) != 1:
        raise node.wrong(f"must have one element, not {len(items)}")
    return items[0]


def _hash_of(key: ec.EllipticCurvePublicKey) -> hashes.HashAlgorithm:
    algorithm = curve_hash(key.curve)
    assert algorithm is not None  # noqa: S101  # the path's checks have refused every other curve
    return algorithm


def _shard_bytes(serialization: Node) -> int | None:
    """Return the size of a shard, or None where whole files were signed."""
    serialization["hash_type"].equals(_HASH)
    serialization["allow_symlinks"].boolean()  # of no effect: the copy that is verified has no links
    ignored = serialization.get("ignore_paths")
    if ignored is not None:
        for item in ignored.items():
            item.text()
    method = serialization["method"]
    if method.value == "shards":
        return serialization["shard_size"].integer(least=1, most=_SHARD_MAXIMUM)
    method.equals("files")
    return None


def _resources(node: Node, shard_bytes: int | None) -> dict[str, str]:
    # The reference has its own word for the digest of a shard; the specification has not.
    algorithms = {_HASH, f"{_HASH}-sharded-{shard_bytes}"} if shard_bytes else {_HASH}
    signed: dict[str, str] = {}
    for item in node.items():
        name = item["name"].text()
        if item["algorithm"].text() not in algorithms:
            raise item["algorithm"].wrong(f"must be {_HASH}")
        digest = item["digest"].text()
        if len(digest) != _HASH_HEX_LENGTH or not set(digest) <= set("0123456789abcdef"):
            raise item["digest"].wrong("must be 64 lower-case hexadecimal digits")
        if name in signed:
            raise item["name"].wrong(f"{name!r} is there twice")
        signed[name] = digest
    if not signed:
        raise node.wrong("must list at least one file")
    return signed


def _check_files(signed: Mapping[str, str], given: Mapping[str, File]) -> set[str]:
    for name, expected in signed.items():
        _check_is_there(name, given)
        if given[name].sha256 != expected:
            raise FileChanged(
                f"{name} is not the file that was signed", file=name, expected=expected, given=given[name].sha256
            )
    return set(signed)


def _check_shards(
    signed: Mapping[str, str], given: Mapping[str, File], contents: Contents, shard_bytes: int
) -> set[str]:
    """Hold each signed shard `name:start:end` against the file, and make sure that shards cover the whole of it."""
    ends: dict[str, int] = {}
    for resource, expected in signed.items():
        name, *bounds = resource.rsplit(":", 2)
        if len(bounds) != len(("start", "end")) or not all(map(_OFFSET.fullmatch, bounds)):
            raise SignatureMalformed(f"{resource!r} is not the name of a shard", file=FILE_NAME, resource=resource)
        _check_is_there(name, given)
        start, end = map(int, bounds)
        size = given[name].size_bytes
        if start % shard_bytes or end != min(start + shard_bytes, size) or start >= end:
            raise FileChanged(f"{name} has {size} bytes, not those of its signed shards", file=name, given=size)
        actual = contents.sha256(name, start, end)
        if actual != expected:
            raise FileChanged(
                f"{name} is not the file that was signed, in bytes {start} to {end}",
                file=name,
                expected=expected,
                given=actual,
            )
        ends[name] = ends.get(name, 0) + end - start
    for name, total in ends.items():  # shards are distinct and aligned, so they cover the file if their sizes add up
        if total != given[name].size_bytes:
            raise FileChanged(f"{name} has parts that were not signed", file=name, given=given[name].size_bytes)
    return set(ends)


def _check_is_there(name: str, given: Mapping[str, File]) -> None:
    fault = member.fault(name)
    if fault == member.ESCAPES:
        raise ArchivePathEscape(f"the signed name {name!r} {fault}", file=name)
    if name not in given:
        raise FileMissing(f"{name} was signed and is not there", file=name)
