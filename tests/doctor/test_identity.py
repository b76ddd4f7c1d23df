"""The device's certificate and key, in every state in which devices have them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from lightkeeper import tokenkey
from lightkeeper.doctor import State, identity
from lightkeeper.hub import authority
from lightkeeper.modelpackage.issuer import Issuer, new_key, pem_of, pem_of_key

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    """The authority of a hub's devices."""
    return Issuer.root("devices", NOW - timedelta(days=400), 30)


@pytest.fixture
def files(tmp_path: Path, issuer: Issuer) -> tuple[Path, Path]:
    """A certificate with its key, as a device's folder has them."""
    key = new_key()
    certificate, key_file = tmp_path / "device.pem", tmp_path / "device.key"
    certificate.write_bytes(pem_of(authority.sign_device(issuer, "cam-1", key.public_key(), NOW)))
    key_file.write_bytes(pem_of_key(key))
    return certificate, key_file


def test_a_valid_certificate_with_its_key_passes(files: tuple[Path, Path]) -> None:
    """Its last day is told."""
    certificate, key_file = files
    assert identity.certificate(certificate, NOW).state is State.OK
    assert identity.key(certificate, key_file).state is State.OK


@pytest.mark.parametrize(
    ("days", "state", "reason"),
    [
        (-2, State.FAILED, "CERTIFICATE_NOT_YET_VALID"),
        (-20, State.WARNING, ""),
        (20, State.FAILED, "CERTIFICATE_EXPIRED"),
    ],
)
def test_a_certificate_is_held_against_the_clock(
    files: tuple[Path, Path], days: int, state: State, reason: str
) -> None:
    """A clock before its begin, one shortly before its end, one after it."""
    from lightkeeper.modelpackage.certificate import from_pem

    (certificate,) = from_pem(files[0].read_bytes())
    edge = certificate.not_valid_before_utc if days == -2 else certificate.not_valid_after_utc
    found = identity.certificate(files[0], edge + timedelta(days=days))
    assert (found.state, found.reason) == (state, reason)
    assert found.fix


def test_another_certificates_key_fails(files: tuple[Path, Path], tmp_path: Path) -> None:
    """It is the commonest mistake of all."""
    other = tmp_path / "other.key"
    other.write_bytes(pem_of_key(new_key()))
    found = identity.key(files[0], other)
    assert (found.state, found.reason) == (State.FAILED, "CERTIFICATE_FILES_UNUSABLE")
    assert "does not belong" in found.found


def test_a_key_with_a_password_fails_and_nobody_is_asked_for_it(files: tuple[Path, Path], tmp_path: Path) -> None:
    """The command that takes the password off is told."""
    locked = tmp_path / "locked.key"
    locked.write_bytes(new_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    found = identity.key(files[0], locked)
    assert found.state is State.FAILED
    assert "encrypted" in found.found
    assert "openssl pkey" in found.fix


def test_files_that_cannot_be_read_fail(files: tuple[Path, Path], tmp_path: Path) -> None:
    """Missing, or something else."""
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nothing")
    for found in (
        identity.certificate(tmp_path / "none.pem", NOW),
        identity.certificate(nonsense, NOW),
        identity.authority(nonsense, NOW),
        identity.key(files[0], tmp_path / "none.key"),
        identity.key(files[0], nonsense),
    ):
        assert (found.state, found.reason) == (State.FAILED, "CERTIFICATE_FILES_UNUSABLE")


def test_of_an_authoritys_bundle_the_last_to_end_counts(tmp_path: Path, issuer: Issuer) -> None:
    """Old roots stay in bundles for years."""
    old = Issuer.root("old", NOW - timedelta(days=800), 1)
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(old.certificate_pem)
    assert identity.authority(bundle, NOW).reason == "CERTIFICATE_EXPIRED"
    bundle.write_bytes(old.certificate_pem + issuer.certificate_pem)
    assert identity.authority(bundle, NOW).state is State.OK


def test_a_key_in_a_token_is_left_to_the_exchange(files: tuple[Path, Path]) -> None:
    """Each look at it takes a PIN, and the PIN is not in what is said."""
    found = identity.key(files[0], tokenkey.parse("pkcs11:object=device?pin-value=4711"))
    assert (found.state, "pkcs11:object=device" in found.found) == (State.SKIPPED, True)
    assert "4711" not in repr(found)
