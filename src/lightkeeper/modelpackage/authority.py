"""Making a certificate authority: a root that devices trust, and a signer that signs packages in its name.

How long each is valid, and why, is said in `docs/adr/0002-which-clock-counts.md`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography.x509.oid import ExtendedKeyUsageOID

from lightkeeper.errors import OutputExists, OutputUnwritable
from lightkeeper.modelpackage import signature
from lightkeeper.modelpackage.issuer import Issuer, Subject, new_key
from lightkeeper.names import check_model_name
from lightkeeper.system import set_mode, write_private

ROOT_YEARS = 20
SIGNER_YEARS = 10

_SECRET, _READ_ONLY = 0o600, 0o444


@dataclass(frozen=True, slots=True)
class Authority:
    """The files of an authority."""

    root_key: Path
    root_certificate: Path
    signer_key: Path
    signer_certificate: Path


def create(folder: Path, region: str, now: datetime) -> Authority:
    """Make an authority in a folder: `root.key`, `certs/<region>.pem`, `signer.key`, `signer.pem`.

    Keys are for their owner alone (0600), certificates read-only (0444); nothing is overwritten. Raises
    `NameInvalid` for a region that is no name, `OutputExists` or `OutputUnwritable`.
    """
    check_model_name(region)
    made = Authority(
        folder / "root.key",
        folder / "certs" / f"{region}.pem",
        folder / signature.KEY_FILE_NAME,
        folder / signature.CERTIFICATE_FILE_NAME,
    )
    root, signer = make(region, now)
    contents = {
        made.root_key: (root.key_pem, _SECRET),
        made.root_certificate: (root.certificate_pem, _READ_ONLY),
        made.signer_key: (signer.key_pem, _SECRET),
        made.signer_certificate: (signer.certificate_pem, _READ_ONLY),
    }
    _write(contents)
    return made


def make(region: str, now: datetime) -> tuple[Issuer, Issuer]:
    """Return a new root and a signer that it has signed, with their keys."""
    root = Issuer.root(f"Model root {region}", now, ROOT_YEARS, path_length=1)
    key = new_key()
    subject = Subject(f"Model signer {region}", key.public_key(), (ExtendedKeyUsageOID.CODE_SIGNING,))
    return root, Issuer(root.sign(subject, now, SIGNER_YEARS), key)


def _write(contents: dict[Path, tuple[bytes, int]]) -> None:
    """Write every file anew, or none."""
    for path in contents:
        if os.path.lexists(path):
            raise OutputExists(f"{path} is there already; an authority is never overwritten", file=path)
    written: list[Path] = []
    try:
        for path, (data, mode) in contents.items():
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            if mode == _SECRET:
                write_private(path, b"")
            else:
                path.touch(_SECRET, exist_ok=False)
            written.append(path)
            with path.open("wb") as file:
                file.write(data)
                file.flush()
                set_mode(file.fileno(), path, mode)
                os.fsync(file.fileno())
    except OSError as error:
        for path in written:
            path.unlink(missing_ok=True)
        raise OutputUnwritable(f"{error.filename or 'a file'} cannot be written: {error.strerror}") from error
