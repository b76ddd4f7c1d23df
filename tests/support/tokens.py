"""Private keys in a real PKCS#11 token: SoftHSM's, made below a folder of the test."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from lightkeeper import tokenkey
from lightkeeper.tokenkey import KeyAddress
from tests.support.certificates import Holder

PIN = "7c1;d e9%40&secret"
"""With characters that mean something in an address, in curl's configuration, or in a shell."""

_MODULES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/local/lib/softhsm/libsofthsm2.so")
_PROGRAMS = ("softhsm2-util", "pkcs11-tool", "openssl", "curl")
_PACKAGES = "apt-get install softhsm2 opensc libengine-pkcs11-openssl curl"


def _missing() -> str:
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if not any(Path(module).exists() for module in _MODULES):
        missing.append("SoftHSM's module")
    if shutil.which("openssl"):
        engine = subprocess.run(["openssl", "engine", "pkcs11"], capture_output=True, check=False)
        missing += ["OpenSSL's engine for PKCS#11"] if engine.returncode else []
    return f"{', '.join(missing)} missing: {_PACKAGES}" if missing else ""


needs_tokens = pytest.mark.skipif(
    not os.environ.get("CI") and bool(_missing()), reason=_missing() or "nothing is missing"
)


class Token:
    """A token with one key of the curve P-256, called `device`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        (folder / "tokens").mkdir()
        settings = folder / "softhsm2.conf"
        settings.write_text(f"directories.tokendir = {folder / 'tokens'}\n")
        self.environment: Mapping[str, str] = {**os.environ, "SOFTHSM2_CONF": str(settings)}
        self.pin_file = folder / "pin"
        self.pin_file.write_text(f"{PIN}\n")
        self.pin_file.chmod(0o600)
        self._run("softhsm2-util", "--init-token", "--free", "--label", "unit 7", "--so-pin", "12345678", "--pin", PIN)
        module = next(module for module in _MODULES if Path(module).exists())
        words = ["--login", "--pin", PIN, "--token-label", "unit 7", "--keypairgen", "--key-type", "EC:prime256v1"]
        self._run("pkcs11-tool", "--module", module, *words, "--label", "device", "--id", "01")

    def written(self, label: str = "unit%207", key: str = "device", pin: str = "") -> str:
        """Return the key's address as a configuration has it, or another's; the PIN's file where there is no `pin`."""
        return f"pkcs11:token={label};object={key}?{pin or f'pin-source=file:{self.pin_file}'}"

    def address(self, label: str = "unit%207", key: str = "device", pin: str = "") -> KeyAddress:
        """Return the address."""
        return tokenkey.parse(self.written(label, key, pin))

    def request(self, name: str) -> Path:
        """Return a signing request of the key, as OpenSSL makes it with the token."""
        made = self.folder / "device.csr"
        words = ["req", "-new", "-engine", "pkcs11", "-keyform", "engine", "-key", self.address().with_pin(PIN)]
        self._run("openssl", *words, "-subj", f"/CN={name}", "-out", str(made))
        return made

    def certificate(self, name: str, authority: Holder, *, life: timedelta = timedelta(days=30)) -> Path:
        """Return a certificate of the key, which an authority has signed; one with a negative life has ended."""
        request = x509.load_pem_x509_csr(self.request(name).read_bytes())
        now = datetime.now(UTC)
        signed = (
            x509.CertificateBuilder()
            .subject_name(request.subject)
            .issuer_name(authority.certificate.subject)
            .public_key(request.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=60))
            .not_valid_after(now + life)
            .sign(authority.key, hashes.SHA256())
        )
        path = self.folder / "device.pem"
        path.write_bytes(signed.public_bytes(Encoding.PEM))
        return path

    def _run(self, *words: str) -> None:
        subprocess.run(words, env=self.environment, check=True, capture_output=True)
