"""The hub's authorities: made once for all processes, and strict about the keys they are asked to sign."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lightkeeper.errors import SigningRequestUnusable
from lightkeeper.hub import authority
from lightkeeper.hub.database import Database
from lightkeeper.modelpackage import roots
from lightkeeper.modelpackage.issuer import new_key
from lightkeeper.modelpackage.signature import Signer

NOW = datetime.now(UTC)

RequestKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | dsa.DSAPrivateKey


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A new hub's database."""
    with closing(Database(f"sqlite:///{tmp_path / 'hub.sqlite'}")) as made:
        yield made


def test_every_process_has_the_same_authorities(tmp_path: Path) -> None:
    """Of eight that start at once on an empty database, one makes them and all use those."""
    url = f"sqlite:///{tmp_path / 'hub.sqlite'}"

    def start(_: int) -> tuple[bytes, bytes, str, str]:
        database = Database(url)
        devices, packages = authority.devices(database, NOW), authority.package_authority(database, "r", NOW)
        database.close()
        return devices.certificate_pem, devices.key_pem, packages.key, packages.root

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(start, range(8)))) == 1


def test_a_device_certificate_says_who_and_what_for(database: Database) -> None:
    """The thing's name, TLS client alone, fifteen years, begun a day ago."""
    issuer = authority.devices(database, NOW)
    made = authority.sign_device(issuer, "cam-1", new_key().public_key(), NOW)
    made.verify_directly_issued_by(issuer.certificate)
    assert made.subject.rfc4514_string() == "CN=cam-1"
    purposes = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert made.not_valid_before_utc <= NOW - timedelta(days=1) + timedelta(seconds=1)
    assert timedelta(days=15 * 365 - 1) < made.not_valid_after_utc - NOW <= timedelta(days=15 * 365)


def request(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | dsa.DSAPrivateKey,
) -> bytes:
    """Return a signing request that asks for more than it should: another name, and to be an authority."""
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody-else")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(key, algorithm).public_bytes(Encoding.PEM)


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_a_request_brings_its_key_and_nothing_else(database: Database, curve: ec.EllipticCurve) -> None:
    """The hub says the name and the purpose, whatever the request says."""
    key = ec.generate_private_key(curve)
    signed_for = authority.requested_key(request(key))
    assert signed_for == key.public_key()
    made = authority.sign_device(authority.devices(database, NOW), "cam-1", signed_for, NOW)
    assert made.subject.rfc4514_string() == "CN=cam-1"
    assert made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False


def test_a_key_of_rsa_is_taken_from_2048_bits_on() -> None:
    """Secure elements of the field have such keys."""
    key = rsa.generate_private_key(65537, 2048)
    assert authority.requested_key(request(key)) == key.public_key()
    weak = rsa.generate_private_key(65537, 1024)  # noqa: S505  # the point of it
    with pytest.raises(SigningRequestUnusable, match="RSA of 1024 bits"):
        authority.requested_key(request(weak))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (request(ec.generate_private_key(ec.SECP256K1())), "secp256k1"),
        (request(ed25519.Ed25519PrivateKey.generate()), "Ed25519"),
        (request(dsa.generate_private_key(2048)), "DSA"),
        (b"", "no certificate signing request"),
        (b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", "no certificate signing"),
        (b"\x30\x82" * 1000, "no certificate signing request"),
        (b"-----BEGIN CERTIFICATE REQUEST-----\n" + b"A" * 10_000_000, "no certificate signing request"),
    ],
    ids=["k1", "ed25519", "dsa", "empty", "hollow", "binary", "endless"],
)
def test_what_is_no_usable_request_is_refused(data: bytes, why: str) -> None:
    """Other keys, and what is no request at all."""
    with pytest.raises(SigningRequestUnusable, match=why):
        authority.requested_key(data)


def test_a_request_that_was_changed_is_refused() -> None:
    """Whoever asks must hold the key: another key cannot be slipped in."""
    genuine = x509.load_pem_x509_csr(request(new_key())).public_bytes(Encoding.DER)
    forged = bytearray(genuine)
    forged[genuine.index(b"somebody-else")] ^= 1
    pem = ssl.DER_cert_to_PEM_cert(bytes(forged)).replace(" CERTIFICATE", " CERTIFICATE REQUEST").encode()
    with pytest.raises(SigningRequestUnusable, match="not signed with the key"):
        authority.requested_key(pem)


def test_the_listeners_certificate_is_kept_until_its_end_is_near(database: Database) -> None:
    """A restart changes nothing; a year before its end, or for another address, there is a new one."""

    def served(hosts: list[str], now: datetime) -> bytes:
        return authority.listener(database, hosts, now).certificate_pem

    first = served(["localhost", "127.0.0.1"], NOW)
    assert served(["127.0.0.1", "localhost"], NOW + timedelta(days=360)) == first
    later = served(["localhost", "127.0.0.1"], NOW + timedelta(days=366))
    assert later != first
    assert served(["hub.example"], NOW + timedelta(days=366)) != later


def test_the_packages_signer_signs_what_devices_accept(database: Database, tmp_path: Path) -> None:
    """Its root is one that the agent's own reading of roots accepts, its signer one that packages are built with."""
    made = authority.package_authority(database, "eu-central-1", NOW)
    (tmp_path / "roots").mkdir()
    path = tmp_path / "roots" / "eu-central-1.pem"
    path.write_text(made.root)
    path.chmod(0o444)
    assert len(roots.load(tmp_path / "roots")) == 1
    signer = Signer.parse(made.key.encode(), made.certificates.encode())
    signer.certificates[0].verify_directly_issued_by(x509.load_pem_x509_certificate(made.root.encode()))
