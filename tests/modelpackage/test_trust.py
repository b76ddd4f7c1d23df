"""The verifier of signatures, in memory: certificates, envelope, statement, time."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from lightkeeper import errors
from lightkeeper.modelpackage import trust
from lightkeeper.modelpackage.roots import Root
from lightkeeper.modelpackage.signature import Signer, pae
from lightkeeper.modelpackage.staging import StagedFile
from lightkeeper.modelpackage.trust import TrustTime, Verified
from tests.support.certificates import (
    AUTHORITY,
    BEGIN,
    CODE_SIGNING,
    END,
    LEAF,
    NOW,
    SERVER,
    Holder,
    Shape,
    make,
    new_key,
)
from tests.support.packages import FILES, sha256

DAY = timedelta(days=1)
TIME = TrustTime(NOW, BEGIN)
ROOT = make("root", None, AUTHORITY)
SIGNING = make("signer", ROOT, LEAF)


@dataclass(frozen=True)
class Memory:
    """A package's files in memory."""

    content: Mapping[str, bytes]

    @property
    def files(self) -> Mapping[str, StagedFile]:
        """Size and digest of each."""
        return {name: StagedFile(len(data), sha256(data)) for name, data in self.content.items()}

    def sha256(self, name: str, start: int, end: int) -> str:
        """The digest of a range."""
        return sha256(self.content[name][start:end])


def bundle(leaf: Holder = SIGNING, *others: Holder, content: Mapping[str, bytes] = FILES) -> bytes:
    """Sign content with a leaf's key."""
    certificates = tuple(holder.certificate for holder in (leaf, *others))
    assert isinstance(leaf.key, ec.EllipticCurvePrivateKey)
    return Signer(leaf.key, certificates).bundle("probe-1.0", {name: sha256(data) for name, data in content.items()})


def verify(
    signed: bytes,
    *roots: Holder,
    time: TrustTime = TIME,
    content: Mapping[str, bytes] = FILES,
    accepted: frozenset[str] = frozenset(),
) -> Verified:
    """Verify with these roots (the usual one if none is given)."""
    trusted = [Root(root.certificate, "root.pem") for root in roots or (ROOT,)]
    return trust.verify(signed, Memory({**content, "model.sig": signed}), trusted, time, accepted)


def edited(edit: Callable[[Any], object], signed: bytes | None = None) -> bytes:
    """Change the bundle's JSON without signing it anew."""
    document = json.loads(signed or bundle())
    edit(document)
    return json.dumps(document).encode()


def restated(edit: Callable[[Any], object], content: Mapping[str, bytes] = FILES) -> bytes:
    """Change the statement and sign it anew, as a faulty or hostile signer with a good key would."""
    document = json.loads(bundle(content=content))
    envelope = document["dsseEnvelope"]
    statement = json.loads(base64.b64decode(envelope["payload"]))
    edit(statement)
    return resigned(document, json.dumps(statement).encode())


def resigned(document: Any, payload: bytes) -> bytes:
    """Put a payload with a good signature into a bundle."""
    assert isinstance(SIGNING.key, ec.EllipticCurvePrivateKey)
    signature = SIGNING.key.sign(pae(payload), ec.ECDSA(hashes.SHA256()))
    document["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    document["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(signature).decode()
    return json.dumps(document).encode()


def shards(size_bytes: int, content: Mapping[str, bytes] = FILES) -> dict[str, str]:
    """Return the resources of content in shards."""
    return {
        f"{name}:{start}:{min(start + size_bytes, len(data))}": sha256(data[start : start + size_bytes])
        for name, data in content.items()
        for start in range(0, len(data), size_bytes)
    }


def sharded(resources: Mapping[str, str], size_bytes: int) -> bytes:
    """Sign these shards."""

    def edit(statement: Any) -> None:
        statement["predicate"]["serialization"] |= {"method": "shards", "shard_size": size_bytes}
        _state(statement, resources)

    return restated(edit)


def _state(statement: Any, resources: Mapping[str, str]) -> None:
    row = b"".join(map(bytes.fromhex, resources.values()))
    statement["subject"][0]["digest"]["sha256"] = sha256(row)
    statement["predicate"]["resources"] = [
        {"name": name, "algorithm": "sha256", "digest": digest} for name, digest in resources.items()
    ]


# --- what is accepted ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: str(curve.name))
def test_each_curve_of_the_format_is_accepted(curve: ec.EllipticCurve) -> None:
    """Signer and verifier go together for P-256, P-384 and P-521 (clause 3.4)."""
    leaf = make("signer", ROOT, LEAF, ec.generate_private_key(curve))
    verified = verify(bundle(leaf))
    assert verified.path == (leaf.certificate, ROOT.certificate)
    assert verified.warnings == ()


@pytest.mark.parametrize(
    "root_key",
    [
        rsa.generate_private_key(65537, 2048),
        ed25519.Ed25519PrivateKey.generate(),
        ec.generate_private_key(ec.SECP521R1()),
    ],
    ids=["RSA", "Ed25519", "P-521"],
)
def test_root_may_have_another_kind_of_key(root_key: Any) -> None:
    """A company's existing root need not be an elliptic curve one (clause 4.2)."""
    root = make("company", None, AUTHORITY, root_key)
    assert verify(bundle(make("signer", root, LEAF)), root).path[-1] == root.certificate


def test_intermediates_are_used_in_any_order_and_strays_are_ignored() -> None:
    """The path is built by names and signatures, not by the order in the bundle (clause 4.2)."""
    first = make("first", ROOT, AUTHORITY)
    second = make("second", first, AUTHORITY)
    leaf = make("signer", second, LEAF)
    stray = make("stray", None, AUTHORITY)
    path = verify(bundle(leaf, stray, first, second)).path
    assert path == (leaf.certificate, second.certificate, first.certificate, ROOT.certificate)


def test_root_within_the_bundle_does_no_harm_and_no_good() -> None:
    """A root that the bundle brings along counts only if this device has it (clause 4.2)."""
    assert len(verify(bundle(SIGNING, ROOT)).path) == 2
    stranger = make("stranger", None, AUTHORITY)
    with pytest.raises(errors.RootUnknown):
        verify(bundle(make("signer", stranger, LEAF), stranger))


def test_self_signed_signer_that_is_itself_a_root_is_accepted() -> None:
    """A single certificate in the roots folder may sign for itself (clause 4.2)."""
    lone = make("lone", None, LEAF)
    assert verify(bundle(lone), lone).path == (lone.certificate,)


def test_second_root_of_the_same_name_and_key_is_found() -> None:
    """A renewed root beside the expired one leads to a good path (clause 4.2)."""
    old = make("root", None, replace(AUTHORITY, path_length=0, uses=("crl_sign",)), ROOT.key)
    assert verify(bundle(), old, ROOT).path[-1] == ROOT.certificate


def test_shards_are_accepted() -> None:
    """Files that the reference tool signed in shards are verified shard by shard (clause 3.6)."""
    assert verify(sharded(shards(100), 100)).digest == trust.digest_of(Memory(FILES).files)


# --- certificates ----------------------------------------------------------------------------------------------------

UNKNOWN_EXTENSION = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
CONSTRAINTS = x509.NameConstraints([x509.DNSName("example.org")], None)

LEAF_FAULTS: dict[str, tuple[Shape, str]] = {
    "no digital-signature use": (replace(LEAF, uses=("key_encipherment",)), "digital-signature"),
    "no key usage at all": (replace(LEAF, uses=None), "digital-signature"),
    "code signing use alone": (
        replace(LEAF, uses=None, extended=(CODE_SIGNING,)),
        "digital-signature",
    ),
    "server use alone": (replace(LEAF, extended=(SERVER,)), "code signing"),
    "an unknown critical extension": (replace(LEAF, extras=((UNKNOWN_EXTENSION, True),)), "1.3.6.1.4.1.99999.1"),
    "name constraints": (replace(LEAF, extras=((CONSTRAINTS, False),)), "name constraints"),
    "a begin before its issuer's": (replace(LEAF, begin=BEGIN - DAY), "was not valid when"),
}


@pytest.mark.parametrize("fault", LEAF_FAULTS)
def test_leaf_is_refused_with(fault: str) -> None:
    """A signer's certificate that does not allow signing models is refused, saying why (clause 4.2)."""
    shape, why = LEAF_FAULTS[fault]
    with pytest.raises(errors.CertificateUnusable, match=why) as refused:
        verify(bundle(make("signer", ROOT, shape)))
    assert "CN=" in refused.value.facts["certificate"]


def test_unknown_extension_that_is_not_critical_is_let_pass() -> None:
    """Only what a certificate calls critical must be understood (clause 4.2)."""
    leaf = make("signer", ROOT, replace(LEAF, extras=((UNKNOWN_EXTENSION, False),)))
    assert verify(bundle(leaf)).path[0] == leaf.certificate


ISSUER_FAULTS: dict[str, tuple[Shape, str]] = {
    "no authority": (replace(AUTHORITY, ca=False), "not an authority"),
    "no basic constraints": (replace(AUTHORITY, ca=None), "not an authority"),
    "no certificate signing use": (replace(AUTHORITY, uses=("digital_signature",)), "may not sign certificates"),
    "an unknown critical extension": (replace(AUTHORITY, extras=((UNKNOWN_EXTENSION, True),)), "critical extension"),
    "name constraints": (replace(AUTHORITY, extras=((CONSTRAINTS, True),)), "critical extension"),
    "an end before the leaf's begin": (
        replace(AUTHORITY, begin=BEGIN - 2 * DAY, end=BEGIN - DAY),
        "was not valid when",
    ),
}


@pytest.mark.parametrize("place", ["root", "intermediate"])
@pytest.mark.parametrize("fault", ISSUER_FAULTS)
def test_issuer_is_refused_with(fault: str, place: str) -> None:
    """Whoever issues must be an authority and may be nothing unknown, root and intermediate alike (clause 4.2)."""
    shape, why = ISSUER_FAULTS[fault]
    if place == "root":
        root = make("faulty", None, shape)
        signed = bundle(make("signer", root, LEAF))
    else:
        root, middle = ROOT, make("faulty", ROOT, shape)
        signed = bundle(make("signer", middle, LEAF), middle)
    with pytest.raises(errors.CertificateUnusable, match=why) as refused:
        verify(signed, root)
    assert refused.value.facts["certificate"] == "CN=faulty"


@pytest.mark.parametrize(("allowed", "accepted"), [(0, False), (1, True), (None, True)])
def test_path_length_is_kept(allowed: int | None, accepted: bool) -> None:
    """An authority has no more authorities below it than it allows (clause 4.2)."""
    root = make("root", None, replace(AUTHORITY, path_length=allowed))
    middle = make("middle", root, AUTHORITY)
    signed = bundle(make("signer", middle, LEAF), middle)
    if accepted:
        assert len(verify(signed, root).path) == 3
    else:
        with pytest.raises(errors.CertificateUnusable, match="allows 0 authorities"):
            verify(signed, root)


def test_leaf_cannot_issue_another_leaf() -> None:
    """A signer cannot make signers (clause 4.2)."""
    with pytest.raises(errors.CertificateUnusable, match="not an authority"):
        verify(bundle(make("second", SIGNING, LEAF), SIGNING))


@pytest.mark.parametrize(
    "key",
    [rsa.generate_private_key(65537, 1024), ec.generate_private_key(ec.SECP256K1())],  # noqa: S505  # weak on purpose
    ids=["RSA-1024", "secp256k1"],
)
def test_weak_or_unusual_root_key_is_refused(key: Any) -> None:
    """A key that is too weak, or of a curve nobody here knows, does not issue signers (clause 4.2)."""
    root = make("weak", None, AUTHORITY, key)
    with pytest.raises(errors.CertificateUnusable, match="too weak or of an unknown kind"):
        verify(bundle(make("signer", root, LEAF)), root)


def test_issuer_of_the_right_name_with_another_key_is_unknown() -> None:
    """A name alone makes no issuer (clause 4.2)."""
    fake = make("root", None, replace(AUTHORITY, key_identifiers=False))
    with pytest.raises(errors.RootUnknown):
        verify(bundle(make("signer", fake, replace(LEAF, key_identifiers=False))))


def test_many_look_alikes_do_not_hold_up_the_verifier() -> None:
    """Authorities that all issued each other are refused within the limit of attempts (clause 4.2)."""
    key = new_key()
    circle = make("circle", None, AUTHORITY, key)
    others = [make("circle", circle, AUTHORITY, key) for _ in range(trust.CERTIFICATES_MAXIMUM - 1)]
    started = time.monotonic()
    with pytest.raises(errors.RootUnknown):
        verify(bundle(make("signer", circle, LEAF), *others))
    assert time.monotonic() - started < 2


# --- bundle, envelope, statement -------------------------------------------------------------------------------------

SERIALIZATION = "predicate.serialization"
BUNDLES: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", ""),
    "no JSON": (lambda: b"not JSON", ""),
    "no UTF-8": (lambda: b"\xff", ""),
    "a list": (lambda: b"[]", ""),
    "deep nesting": (lambda: b"[" * 100_000, ""),
    "a huge number": (lambda: b'{"mediaType": ' + b"1" * 10_000 + b"}", ""),
    "a key twice": (lambda: bundle().replace(b'"mediaType"', b'"mediaType": "x", "mediaType"', 1), ""),
    "the first half": (lambda: bundle()[:1000], ""),
    "another media type": (lambda: edited(lambda d: d.update(mediaType="application/json")), "mediaType"),
    "an unknown field": (lambda: edited(lambda d: d.update(more=1)), "more"),
    "no material": (lambda: edited(lambda d: d.pop("verificationMaterial")), "verificationMaterial"),
    "a bare key": (
        lambda: edited(lambda d: d.update(verificationMaterial={"publicKey": {"hint": "x"}, "tlogEntries": []})),
        "verificationMaterial.publicKey",
    ),
    "no certificate": (
        lambda: edited(lambda d: d["verificationMaterial"]["x509CertificateChain"].update(certificates=[])),
        "verificationMaterial.x509CertificateChain",
    ),
    "too many certificates": (
        lambda: edited(lambda d: _certificates(d).extend(_certificates(d) * 10)),
        "verificationMaterial.x509CertificateChain.certificates[10]",
    ),
    "a damaged certificate": (
        lambda: edited(lambda d: _certificates(d)[0].update(rawBytes="MIIB")),
        "verificationMaterial.x509CertificateChain.certificates[0]",
    ),
    "a log entry": (
        lambda: edited(lambda d: d["verificationMaterial"].update(tlogEntries=[{}])),
        "verificationMaterial.tlogEntries",
    ),
    "no envelope": (lambda: edited(lambda d: d.pop("dsseEnvelope")), "dsseEnvelope"),
    "another payload type": (
        lambda: edited(lambda d: d["dsseEnvelope"].update(payloadType="text/plain")),
        "dsseEnvelope.payloadType",
    ),
    "no signature": (lambda: edited(lambda d: d["dsseEnvelope"].update(signatures=[])), "dsseEnvelope.signatures"),
    "two signatures": (
        lambda: edited(lambda d: d["dsseEnvelope"]["signatures"].append({"sig": "AA=="})),
        "dsseEnvelope.signatures",
    ),
    "a payload not in base64": (
        lambda: edited(lambda d: d["dsseEnvelope"].update(payload="%%%")),
        "dsseEnvelope.payload",
    ),
    "another statement type": (
        lambda: restated(lambda s: s.update(_type="https://in-toto.io/Statement/v0.1")),
        "_type",
    ),
    "an older predicate": (
        lambda: restated(lambda s: s.update(predicateType="https://model_signing/Digests/v0.1")),
        "predicateType",
    ),
    "two subjects": (lambda: restated(lambda s: s["subject"].append(s["subject"][0])), "subject"),
    "a subject without name": (lambda: restated(lambda s: s["subject"][0].pop("name")), "subject[0].name"),
    "another subject digest": (
        lambda: restated(lambda s: s["subject"][0]["digest"].update(sha256="0" * 64)),
        "subject[0].digest.sha256",
    ),
    "no serialization": (lambda: restated(lambda s: s["predicate"].pop("serialization")), SERIALIZATION),
    "another method": (
        lambda: restated(lambda s: s["predicate"]["serialization"].update(method="none")),
        f"{SERIALIZATION}.method",
    ),
    "another hash": (
        lambda: restated(lambda s: s["predicate"]["serialization"].update(hash_type="blake3")),
        f"{SERIALIZATION}.hash_type",
    ),
    "links allowed by a word": (
        lambda: restated(lambda s: s["predicate"]["serialization"].update(allow_symlinks="no")),
        f"{SERIALIZATION}.allow_symlinks",
    ),
    "shards without size": (
        lambda: restated(lambda s: s["predicate"]["serialization"].update(method="shards")),
        f"{SERIALIZATION}.shard_size",
    ),
    "no resources": (lambda: restated(lambda s: _state(s, {})), "predicate.resources"),
    "a resource twice": (
        lambda: restated(lambda s: s["predicate"]["resources"].append(s["predicate"]["resources"][0])),
        "predicate.resources[2].name",
    ),
    "a resource of another algorithm": (
        lambda: restated(lambda s: s["predicate"]["resources"][0].update(algorithm="blake2b")),
        "predicate.resources[0].algorithm",
    ),
    "a digest in capitals": (
        lambda: restated(lambda s: s["predicate"]["resources"][0].update(digest="A" * 64)),
        "predicate.resources[0].digest",
    ),
    "a payload that is no JSON": (lambda: resigned(json.loads(bundle()), b"text"), ""),
}


def _certificates(document: Any) -> Any:
    return document["verificationMaterial"]["x509CertificateChain"]["certificates"]


@pytest.mark.parametrize("fault", BUNDLES)
def test_bundle_is_malformed_with(fault: str) -> None:
    """Whatever is not such a bundle is refused, naming the field (clauses 3 and 4.1)."""
    make_bundle, field = BUNDLES[fault]
    with pytest.raises(errors.SignatureMalformed) as refused:
        verify(make_bundle())
    assert refused.value.facts == {"file": "model.sig", "field": field}


ENVELOPES: dict[str, Callable[[Any], object]] = {
    "another payload": lambda d: d["dsseEnvelope"].update(payload=base64.b64encode(b"{}").decode()),
    "another signature": lambda d: d["dsseEnvelope"]["signatures"][0].update(
        sig=json.loads(bundle(content={"x": b""}))["dsseEnvelope"]["signatures"][0]["sig"]
    ),
    "a signature of noise": lambda d: d["dsseEnvelope"]["signatures"][0].update(sig="AAAA"),
    "another certificate of the same root": lambda d: _certificates(d)[0].update(
        json.loads(bundle(make("other", ROOT, LEAF)))["verificationMaterial"]["x509CertificateChain"]["certificates"][0]
    ),
}


@pytest.mark.parametrize("fault", ENVELOPES)
def test_signature_is_invalid_with(fault: str) -> None:
    """A payload, signature or certificate that was exchanged is refused (clause 4.3)."""
    with pytest.raises(errors.SignatureInvalid) as refused:
        verify(edited(ENVELOPES[fault]))
    assert refused.value.facts["file"] == "model.sig"


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")  # of odd certificates
@settings(max_examples=500)
@given(st.data())
def test_no_changed_byte_of_the_bundle_is_accepted_for_other_content(data: st.DataObject) -> None:
    """Whatever single byte of the signature is changed, other content is never let in (clause 4)."""
    signed = bytearray(bundle())
    index = data.draw(st.integers(0, len(signed) - 1))
    signed[index] ^= data.draw(st.integers(1, 255))
    with pytest.raises((errors.SignatureRefused, errors.ContentRefused)):
        verify(bytes(signed), content={**FILES, "model.onnx": b"another"})


# --- contents --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../model.onnx", "/etc/passwd", "data/../../x"])
def test_signed_name_that_leads_out_is_refused(name: str) -> None:
    """Not even a good signature makes a name outside the package acceptable (clause 4.6)."""
    with pytest.raises(errors.ArchivePathEscape) as refused:
        verify(restated(lambda s: _state(s, {name: sha256(b"")})))
    assert refused.value.facts["file"] == name


def test_ignored_path_is_no_hole() -> None:
    """A file that the signature says to ignore is refused as extra where it exists (clause 4.8)."""
    signed = restated(lambda s: s["predicate"]["serialization"].update(ignore_paths=["model.sig", "evil.so", ".git"]))
    assert verify(signed).warnings == ()
    for name in ("evil.so", ".git/hooks/x"):
        with pytest.raises(errors.FileExtra) as refused:
            verify(signed, content={**FILES, name: b""})
        assert refused.value.facts["file"] == name


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ({**FILES, "model.onnx": b"the mOdel"}, errors.FileChanged),
        ({**FILES, "model.onnx": b"the model longer"}, errors.FileChanged),
        ({**FILES, "model.onnx": b"the"}, errors.FileChanged),
        ({"model.onnx": FILES["model.onnx"]}, errors.FileMissing),
        ({**FILES, "empty": b""}, errors.FileExtra),
    ],
    ids=["changed", "longer", "shorter", "missing", "an empty extra"],
)
@pytest.mark.parametrize("size", [4, 100, 5000])
def test_shards_are_refused_when_content_is(
    content: dict[str, bytes], error: type[errors.AgentError], size: int
) -> None:
    """Shards protect a file as whole digests do, its length included (clause 3.6)."""
    with pytest.raises(error):
        verify(sharded(shards(size), size), content=content)


@pytest.mark.parametrize(
    "edit",
    [
        lambda r: r.pop("model.onnx:0:4"),
        lambda r: r.pop("model.onnx:8:9"),
        lambda r: r.update({"model.onnx:00:4": r["model.onnx:0:4"]}),
        lambda r: r.update({"model.onnx:2:6": sha256(FILES["model.onnx"][2:6])}),
        lambda r: r.update({"model.onnx:9:9": sha256(b"")}),
    ],
    ids=["a gap at the start", "a gap at the end", "a shard twice", "an overlap", "an empty shard"],
)
def test_shards_must_cover_each_byte_once(edit: Callable[[Any], object]) -> None:
    """Signed shards that leave bytes out, or count them twice, are refused (clause 3.6)."""
    resources = shards(4)
    edit(resources)
    with pytest.raises(errors.FileChanged):
        verify(sharded(resources, 4))


def test_name_of_no_shard_is_malformed() -> None:
    """A shard without its bounds is not understood (clause 3.6)."""
    for name in ("model.onnx", "model.onnx:0", "model.onnx:a:9", f"model.onnx:0:{'9' * 30}"):
        with pytest.raises(errors.SignatureMalformed):
            verify(sharded({name: sha256(b"")}, 4))


# --- time ------------------------------------------------------------------------------------------------------------

ACCEPTED = frozenset({trust.digest_of(Memory(FILES).files)})


@pytest.mark.parametrize(
    ("now", "floor", "error"),
    [
        (BEGIN, BEGIN, None),
        (END, BEGIN, None),
        (END + DAY, BEGIN, errors.CertificateExpired),
        (BEGIN - DAY, BEGIN - 2 * DAY, errors.CertificateNotYetValid),
        (datetime(2099, 1, 1, tzinfo=BEGIN.tzinfo), BEGIN, errors.CertificateExpired),
        (datetime(1970, 1, 1, tzinfo=BEGIN.tzinfo), END + DAY, errors.CertificateExpired),
    ],
    ids=[
        "at the begin",
        "at the end",
        "after the end",
        "before the begin",
        "a clock far ahead",
        "ended before the floor",
    ],
)
def test_clock_decides(now: datetime, floor: datetime, error: type[errors.AgentError] | None) -> None:
    """A clock at or after the floor is believed; an end before the floor is certain (clause 4.4)."""
    when = TrustTime(now, floor)
    if error is None:
        assert verify(bundle(), time=when).warnings == ()
        return
    with pytest.raises(error) as refused:
        verify(bundle(), time=when)
    assert refused.value.facts["clock"] == now.isoformat()
    assert refused.value.facts["known_to_have_passed"] == floor.isoformat()
    warned = verify(bundle(), time=when, accepted=ACCEPTED)
    assert [warning for warning in warned.warnings if "accepted although" in warning]


@pytest.mark.parametrize("floor", [BEGIN - DAY, BEGIN, END])
def test_clock_behind_the_floor_says_nothing(floor: datetime) -> None:
    """With a clock that is wrong for certain, a chain that may be valid now is accepted with a warning (clause 4.4)."""
    when = TrustTime(datetime(1970, 1, 1, tzinfo=BEGIN.tzinfo), floor)
    (warning,) = verify(bundle(), time=when).warnings
    assert "which is wrong" in warning


def test_certificates_that_never_were_valid_together_are_refused() -> None:
    """A wrong clock does not help a path that no single time suits (clause 4.4)."""
    root = make("root", None, replace(AUTHORITY, end=BEGIN + 9 * DAY))
    middle = make("middle", root, replace(AUTHORITY, begin=BEGIN, end=END))
    signed = bundle(make("signer", middle, replace(LEAF, begin=BEGIN + 5 * DAY)), middle)
    assert verify(signed, root, time=TrustTime(BEGIN - DAY, BEGIN)).warnings
    with pytest.raises(errors.CertificateExpired) as refused:
        verify(signed, root, time=TrustTime(BEGIN - DAY, BEGIN + 10 * DAY))
    assert refused.value.facts["certificate"] == "CN=root"


def test_acceptance_before_does_not_cover_other_content() -> None:
    """An expired signature over other content stays refused, and so does changed content (clause 4.4)."""
    when = TrustTime(END + DAY, BEGIN)
    other = {**FILES, "model.onnx": b"another"}
    with pytest.raises(errors.CertificateExpired):
        verify(bundle(content=other), time=when, content=other, accepted=ACCEPTED)
    with pytest.raises(errors.FileChanged):
        verify(bundle(content=other), time=when, accepted=ACCEPTED)


def test_floor_learns_the_latest_begin() -> None:
    """What a package teaches about time is the latest begin of its path (clause 4.4)."""
    late = make("signer", ROOT, replace(LEAF, begin=BEGIN + 30 * DAY))
    assert verify(bundle(late)).begins == BEGIN + 30 * DAY
