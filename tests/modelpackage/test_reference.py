"""Held against the reference implementation of OpenSSF Model Signing, PyPI `model-signing`, in both directions.

Where Lightkeeper is stricter, the case stands in `STRICTER` with its reason, which `docs/spec/model-package.md`,
clause 6, repeats; a case that is neither refused by both nor listed there fails. Nothing that the reference refuses is
accepted.
"""

from __future__ import annotations

import base64
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from lightkeeper import errors
from lightkeeper.modelpackage.signature import Signer, pae
from lightkeeper.modelpackage.trustrecord import TrustRecord
from tests.support.certificates import (
    AUTHORITY,
    CODE_SIGNING,
    LEAF,
    SERVER,
    Holder,
    Shape,
    make,
    write_roots,
    write_signer,
)
from tests.support.packages import FILES, MANIFEST, Workshop

with warnings.catch_warnings():  # the reference's own imports warn; its behaviour here does not
    warnings.simplefilter("ignore")
    from model_signing import hashing, signing, verifying

NOW = datetime.now(UTC).replace(microsecond=0)
YEAR = timedelta(days=365)
CURRENT = replace(LEAF, begin=NOW - YEAR, end=NOW + 9 * YEAR)
CURRENT_AUTHORITY = replace(AUTHORITY, begin=NOW - YEAR, end=NOW + 19 * YEAR)

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",  # the reference calls Logger.warn and old parts of pyOpenSSL
)


@dataclass
class Bench:
    """A workshop with certificates of today, as the reference knows no other time."""

    workshop: Workshop
    root: Holder

    def sign(self, folder: Path, leaf: Holder, *chain: Holder, how: hashing.Config | None = None) -> None:
        """Let the reference sign a folder with a certificate."""
        signer = write_signer(folder.parent / "reference-signer", leaf)
        paths = []
        for index, holder in enumerate(chain or (self.root,)):  # it cannot do without any
            paths.append(signer / f"chain-{index}.pem")
            paths[-1].write_bytes(holder.pem)
        config = signing.Config().use_certificate_signer(
            private_key=signer / "signer.key", signing_certificate=signer / "signer.pem", certificate_chain=paths
        )
        how = (how or hashing.Config()).set_ignored_paths(paths=[folder / "model.sig"])  # as its command line does
        config.set_hashing_config(how).sign(folder, folder / "model.sig")

    def reference_accepts(self, folder: Path) -> bool:
        """Let the reference verify a folder; it has no error type of its own."""
        try:
            verifying.Config().use_certificate_verifier(
                certificate_chain=sorted(self.workshop.roots.glob("*.pem"))
            ).verify(folder, folder / "model.sig")
        except Exception:  # noqa: BLE001  # whatever it raises, it did not accept
            return False
        return True

    def we_accept(self, folder: Path) -> bool:
        """Verify a folder as the agent of a new device does."""
        self.workshop.record = TrustRecord(None, released=NOW - YEAR)
        try:
            with self.workshop.store().open(str(folder)):
                return True
        except errors.PackageRefused:
            return False


@pytest.fixture
def bench(workshop: Workshop) -> Bench:
    """The workshop, today."""
    root = make("root", None, CURRENT_AUTHORITY)
    workshop.now = NOW
    workshop.roots = write_roots(workshop.folder / "current-roots", root)
    workshop.leaf = make("signer", root, CURRENT)
    workshop.signer = Signer.load(write_signer(workshop.folder / "current-signer", workshop.leaf))
    return Bench(workshop, root)


def unsigned(workshop: Workshop, **files: bytes) -> Path:
    """Write a package without signature."""
    return workshop.write_folder({"manifest.json": MANIFEST.to_json(), **FILES, **files})


# --- each accepts what the other signed ------------------------------------------------------------------------------


def _key(curve: ec.EllipticCurve) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(curve)


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: str(curve.name))
def test_reference_accepts_what_we_sign(bench: Bench, curve: ec.EllipticCurve) -> None:
    """A package made here is verified by the reference, intermediates included (clause 6.1)."""
    middle = make("middle", bench.root, CURRENT_AUTHORITY)
    leaf = make("deep", middle, CURRENT, _key(curve))
    bench.workshop.signer = Signer.load(write_signer(bench.workshop.folder / "deep", leaf, [middle]))
    folder = bench.workshop.write_folder(bench.workshop.package())
    assert bench.reference_accepts(folder)
    assert bench.we_accept(folder)


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: str(curve.name))
def test_we_accept_what_the_reference_signs(bench: Bench, curve: ec.EllipticCurve) -> None:
    """A package that the reference signed, intermediates included, is opened (clause 6.1)."""
    middle = make("middle", bench.root, CURRENT_AUTHORITY)
    leaf = make("deep", middle, CURRENT, _key(curve))
    folder = unsigned(bench.workshop, **{"deep/er/é.txt": b"text", "a.b": b"", "a/b": b"sorted in two ways"})
    bench.sign(folder, leaf, middle)
    assert bench.we_accept(folder)
    assert bench.reference_accepts(folder)


def test_we_accept_shards_that_the_reference_signs(bench: Bench) -> None:
    """A package that the reference signed in shards is opened (clause 3.6)."""
    folder = unsigned(bench.workshop)
    bench.sign(folder, bench.workshop.leaf, how=hashing.Config().use_shard_serialization(shard_size=1000))
    with bench.workshop.store().open(str(folder)):
        pass
    assert not bench.reference_accepts(folder)  # release 1.1.1 stumbles over its own shard size, which it writes 1000.0


def test_we_accept_a_signature_that_allows_links(bench: Bench) -> None:
    """A signer may have been told to follow links; a package has none, so that says nothing (clause 3.5)."""
    folder = unsigned(bench.workshop)
    bench.sign(folder, bench.workshop.leaf, how=hashing.Config().set_allow_symlinks(allow_symlinks=True))
    assert b"allow_symlinks" in base64.b64decode(
        json.loads((folder / "model.sig").read_bytes())["dsseEnvelope"]["payload"]
    )
    assert bench.reference_accepts(folder)
    assert bench.we_accept(folder)


def test_we_accept_the_root_among_the_reference_s_chain(bench: Bench) -> None:
    """Signers often give the reference their whole chain, root included (clause 4.2)."""
    folder = unsigned(bench.workshop)
    bench.sign(folder, bench.workshop.leaf, bench.root)
    assert bench.we_accept(folder)


def test_both_accept_a_self_signed_certificate_among_the_roots(bench: Bench) -> None:
    """A lone certificate that is trusted itself signs for itself (clause 4.2)."""
    lone = make("lone", None, CURRENT)
    bench.workshop.roots = write_roots(bench.workshop.folder / "lone-roots", lone)
    folder = unsigned(bench.workshop)
    bench.sign(folder, lone)
    assert bench.reference_accepts(folder)
    assert bench.we_accept(folder)


# --- what one refuses, the other refuses -----------------------------------------------------------------------------

Tamper = Callable[[Bench, Path], object]

STRICTER = {
    "an ignored git file": "an unsigned file in a package has no business there, whatever its name",
    "a file that the signature says to ignore": "a package's signature must not open a hole in the package",
    "an expired certificate": "the reference holds every certificate against the leaf's begin, so none ever expires",
    "a certificate that has not begun": "the same",
    "an expired root": "the same",
    "code signing use without key usage": "a leaf must say that it makes digital signatures",
    "a leaf for servers": "a key that authenticates a server is not meant to sign models",
    "a critical certificate policy": "what is critical and not evaluated is refused",
    "two signatures": "the reference looks at the first alone; nobody knows what the second would mean",
    "a resource twice": "the reference takes the last; a list that says two things says nothing",
    "a signature over the encoding of release 0.2": "packages are younger than that release",
    "base64 with noise": "one text for one signature",
    "a key twice": "different readers take different ones",
}


def _statement(
    bench: Bench, folder: Path, edit: Callable[[Any], object], encode: Callable[[bytes], bytes] = pae
) -> None:
    """Change the statement and sign it anew with the good key."""
    path = folder / "model.sig"
    document = json.loads(path.read_bytes())
    envelope = document["dsseEnvelope"]
    statement = json.loads(base64.b64decode(envelope["payload"]))
    edit(statement)
    payload = json.dumps(statement).encode()
    key = bench.workshop.leaf.key
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    envelope["payload"] = base64.b64encode(payload).decode()
    envelope["signatures"][0]["sig"] = base64.b64encode(key.sign(encode(payload), ec.ECDSA(hashes.SHA256()))).decode()
    path.write_text(json.dumps(document))


def _bundle(folder: Path, edit: Callable[[Any], object]) -> None:
    path = folder / "model.sig"
    document = json.loads(path.read_bytes())
    edit(document)
    path.write_text(json.dumps(document))


def _resign(bench: Bench, folder: Path, leaf: Holder, *chain: Holder) -> None:
    (folder / "model.sig").unlink()
    bench.sign(folder, leaf, *chain)


def _leaf(**changes: Any) -> Tamper:
    def tamper(bench: Bench, folder: Path) -> None:
        _resign(bench, folder, make("signer", bench.root, replace(CURRENT, **changes)))

    return tamper


def _middle(**changes: Any) -> Tamper:
    def tamper(bench: Bench, folder: Path) -> None:
        middle = make("middle", bench.root, replace(CURRENT_AUTHORITY, **changes))
        _resign(bench, folder, make("signer", middle, CURRENT), middle)

    return tamper


def _other_root(shape: Shape) -> Tamper:
    def tamper(bench: Bench, folder: Path) -> None:
        root = make("other", None, shape)
        bench.workshop.roots = write_roots(folder.parent / "other-roots", root)
        _resign(bench, folder, make("signer", root, CURRENT))

    return tamper


def _unknown_root(bench: Bench, folder: Path) -> None:
    bench.workshop.roots = write_roots(folder.parent / "other-roots", make("other", None, CURRENT_AUTHORITY))


def _ignored(bench: Bench, folder: Path) -> None:
    ignored = ["model.sig", "evil.so"]
    _statement(bench, folder, lambda s: s["predicate"]["serialization"].update(ignore_paths=ignored))
    (folder / "evil.so").touch()


def _append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"!")


def _link(path: Path, elsewhere: Path) -> None:
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def _old_encoding(payload: bytes) -> bytes:
    kind = "application/vnd.in-toto+json"
    return f"DSSEV1 {len(kind)} {kind} {len(payload)} {payload!r}".encode()


def _serialization(**changes: Any) -> Tamper:
    return lambda bench, folder: _statement(bench, folder, lambda s: s["predicate"]["serialization"].update(changes))


def _certificates(document: Any) -> Any:
    return document["verificationMaterial"]["x509CertificateChain"]["certificates"]


def _policy() -> Any:
    from cryptography import x509

    return x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier("1.2.3.4"), None)])


def _unknown_extension() -> Any:
    from cryptography import x509

    return x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")


def _stranger_within(bench: Bench, folder: Path) -> None:
    stranger = make("stranger", None, CURRENT_AUTHORITY)
    _resign(bench, folder, make("signer", stranger, CURRENT), stranger)


def _root_without_room(bench: Bench, folder: Path) -> None:
    root = make("other", None, replace(CURRENT_AUTHORITY, path_length=0))
    bench.workshop.roots = write_roots(folder.parent / "other-roots", root)
    middle = make("middle", root, CURRENT_AUTHORITY)
    _resign(bench, folder, make("signer", middle, CURRENT), middle)


TAMPERINGS: dict[str, Tamper] = {
    "a changed file": lambda _, f: _append(f / "model.onnx"),
    "a changed manifest": lambda _, f: _append(f / "manifest.json"),
    "a missing file": lambda _, f: (f / "data/weights.bin").unlink(),
    "an extra file": lambda _, f: (f / "data/extra").touch(),
    "an extra signature below": lambda _, f: (f / "data/model.sig").touch(),
    "a linked file": lambda _, f: _link(f / "model.onnx", f.parent / "elsewhere"),
    "a linked folder": lambda _, f: _link(f / "data", f.parent / "elsewhere"),
    "a renamed file": lambda _, f: (f / "model.onnx").rename(f / "model2.onnx"),
    "an ignored git file": lambda _, f: (f / ".gitattributes").touch(),
    "a file that the signature says to ignore": _ignored,
    "an unknown root": _unknown_root,
    "a stranger's root in the bundle": _stranger_within,
    "an expired certificate": _leaf(end=NOW - timedelta(days=1)),
    "a certificate that has not begun": _leaf(begin=NOW + timedelta(days=1)),
    "an expired root": _other_root(replace(CURRENT_AUTHORITY, begin=NOW - 2 * YEAR, end=NOW - timedelta(days=1))),
    "an issuer that ended before the leaf began": _middle(begin=NOW - 3 * YEAR, end=NOW - 2 * YEAR),
    "an issuer that began after the leaf": _middle(begin=NOW - timedelta(days=1)),
    "a leaf without uses": _leaf(uses=None),
    "a leaf without digital signatures": _leaf(uses=("key_encipherment",)),
    "code signing use without key usage": _leaf(uses=None, extended=(CODE_SIGNING,)),
    "a leaf for servers": _leaf(extended=(SERVER,)),
    "an unknown critical extension": _leaf(extras=((_unknown_extension(), True),)),
    "an unknown critical extension of an issuer": _middle(extras=((_unknown_extension(), True),)),
    "a critical certificate policy": _leaf(extras=((_policy(), True),)),
    "an issuer that is no authority": _middle(ca=False),
    "an issuer without basic constraints": _middle(ca=None),
    "an issuer that may not sign certificates": _middle(uses=("digital_signature",)),
    "a root that is no authority": _other_root(replace(CURRENT_AUTHORITY, ca=False)),
    "a root without room for issuers": _root_without_room,
    "another payload": lambda _, f: _bundle(f, lambda d: d["dsseEnvelope"].update(payload="e30=")),
    "another payload type": lambda _, f: _bundle(f, lambda d: d["dsseEnvelope"].update(payloadType="text/plain")),
    "another media type": lambda _, f: _bundle(f, lambda d: d.update(mediaType="application/json")),
    "an older media type": lambda _, f: _bundle(
        f, lambda d: d.update(mediaType="application/vnd.dev.sigstore.bundle+json;version=0.2")
    ),
    "an unknown field": lambda _, f: _bundle(f, lambda d: d.update(more=1)),
    "no signature": lambda _, f: _bundle(f, lambda d: d["dsseEnvelope"].update(signatures=[])),
    "two signatures": lambda _, f: _bundle(f, lambda d: d["dsseEnvelope"]["signatures"].append({"sig": "AA=="})),
    "a signature of noise": lambda _, f: _bundle(f, lambda d: d["dsseEnvelope"]["signatures"][0].update(sig="AAAA")),
    "base64 with noise": lambda _, f: _bundle(
        f, lambda d: d["dsseEnvelope"]["signatures"][0].update(sig=" " + d["dsseEnvelope"]["signatures"][0]["sig"])
    ),
    "a key twice": lambda _, f: _twice(f),
    "a bare key": lambda _, f: _bundle(
        f, lambda d: d.update(verificationMaterial={"publicKey": {"hint": "x"}, "tlogEntries": []})
    ),
    "no certificate": lambda _, f: _bundle(f, lambda d: _certificates(d).clear()),
    "a damaged certificate": lambda _, f: _bundle(f, lambda d: _certificates(d)[0].update(rawBytes="MIIB")),
    "a bundle cut short": lambda _, f: (f / "model.sig").write_bytes((f / "model.sig").read_bytes()[:900]),
    "no bundle": lambda _, f: (f / "model.sig").unlink(),
    "an empty bundle": lambda _, f: (f / "model.sig").write_bytes(b""),
    "another statement type": lambda b, f: _statement(
        b, f, lambda s: s.update(_type="https://in-toto.io/Statement/v0.1")
    ),
    "another predicate": lambda b, f: _statement(b, f, lambda s: s.update(predicateType="https://example.org/x")),
    "an older predicate": lambda b, f: _statement(
        b, f, lambda s: s.update(predicateType="https://model_signing/Digests/v0.1")
    ),
    "two subjects": lambda b, f: _statement(b, f, lambda s: s["subject"].append(s["subject"][0])),
    "another subject digest": lambda b, f: _statement(
        b, f, lambda s: s["subject"][0]["digest"].update(sha256="0" * 64)
    ),
    "no serialization": lambda b, f: _statement(b, f, lambda s: s["predicate"].pop("serialization")),
    "another method": _serialization(method="none"),
    "another hash": _serialization(hash_type="blake2b"),
    "a resource twice": lambda b, f: _statement(b, f, _twice_listed),
    "a resource's digest changed": lambda b, f: _statement(
        b, f, lambda s: s["predicate"]["resources"][0].update(digest="0" * 64)
    ),
    "a signature over the encoding of release 0.2": lambda b, f: _statement(b, f, lambda _: None, _old_encoding),
}


def _twice(folder: Path) -> None:
    path = folder / "model.sig"
    path.write_text('{"mediaType": "x", ' + path.read_text()[1:])


def _twice_listed(statement: Any) -> None:
    from tests.support.packages import sha256

    resources = statement["predicate"]["resources"]
    resources.append(resources[0])
    row = b"".join(bytes.fromhex(resource["digest"]) for resource in resources)
    statement["subject"][0]["digest"]["sha256"] = sha256(row)


@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_both_refuse(bench: Bench, tampering: str) -> None:
    """What either refuses is refused here, and where the reference is laxer that is listed with its reason (6.2)."""
    folder = unsigned(bench.workshop)
    bench.sign(folder, bench.workshop.leaf)
    assert bench.we_accept(folder)
    assert bench.reference_accepts(folder)
    TAMPERINGS[tampering](bench, folder)
    assert not bench.we_accept(folder)
    assert bench.reference_accepts(folder) == (tampering in STRICTER)


def test_every_exception_is_provoked_and_documented() -> None:
    """The list of exceptions has no entry without a case, and the specification has each of them (clause 6.2)."""
    assert STRICTER.keys() <= TAMPERINGS.keys()
    specification = (Path(__file__).parents[2] / "docs/spec/model-package.md").read_text(encoding="utf-8")
    missing: Mapping[str, str] = {case: why for case, why in STRICTER.items() if case not in specification}
    assert not missing
