"""Real certificates of every kind, right and wrong, for the tests of trust."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
NOW = datetime(2027, 6, 1, tzinfo=UTC)
END = datetime(2036, 1, 1, tzinfo=UTC)

CODE_SIGNING = ExtendedKeyUsageOID.CODE_SIGNING
SERVER = ExtendedKeyUsageOID.SERVER_AUTH
_USES = (
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


def usage(*uses: str) -> x509.KeyUsage:
    """Return a key usage that allows just these uses."""
    return x509.KeyUsage(**{use: use in uses for use in _USES})


@dataclass(frozen=True)
class Shape:
    """What a certificate says; the default is a leaf that may sign."""

    ca: bool | None = False
    path_length: int | None = None
    uses: tuple[str, ...] | None = ("digital_signature",)
    extended: tuple[x509.ObjectIdentifier, ...] = ()
    extras: tuple[tuple[x509.ExtensionType, bool], ...] = ()
    begin: datetime = BEGIN
    end: datetime = END
    key_identifiers: bool = True
    hash: hashes.SHA256 | hashes.SHA384 | hashes.SHA512 | None = None


LEAF = Shape()
AUTHORITY = Shape(ca=True, uses=("key_cert_sign",))


@dataclass(frozen=True)
class Holder:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: PrivateKey

    @property
    def pem(self) -> bytes:
        """The certificate in PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The key in PEM."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def new_key() -> ec.EllipticCurvePrivateKey:
    """Return a new key of the curve P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def make(name: str, issuer: Holder | None, shape: Shape, key: PrivateKey | None = None) -> Holder:
    """Make a certificate; without an issuer it is self-signed."""
    key = key or new_key()
    issuer_key = issuer.key if issuer else key
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(shape.begin)
        .not_valid_after(shape.end)
    )
    if shape.ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(shape.ca, shape.path_length), critical=True)
    if shape.uses is not None:
        builder = builder.add_extension(usage(*shape.uses), critical=True)
    if shape.extended:
        builder = builder.add_extension(x509.ExtendedKeyUsage(shape.extended), critical=False)
    if shape.key_identifiers:
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        if issuer:
            builder = builder.add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
            )
    for extra, critical in shape.extras:
        builder = builder.add_extension(extra, critical=critical)
    algorithm = None if isinstance(issuer_key, ed25519.Ed25519PrivateKey) else shape.hash or hashes.SHA256()
    return Holder(builder.sign(issuer_key, algorithm), key)


def write_roots(folder: Path, *roots: Holder) -> Path:
    """Write a folder of read-only root certificates."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, root in enumerate(roots):
        path = folder / f"root-{index}.pem"
        path.write_bytes(root.pem)
        path.chmod(0o444)
    return folder


def write_signer(folder: Path, leaf: Holder, intermediates: Sequence[Holder] = ()) -> Path:
    """Write a signer's folder, as `lightkeeper package --signer` takes it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "signer.key").write_bytes(leaf.key_pem)
    (folder / "signer.pem").write_bytes(b"".join(holder.pem for holder in (leaf, *intermediates)))
    return folder
