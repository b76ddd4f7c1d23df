"""Releases of Lightkeeper itself: what a store of them holds, and whether an archive is the one that was published.

A store has `Releases/<VERSION>/<VERSION>.tgz`, its signature and its checksum, and the root certificates as
`Certificates/<REGION>/<REGION>.pem`. What is published is never changed: a version has one content.

An archive lies beside its signature, `<VERSION>.tgz.sig.json`: the kind of bundle that signs model packages, over one
file. It is verified by the same steps, against root certificates that the user names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lightkeeper.errors import ReleaseUnreadable, StoreUnusable
from lightkeeper.modelpackage import roots, trust
from lightkeeper.modelpackage.certificate import name
from lightkeeper.modelpackage.trust import TrustTime
from lightkeeper.modelpackage.trustrecord import TrustRecord

SIGNATURE_ENDING = ".sig.json"
CHECKSUM = "sha256_hex.shasum"
SIGNATURE_MAXIMUM_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class VerifiedRelease:
    """An archive that can be trusted: its digest, and who signed it under which root."""

    sha256: str
    signer: str
    root: str
    warnings: tuple[str, ...]


def verify(archive: Path, root_certs: Path) -> VerifiedRelease:
    """Verify an archive against its signature.

    Raises `ReleaseUnreadable`, a `SignatureRefused` or a `ContentRefused`.
    """
    signature = signature_of(archive)
    try:
        with signature.open("rb") as file:
            bundle = file.read(SIGNATURE_MAXIMUM_BYTES)
        contents = _OneFile(archive)
    except OSError as error:
        raise ReleaseUnreadable(
            f"{error.filename} cannot be read: {error.strerror}", archive=archive, signature=signature
        ) from error
    time = TrustTime(now=datetime.now(UTC), floor=TrustRecord(None).floor)
    verified = trust.verify(bundle, contents, roots.load(root_certs), time)
    first, last = verified.path[0], verified.path[-1]
    return VerifiedRelease(contents.files[archive.name].sha256, name(first), name(last), verified.warnings)


def signature_of(archive: Path) -> Path:
    """Return where an archive's signature lies."""
    return archive.with_name(archive.name + SIGNATURE_ENDING)


@dataclass(frozen=True, slots=True)
class Published:
    """A file of a store, and its name there."""

    name: str
    path: Path
    sha256: str


def files_of(store: Path) -> list[Published]:
    """Return the files of a store's folder in the order in which they are published: what names others comes last.

    Raises `StoreUnusable` where an archive lacks its signature, or is not what its checksum says.
    """
    archives = sorted(store.glob("Releases/*/*.tgz"))
    if not archives:
        raise StoreUnusable(f"{store} has no Releases/<VERSION>/<VERSION>.tgz", store=store)
    paths = sorted(store.glob("Certificates/*/*.pem"))
    for archive in archives:
        checksum, signature = archive.with_name(CHECKSUM), signature_of(archive)
        if not (checksum.is_file() and signature.is_file()):
            raise StoreUnusable(f"{archive} lacks {CHECKSUM} or its signature", archive=archive)
        if checksum.read_text(encoding="ascii", errors="replace").split() != [sha256_of(archive), archive.name]:
            raise StoreUnusable(f"{archive} is not what {CHECKSUM} says", archive=archive)
        paths += [archive, signature, checksum]
    return [Published(path.relative_to(store).as_posix(), path, sha256_of(path)) for path in paths]


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class _File:
    size_bytes: int
    sha256: str


class _OneFile:
    """The archive, as `trust.verify` sees a package's files."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.files: Mapping[str, _File] = {path.name: _File(path.stat().st_size, sha256_of(path))}

    def sha256(self, name: str, start: int, end: int) -> str:  # noqa: ARG002  # there is one file
        """See `trust.Contents`; for a signature in shards, which a release never has but a hostile one may."""
        with self._path.open("rb") as file:
            file.seek(start)
            return hashlib.sha256(file.read(end - start)).hexdigest()
