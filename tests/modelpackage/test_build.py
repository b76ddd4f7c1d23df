"""Building packages: whole, reproducible, never overwriting; and the authority that signs them."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509

from lightkeeper import errors
from lightkeeper.modelpackage import authority, build
from lightkeeper.modelpackage.build import Draft
from lightkeeper.modelpackage.golden import GoldenArrays
from lightkeeper.modelpackage.limits import MIB
from lightkeeper.modelpackage.signature import Signer
from lightkeeper.modelpackage.source import Source
from lightkeeper.system import HAS_MODES
from tests.support.certificates import LEAF, make, write_signer
from tests.support.packages import FILES, MANIFEST, Workshop

GOLDEN = GoldenArrays(
    {"x": np.ones((1, 3), np.float32)},
    {"y": np.array([[1, 2]], np.float32)},
    relative_tolerance=0.1,
    absolute_tolerance=0,
)


def sources(folder: Path) -> Source:
    """Write a model's files."""
    for name, data in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return Source("model.onnx", "onnx", {name: folder / name for name in FILES})


def test_built_package_is_opened_with_its_golden_arrays(workshop: Workshop) -> None:
    """What is built is what a device opens: files, manifest and golden arrays (clauses 1 and 2)."""
    source = sources(workshop.folder / "source")
    path = build.build(Draft(source, MANIFEST, GOLDEN), workshop.signer, workshop.folder / "new" / "out")
    assert path == workshop.folder / "new" / "out" / "probe-1.0.tar.gz"
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert not HAS_MODES or stat.S_IMODE(path.stat().st_mode) == 0o644
    with workshop.store().open(str(path)) as package:
        assert package.model.read_bytes() == FILES["model.onnx"]
        golden = package.golden()
    assert golden is not None
    np.testing.assert_array_equal(golden.inputs["x"], GOLDEN.inputs["x"])
    np.testing.assert_array_equal(golden.outputs["y"], GOLDEN.outputs["y"])
    assert (golden.relative_tolerance, golden.absolute_tolerance) == (0.1, 0)


def test_same_input_gives_the_same_bytes(workshop: Workshop) -> None:
    """Two builds at two times in two places are equal, byte for byte (clause 1.5)."""
    first = build.build(Draft(sources(workshop.folder / "a"), MANIFEST, GOLDEN), workshop.signer, workshop.folder / "1")
    source = sources(workshop.folder / "b")
    (workshop.folder / "b" / "model.onnx").chmod(0o600)
    second = build.build(Draft(source, MANIFEST, GOLDEN), workshop.signer, workshop.folder / "2")
    assert first.read_bytes() == second.read_bytes()
    with tarfile.open(first) as archive:
        members = archive.getmembers()
    assert [member.name for member in members[:2]] == ["manifest.json", "model.sig"]
    assert {(member.mtime, member.uid, member.gid, member.uname, member.mode) for member in members} == {
        (0, 0, 0, "", 0o644)
    }


def test_progress_counts_every_byte_twice(workshop: Workshop) -> None:
    """Each file is read to be hashed and to be packed, and progress says so."""
    counted: list[int] = []
    build.build(Draft(sources(workshop.folder / "s"), MANIFEST), workshop.signer, workshop.folder, counted.append)
    assert sum(counted) == 2 * sum(map(len, FILES.values()))


def test_package_is_never_overwritten(workshop: Workshop) -> None:
    """A package of the same name and version stays as it is (clause 1.5)."""
    draft = Draft(sources(workshop.folder / "s"), MANIFEST)
    path = build.build(draft, workshop.signer, workshop.folder)
    before = path.read_bytes()
    with pytest.raises(errors.OutputExists):
        build.build(draft, workshop.signer, workshop.folder)
    assert path.read_bytes() == before


def _longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"!")


@pytest.mark.parametrize(
    "change",
    [_longer, lambda path: path.write_bytes(b"the mODEL"), lambda path: path.write_bytes(b"the")],
    ids=["longer", "other", "shorter"],
)
def test_model_that_changes_while_it_is_packaged_is_refused(
    workshop: Workshop, change: Callable[[Path], object]
) -> None:
    """A file that is not the one just signed makes no package (clause 1.5)."""
    source = sources(workshop.folder / "s")
    done: list[int] = []

    def advance(size_bytes: int) -> None:
        done.append(size_bytes)
        if sum(done) == sum(map(len, FILES.values())):
            change(source.main)

    with pytest.raises(errors.SourceUnusable, match="changed"):
        build.build(Draft(source, MANIFEST), workshop.signer, workshop.folder / "out", advance)
    assert list((workshop.folder / "out").iterdir()) == []


def test_names_that_clash_are_refused(workshop: Workshop) -> None:
    """A package that no device would open is not built (clause 1.2)."""
    source = sources(workshop.folder / "s")
    for name in ("MODEL.onnx", "golden/input-0.npy", "Golden/x"):
        files = {**source.files, name: source.main}
        with pytest.raises(errors.SourceUnusable):
            build.build(
                Draft(Source("model.onnx", "onnx", files), MANIFEST, GOLDEN), workshop.signer, workshop.folder / "o"
            )


def test_weights_of_zeros_make_no_archive_bomb(workshop: Workshop) -> None:
    """A model that compresses a thousandfold is packed so that a device believes it (clause 1.5)."""
    source = sources(workshop.folder / "s")
    with source.main.open("wb") as file:
        file.truncate(65 * MIB)
    path = build.build(Draft(source, MANIFEST), workshop.signer, workshop.folder)
    with workshop.store().open(str(path)) as package:
        assert package.model.stat().st_size == 65 * MIB
    assert not list(workshop.folder.glob(".probe*"))


def test_names_that_every_device_refuses_are_refused(workshop: Workshop) -> None:
    """Paths too deep, and too many files, are refused before anything is signed (clause 1.5)."""
    source = sources(workshop.folder / "s")
    for names in ({"a/" * 20 + "b"}, {f"f{number}" for number in range(10_000)}):
        files = {**source.files, **dict.fromkeys(names, source.main)}
        with pytest.raises(errors.ArchiveTooLarge):
            build.build(Draft(Source("model.onnx", "onnx", files), MANIFEST), workshop.signer, workshop.folder)


def test_output_that_cannot_be_written_is_said(workshop: Workshop) -> None:
    """An output folder that is a file, and a source that is gone, are told apart."""
    (workshop.folder / "file").touch()
    source = sources(workshop.folder / "s")
    with pytest.raises(errors.OutputUnwritable):
        build.build(Draft(source, MANIFEST), workshop.signer, workshop.folder / "file")
    source.main.unlink()
    with pytest.raises(errors.SourceUnusable):
        build.build(Draft(source, MANIFEST), workshop.signer, workshop.folder / "out")


def test_long_and_foreign_names_survive_the_archive(workshop: Workshop) -> None:
    """Names beyond the old tar format's length and alphabet come out as they went in (clause 1.2)."""
    source = sources(workshop.folder / "s")
    name = "/".join(["ordner-" + "ä" * 60] * 3 + ["データ.bin"])
    files = {**source.files, name: source.main}
    path = build.build(Draft(Source("model.onnx", "onnx", files), MANIFEST), workshop.signer, workshop.folder)
    with workshop.store().open(str(path)) as package:
        assert name in package.files
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(path.read_bytes()))) as archive:
        assert name in archive.getnames()


# --- authority and signer --------------------------------------------------------------------------------------------

NOW = datetime(2027, 3, 1, 12, 0, 0, 5, tzinfo=UTC)


def test_authority_signs_what_devices_trust(workshop: Workshop) -> None:
    """An authority's signer makes packages that its root makes trusted (clause 3.7)."""
    folder = workshop.folder / "ca"
    made = authority.create(folder, "eu-central-1", NOW)
    assert made.root_certificate == folder / "certs" / "eu-central-1.pem"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()}
    secret = 0o600 if HAS_MODES else 0o666  # Windows has an access list for it
    assert modes == {"root.key": secret, "signer.key": secret, "signer.pem": 0o444, "eu-central-1.pem": 0o444}
    workshop.signer = Signer.load(folder)
    workshop.roots = folder / "certs"
    package_folder = workshop.write_folder(workshop.package())
    with workshop.store().open(str(package_folder)) as package:
        assert package.signer.subject == "CN=Model signer eu-central-1"
        assert package.signer.not_before == NOW.replace(microsecond=0) - timedelta(days=1)
        assert package.signer.not_after == NOW.replace(microsecond=0) + 10 * timedelta(days=365)
    root = x509.load_pem_x509_certificate(made.root_certificate.read_bytes())
    assert root.not_valid_after_utc == NOW.replace(microsecond=0) + 20 * timedelta(days=365)


@pytest.mark.parametrize("there", ["root.key", "certs/lab.pem", "signer.key", "signer.pem"])
def test_authority_is_never_overwritten(tmp_path: Path, there: str) -> None:
    """Where one file of an authority lies, none is made (clause 3.7)."""
    (tmp_path / "certs").mkdir()
    (tmp_path / there).write_text("precious")
    with pytest.raises(errors.OutputExists):
        authority.create(tmp_path, "lab", NOW)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [Path(there).name]
    assert (tmp_path / there).read_text() == "precious"


def test_region_that_is_no_name_is_refused(tmp_path: Path) -> None:
    """A region names a file, and cannot lead elsewhere."""
    for region in ("", "../x", "a/b", "-"):
        with pytest.raises(errors.NameInvalid):
            authority.create(tmp_path, region, NOW)
    assert list(tmp_path.iterdir()) == []


def test_authority_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    """Half an authority is none: what was written is removed."""
    (tmp_path / "certs").touch()
    with pytest.raises(errors.OutputUnwritable):
        authority.create(tmp_path, "lab", NOW)
    assert [path.name for path in tmp_path.iterdir()] == ["certs"]


def test_signer_that_cannot_sign_is_refused(workshop: Workshop) -> None:
    """A key without its certificate, another's certificate, and what is no key at all are each refused."""
    good = workshop.folder / "signer"
    other = write_signer(workshop.folder / "other", make("other", workshop.root, LEAF))
    mixed = workshop.folder / "mixed"
    mixed.mkdir()
    with pytest.raises(errors.SignerUnusable, match=r"signer\.key"):
        Signer.load(mixed)
    (mixed / "signer.key").write_bytes((good / "signer.key").read_bytes())
    with pytest.raises(errors.SignerUnusable, match=r"signer\.pem"):
        Signer.load(mixed)
    (mixed / "signer.pem").write_bytes((other / "signer.pem").read_bytes())
    with pytest.raises(errors.SignerUnusable, match="is not that of"):
        Signer.load(mixed)
    (mixed / "signer.key").write_bytes(b"no key")
    with pytest.raises(errors.SignerUnusable, match=r"signer\.key"):
        Signer.load(mixed)
