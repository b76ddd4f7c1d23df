"""The root certificates this device trusts: every `*.pem` in one folder, each read-only for everyone.

The folder is read again for every package, so that a root that is added or removed counts from then on.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from lightkeeper.errors import RootsMissing, RootsWritable, RootUnusable
from lightkeeper.modelpackage.certificate import CertificateUnreadable, from_pem, name
from lightkeeper.system import HAS_MODES

_ANYBODY_WRITES = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True)
class Root:
    """A trusted root certificate, and the name of the file it was read from."""

    certificate: x509.Certificate
    file: str


def load(folder: Path) -> tuple[Root, ...]:
    """Read every root certificate of a folder.

    Raises `RootsMissing`, `RootsWritable` (for a file with any write bit, or a folder that everybody may write in) or
    `RootUnusable` (for a file that is not PEM, or a certificate that is not self-signed).
    """
    try:
        files = sorted(path for path in folder.iterdir() if path.name.endswith(".pem"))
        mode = folder.stat().st_mode
    except OSError as error:
        raise RootsMissing(f"the root certificates folder {folder} cannot be read: {error}", folder=folder) from error
    if HAS_MODES and mode & stat.S_IWOTH:
        raise RootsWritable(f"everybody may put certificates into {folder}", folder=folder)
    roots = [root for path in files for root in _read(path)]
    if not roots:
        raise RootsMissing(f"{folder} has no *.pem file", folder=folder)
    return tuple(roots)


def _read(path: Path) -> list[Root]:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & _ANYBODY_WRITES:
                raise RootsWritable(f"{path} can be written (mode {mode:04o})", file=path, mode=f"{mode:04o}")
            certificates = from_pem(file.read())
    except (OSError, CertificateUnreadable) as error:
        raise RootUnusable(f"{path} has no certificate in PEM: {error}", file=path) from error
    for certificate in certificates:
        try:
            certificate.verify_directly_issued_by(certificate)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
            subject = name(certificate)
            raise RootUnusable(f"{path} is not self-signed ({subject})", file=path, subject=subject) from error
    return [Root(certificate, path.name) for certificate in certificates]
