"""Making a certificate authority: a root that devices trust, and a signer that signs packages in its name.

How long each is valid, and why, is said in `docs/adr/0002-which-clock-counts.md`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lightkeeper.errors import OutputExists, OutputUnwritable
from lightkeeper.modelpackage import signature
from lightkeeper.names import check_model_name

ROOT_YEARS = 20
SIGNER_YEARS = 10
BACKDATED = timedelta(days=1)
"""Certificates begin this long before they are made: a device's clock may be somewhat behind."""

_YEAR = timedelta(days=365)
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
    root_key, signer_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    begin = now.replace(microsecond=0) - BACKDATED
    root = _root(root_key, region, begin)
    signer = _signer(signer_key, region, begin, root, root_key)
    contents = {
        made.root_key: (_pem(root_key), _SECRET),
        made.root_certificate: (root.public_bytes(serialization.Encoding.PEM), _READ_ONLY),
        made.signer_key: (_pem(signer_key), _SECRET),
        made.signer_certificate: (signer.public_bytes(serialization.Encoding.PEM), _READ_ONLY),
    }
    _write(contents)
    return made


def _root(key: ec.EllipticCurvePrivateKey, region: str, begin: datetime) -> x509.Certificate:
    name = _name(f"Model root {region}")
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        _certificate(name, name, key.public_key(), begin, ROOT_YEARS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )


def _signer(
    key: ec.EllipticCurvePrivateKey,
    region: str,
    begin: datetime,
    root: x509.Certificate,
    root_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    return (
        _certificate(_name(f"Model signer {region}"), root.subject, key.public_key(), begin, SIGNER_YEARS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False)
        .sign(root_key, hashes.SHA256())
    )


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, begin: datetime, years: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + BACKDATED + years * _YEAR)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _usage(*uses: str) -> x509.KeyUsage:
    every = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{use: use in uses for use in every})


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(contents: dict[Path, tuple[bytes, int]]) -> None:
    """Write every file anew, or none."""
    for path in contents:
        if os.path.lexists(path):
            raise OutputExists(f"{path} is there already; an authority is never overwritten", file=path)
    written: list[Path] = []
    try:
        for path, (data, mode) in contents.items():
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _SECRET)
            written.append(path)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
    except OSError as error:
        for path in written:
            path.unlink(missing_ok=True)
        raise OutputUnwritable(f"{error.filename or 'a file'} cannot be written: {error.strerror}") from error
