"""The way from a url to a verified package, and every refusal on it, provoked with real files."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lightkeeper import errors
from lightkeeper.modelpackage.limits import Limits
from lightkeeper.modelpackage.package import local_path
from lightkeeper.modelpackage.target import Target
from lightkeeper.system import HAS_MODES
from tests.support.certificates import AUTHORITY, END, LEAF, NOW, make, write_roots
from tests.support.packages import FILES, MANIFEST, Workshop, add, archive
from tests.support.systems import posix_only, windows_only

Edit = Callable[[Path], object]


def test_folder_is_opened_as_a_private_copy(workshop: Workshop) -> None:
    """A package in a folder is copied, and its manifest, files and signer are told (clause 1.1)."""
    folder = workshop.write_folder(workshop.package())
    with workshop.store().open(str(folder)) as package:
        assert package.manifest == MANIFEST
        assert package.model.read_bytes() == FILES["model.onnx"]
        assert package.folder != folder
        assert not HAS_MODES or stat.S_IMODE(package.folder.stat().st_mode) == 0o700
        assert package.signer.subject == "CN=signer"
        assert package.warnings == ()
        copy = package.folder
    assert not copy.exists()
    assert list((workshop.folder / "staging").iterdir()) == []


@pytest.mark.parametrize("prefix", ["", "./", "probe-1.0/"], ids=["at the top", "below a dot", "in one folder"])
def test_archive_is_opened(workshop: Workshop, prefix: str) -> None:
    """An archive has its files at the top or in one single folder (clause 5.2)."""
    files = {prefix + name: data for name, data in workshop.package().items()}
    path = archive(workshop.folder / "probe.tar.gz", files)
    with workshop.store().open(path.as_uri()) as package:
        assert package.model.read_bytes() == FILES["model.onnx"]
        assert set(package.files) == {"manifest.json", "model.sig", *FILES}


def test_change_after_opening_does_not_reach_the_copy(workshop: Workshop) -> None:
    """Whoever changes the folder after verification changes nothing of what is loaded (clause 5.1)."""
    folder = workshop.write_folder(workshop.package())
    with workshop.store().open(str(folder)) as package:
        (folder / "model.onnx").write_bytes(b"another model")
        assert package.model.read_bytes() == FILES["model.onnx"]


@posix_only
def test_digest_does_not_depend_on_the_form(workshop: Workshop) -> None:
    """Folder and archive of the same files have the same digest, and a person can compute it (clause 1.4)."""
    files = workshop.package()
    folder = workshop.write_folder(files)
    with workshop.store().open(str(folder)) as package:
        digest = package.digest
    with workshop.store().open(str(archive(workshop.folder / "p.tgz", files))) as package:
        assert package.digest == digest
    pipe = "find . -type f ! -name model.sig -printf '%P\\n' | LC_ALL=C sort | xargs sha256sum | sha256sum"
    with os.popen(f"cd '{folder}' && {pipe}") as output:  # noqa: S605  # the command the documentation gives
        assert output.read().split()[0] == digest


def _append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"!")


FOLDER_FAULTS: dict[str, tuple[type[errors.AgentError], str, Edit]] = {
    "a changed model": (errors.FileChanged, "model.onnx", lambda f: _append(f / "model.onnx")),
    "a changed manifest": (errors.FileChanged, "manifest.json", lambda f: _append(f / "manifest.json")),
    "changed data of equal length": (
        errors.FileChanged,
        "data/weights.bin",
        lambda f: (f / "data/weights.bin").write_bytes(bytes(2048)),
    ),
    "a missing file": (errors.FileMissing, "data/weights.bin", lambda f: (f / "data/weights.bin").unlink()),
    "a missing manifest": (errors.FileMissing, "manifest.json", lambda f: (f / "manifest.json").unlink()),
    "an extra file": (errors.FileExtra, "data/extra", lambda f: (f / "data/extra").touch()),
    "an extra git file": (errors.FileExtra, ".gitattributes", lambda f: (f / ".gitattributes").touch()),
    "a second signature below": (errors.FileExtra, "data/model.sig", lambda f: (f / "data/model.sig").touch()),
    "no signature": (errors.SignatureMissing, "model.sig", lambda f: (f / "model.sig").unlink()),
    "a name not composed": (errors.PackageMemberForbidden, "e\u0301", lambda f: (f / "e\u0301").touch()),
}
FAULTS_OF_POSIX: dict[str, tuple[type[errors.AgentError], str, Edit]] = {
    "a signature that is a link": (
        errors.PackageMemberForbidden,
        "model.sig",
        lambda f: _relink(f / "model.sig", f.parent / "sig"),
    ),
    "a linked file": (
        errors.PackageMemberForbidden,
        "model.onnx",
        lambda f: _relink(f / "model.onnx", f.parent / "elsewhere"),
    ),
    "a linked folder": (
        errors.PackageMemberForbidden,
        "data",
        lambda f: _relink(f / "data", f.parent / "elsewhere"),
    ),
    "a named pipe": (errors.PackageMemberForbidden, "pipe", lambda f: os.mkfifo(f / "pipe")),
    "a socket": (errors.PackageMemberForbidden, "s", lambda f: socket.socket(socket.AF_UNIX).bind(str(f / "s"))),
    "two names alike": (errors.PackageMemberForbidden, "model.onnx", lambda f: (f / "Model.ONNX").touch()),
    "a name with a newline": (errors.PackageMemberForbidden, "a\\nb", lambda f: (f / "a\nb").touch()),
    "a name that is no UTF-8": (
        errors.PackageMemberForbidden,
        "\\udcff",
        lambda f: open(os.fsencode(f) + b"/\xff", "w").close(),  # noqa: PTH123  # a name that Path would not take
    ),
}


if HAS_MODES:
    FOLDER_FAULTS |= FAULTS_OF_POSIX


def _relink(path: Path, elsewhere: Path) -> None:
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


@pytest.mark.filterwarnings("ignore:unclosed.*socket:ResourceWarning")
@pytest.mark.parametrize("fault", FOLDER_FAULTS)
def test_folder_is_refused_with(workshop: Workshop, fault: str) -> None:
    """Each damage to a folder is refused by its own class, naming the file at fault (clause 4)."""
    error, file, edit = FOLDER_FAULTS[fault]
    folder = workshop.write_folder(workshop.package())
    edit(folder)
    with pytest.raises(error) as refused, workshop.store().open(str(folder)):
        pass
    assert refused.value.facts["file"] == file
    assert list((workshop.folder / "staging").iterdir()) == []


def _member(name: str, kind: bytes, link: str = "") -> Callable[[tarfile.TarFile], None]:
    return lambda tar: add(tar, name, kind=kind, link=link)


ARCHIVE_FAULTS: dict[str, tuple[type[errors.AgentError], str, Callable[[tarfile.TarFile], None]]] = {
    "a symbolic link": (errors.PackageMemberForbidden, "l", _member("l", tarfile.SYMTYPE, "/etc/passwd")),
    "a hard link": (errors.PackageMemberForbidden, "l", _member("l", tarfile.LNKTYPE, "model.onnx")),
    "a device": (errors.PackageMemberForbidden, "d", _member("d", tarfile.CHRTYPE)),
    "a block device": (errors.PackageMemberForbidden, "d", _member("d", tarfile.BLKTYPE)),
    "a named pipe": (errors.PackageMemberForbidden, "p", _member("p", tarfile.FIFOTYPE)),
    "an absolute path": (errors.ArchivePathEscape, "/tmp/x", lambda tar: add(tar, "/tmp/x")),  # noqa: S108  # refused
    "a path above": (errors.ArchivePathEscape, "../x", lambda tar: add(tar, "../x")),
    "a path above, hidden": (errors.ArchivePathEscape, "data/../../x", lambda tar: add(tar, "data/../../x")),
    "a folder above": (errors.ArchivePathEscape, "../d", _member("../d", tarfile.DIRTYPE)),
    "a link above": (errors.ArchivePathEscape, "../l", _member("../l", tarfile.SYMTYPE, "x")),
    "a backslash": (errors.PackageMemberForbidden, "..\\x", lambda tar: add(tar, "..\\x")),
    "a member twice": (errors.PackageMemberForbidden, "model.onnx", lambda tar: add(tar, "model.onnx", b"x")),
    "names alike": (errors.PackageMemberForbidden, "DATA/w", lambda tar: add(tar, "DATA/w")),
    "a file where a folder is": (errors.PackageMemberForbidden, "data", lambda tar: add(tar, "data")),
    "a file as a folder": (errors.PackageMemberForbidden, "model.onnx/x", lambda tar: add(tar, "model.onnx/x")),
    "an extra file": (errors.FileExtra, "extra", lambda tar: add(tar, "extra")),
    "a component too long": (errors.PackageMemberForbidden, "a" * 256, lambda tar: add(tar, "a" * 256)),
    "a path too long": (errors.ArchiveTooLarge, "a/" * 40, lambda tar: add(tar, "a/" * 1024 + "x")),
    "a path too deep": (errors.ArchiveTooLarge, "a/" * 20 + "x", lambda tar: add(tar, "a/" * 20 + "x")),
}


@pytest.mark.parametrize("fault", ARCHIVE_FAULTS)
def test_archive_is_refused_with(workshop: Workshop, fault: str) -> None:
    """Each member that no honest archive has is refused before it is written (clause 5)."""
    error, file, edit = ARCHIVE_FAULTS[fault]
    path = archive(workshop.folder / "probe.tar.gz", workshop.package(), edit)
    with pytest.raises(error) as refused, workshop.store().open(str(path)):
        pass
    assert refused.value.facts["file"] == file
    assert not (workshop.folder / "x").exists()
    assert list((workshop.folder / "staging").iterdir()) == []


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        (Limits(packed_bytes=100), "packed_bytes"),
        (Limits(unpacked_bytes=1500), "unpacked_bytes"),
        (Limits(members=3), "members"),
        (Limits(depth=1), "depth"),
        (Limits(name_bytes=9), "name_bytes"),
        (Limits(manifest_bytes=10), "manifest_bytes"),
        (Limits(signature_bytes=10), "signature_bytes"),
        (Limits(ratio=1, ratio_grace_bytes=0), "ratio"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_limit_is_kept_and_named(workshop: Workshop, limits: Limits, named: str) -> None:
    """A package that passes a limit is refused, and the limit is named (clause 5.4)."""
    workshop.limits = limits
    path = archive(workshop.folder / "probe.tar.gz", workshop.package())
    with pytest.raises(errors.ArchiveTooLarge) as refused, workshop.store().open(str(path)):
        pass
    assert refused.value.facts["limit"] == named


def test_disk_is_not_filled(workshop: Workshop) -> None:
    """A package for which the disk has no room beside the reserve is refused up front (clause 5.5)."""
    workshop.limits = Limits(free_bytes_kept=2**60)
    folder = workshop.write_folder(workshop.package())
    with pytest.raises(errors.DiskShort), workshop.store().open(str(folder)):
        pass


def test_unknown_root_is_refused(workshop: Workshop) -> None:
    """A package whose signer no trusted root has issued is refused, naming both sides (clause 4.2)."""
    folder = workshop.write_folder(workshop.package())
    workshop.roots = write_roots(workshop.folder / "others", make("stranger", None, AUTHORITY))
    with pytest.raises(errors.RootUnknown) as refused, workshop.store().open(str(folder)):
        pass
    assert refused.value.facts["issuer"] == "CN=root"
    assert refused.value.facts["trusted"] == "CN=stranger"


@pytest.mark.parametrize("mode", [0o644, 0o464, 0o446, 0o600] if HAS_MODES else [0o644])
def test_writable_root_is_refused(workshop: Workshop, mode: int) -> None:
    """A root certificate that anybody may write is refused by name, whoever may (clause 4.7)."""
    folder = workshop.write_folder(workshop.package())
    (workshop.roots / "root-0.pem").chmod(mode)
    with pytest.raises(errors.RootsWritable) as refused, workshop.store().open(str(folder)):
        pass
    assert refused.value.facts["file"].endswith("root-0.pem")


def test_expired_package_lives_on_where_it_was_accepted_before(workshop: Workshop) -> None:
    """A restart after the certificate's end opens the same package with a warning, and no other (clause 4.4)."""
    accepted = workshop.write_folder(workshop.package())
    other = workshop.write_folder(workshop.package(replace(MANIFEST, version="2.0")), "other")
    with workshop.store().open(str(accepted)) as package:
        assert package.warnings == ()
    workshop.now = END + timedelta(days=1)
    with workshop.store().open(str(accepted)) as package:
        assert len(package.warnings) == 1
        assert "accepted although" in package.warnings[0]
    with pytest.raises(errors.CertificateExpired), workshop.store().open(str(other)):
        pass


def test_accepted_package_still_needs_its_root(workshop: Workshop) -> None:
    """A root that is removed takes its packages with it, accepted before or not (clause 4.4)."""
    folder = workshop.write_folder(workshop.package())
    with workshop.store().open(str(folder)):
        pass
    workshop.roots = write_roots(workshop.folder / "others", make("stranger", None, AUTHORITY))
    with pytest.raises(errors.RootUnknown), workshop.store().open(str(folder)):
        pass


def test_refused_package_is_not_remembered(workshop: Workshop) -> None:
    """A package that may not run here does not count as accepted."""
    folder = workshop.write_folder(workshop.package(replace(MANIFEST, target=Target(os="windows"))))
    with pytest.raises(errors.TargetMismatch), workshop.store().open(str(folder)):
        pass
    assert workshop.record.accepted == frozenset()


@pytest.mark.parametrize(
    ("target", "aspect"),
    [
        (Target(os="windows"), "os"),
        (Target(architecture="aarch64"), "architecture"),
        (Target(accelerator="cuda"), "accelerator"),
    ],
    ids=["os", "architecture", "accelerator"],
)
def test_other_target_is_refused(workshop: Workshop, target: Target, aspect: str) -> None:
    """A package for another device is refused, naming what differs (clause 2.5)."""
    folder = workshop.write_folder(workshop.package(replace(MANIFEST, target=target)))
    with pytest.raises(errors.TargetMismatch) as refused, workshop.store().open(str(folder)):
        pass
    assert refused.value.facts["aspect"] == aspect


def test_package_for_a_newer_agent_is_refused(workshop: Workshop) -> None:
    """A package that asks for a later agent is refused with both versions (clause 2.6)."""
    folder = workshop.write_folder(workshop.package(replace(MANIFEST, minimum_agent_version="1.3")))
    with pytest.raises(errors.AgentTooOld) as refused, workshop.store().open(str(folder)):
        pass
    assert refused.value.facts == {"expected": "1.3", "given": "1.2.3"}


def test_manifest_that_names_a_file_not_there_is_refused(workshop: Workshop) -> None:
    """A signed manifest with a main file that the package lacks is refused by that name (clause 2.3)."""
    folder = workshop.write_folder(workshop.package(replace(MANIFEST, model="other.onnx")))
    with pytest.raises(errors.FileMissing) as refused, workshop.store().open(str(folder)):
        pass
    assert refused.value.facts["file"] == "other.onnx"


def test_signer_of_another_root_with_the_same_name_is_refused(workshop: Workshop) -> None:
    """A look-alike of the root does not sign for it (clause 4.2)."""
    fake = Workshop(workshop.folder / "fake")
    folder = workshop.write_folder(fake.package())
    with pytest.raises(errors.RootUnknown), workshop.store().open(str(folder)):
        pass


def test_nothing_at_the_url_is_said(workshop: Workshop) -> None:
    """A path where nothing lies is told from a package that cannot be used."""
    for url in (str(workshop.folder / "nothing"), (workshop.roots / "root-0.pem" / "x").as_uri()):
        with pytest.raises(errors.PackageNotFound), workshop.store().open(url):
            pass


@posix_only
def test_file_that_is_no_archive_is_refused(workshop: Workshop) -> None:
    """Neither a plain file nor a special one is taken for a package, and a pipe is not waited for."""
    plain = workshop.folder / "model.onnx"
    plain.write_bytes(b"not gzip")
    os.mkfifo(workshop.folder / "pipe")
    for path in (plain, workshop.folder / "pipe", Path("/dev/null")):
        with pytest.raises(errors.PackageUnreadable), workshop.store().open(str(path)):
            pass


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("/models/a b", "/models/a b"),
        ("models/a", "models/a"),
        ("file:///models/a%20b%23", "/models/a b#"),
        ("file:/models/a", "/models/a"),
        ("FILE://localhost/models/%C3%A9", "/models/é"),
        ("C:weights", "C:weights"),
    ],
)
def test_url_leads_to_a_path(url: str, path: str) -> None:
    """A path stands as it is; a file URL is decoded (clause 5.1)."""
    assert local_path(url) == Path(path)


@windows_only
def test_url_with_a_drive_leads_there_and_one_of_another_machine_nowhere() -> None:
    """A look at another machine's folder would tell it who asks."""
    assert local_path("file:///C:/models/a%20b") == Path("C:/models/a b")
    for url in ("file:////host/share/x", "file:///%5Chost/share/x", "file:///%2Fhost/share/x"):
        with pytest.raises(errors.UrlInvalid):
            local_path(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a\0b",
        "s3://bucket/key",
        "https://host/x",
        "file://host/x",
        "file:x",
        "file:///a?b",
        "file:///a#b",
        "file:///%00",
        "file://[/x",
    ],
)
def test_url_elsewhere_is_refused(url: str) -> None:
    """A url that is not a local path is refused, without looking anywhere (clause 5.1)."""
    with pytest.raises(errors.UrlInvalid):
        local_path(url)


def test_leftovers_of_dead_processes_are_removed_and_living_ones_kept(workshop: Workshop) -> None:
    """A new store removes what nobody holds, and leaves what another store is using (staging, invariant 2)."""
    folder = workshop.write_folder(workshop.package())
    leftover = workshop.folder / "staging" / "package-dead"
    leftover.mkdir(parents=True)
    (leftover / "model.onnx").touch()
    store = workshop.store()
    assert not leftover.exists()
    with store.open(str(folder)) as package:
        workshop.store()
        assert package.model.exists()


def test_leaf_below_an_intermediate_is_accepted(workshop: Workshop) -> None:
    """A signer may have authorities between itself and the root (clause 4.2)."""
    middle = make("middle", workshop.root, AUTHORITY)
    leaf = make("deep", middle, LEAF)
    workshop.signer = type(workshop.signer)(leaf.key, (leaf.certificate, middle.certificate))  # type: ignore[arg-type]  # an EC key
    folder = workshop.write_folder(workshop.package())
    with workshop.store().open(str(folder)) as package:
        assert package.signer.subject == "CN=deep"
        assert workshop.record.floor == max(NOW.replace(year=2026), LEAF.begin)


@pytest.mark.parametrize("what", ["model.onnx", "zoo"], ids=["file", "folder"])
def test_link_that_is_put_in_place_during_the_copy_is_not_followed(workshop: Workshop, what: str) -> None:
    """Whoever swaps a file or folder for a link after it was looked at gets nothing copied (clause 5.1)."""
    folder = workshop.write_folder(workshop.package(files={**FILES, "zoo/labels.txt": b"cat"}))
    (workshop.folder / "secret").write_bytes(b"secret!!!")
    (workshop.folder / "secrets").mkdir()
    (workshop.folder / "secrets" / "labels.txt").write_bytes(b"key")
    swapped: list[bool] = []

    def swap(_: int) -> None:  # called when the first file, data/weights.bin, has been copied
        if not swapped:
            swapped.append(True)
            (folder / what).rename(workshop.folder / "away")
            (folder / what).symlink_to(workshop.folder / ("secret" if what == "model.onnx" else "secrets"))

    with pytest.raises(errors.PackageUnreadable), workshop.store().open(str(folder), swap):
        pass
    assert swapped


@posix_only
def test_copy_of_a_killed_process_is_removed_by_the_next(workshop: Workshop) -> None:
    """A process that is killed with a package open leaves a copy that only lasts until the next start (clause 5.1)."""
    folder = workshop.write_folder(workshop.package())
    workshop.now = datetime.now(UTC)
    program = (
        "import sys, time; from pathlib import Path\n"
        "from lightkeeper.modelpackage.package import PackageStore\n"
        "from lightkeeper.modelpackage.trustrecord import TrustRecord\n"
        "package, roots, staging = sys.argv[1:]\n"
        "store = PackageStore(root_certs=Path(roots), staging=Path(staging), record=TrustRecord(None), host=None)\n"
        "with store.open(package):\n"
        "    print('open', flush=True); time.sleep(60)\n"
    )
    staging = workshop.folder / "staging"
    command = [sys.executable, "-c", program, str(folder), str(workshop.roots), str(staging)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        workshop.store()
        assert len(list(staging.iterdir())) == 1
        process.kill()
        process.wait()
    assert len(list(staging.iterdir())) == 1
    workshop.store()
    assert list(staging.iterdir()) == []


def test_threads_open_packages_at_the_same_time(workshop: Workshop) -> None:
    """One store serves many threads, each with a copy of its own."""
    path = archive(workshop.folder / "p.tar.gz", workshop.package())
    store = workshop.store()

    def read(_: int) -> tuple[bytes, Path]:
        with store.open(str(path)) as package:
            return package.model.read_bytes(), package.folder

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(read, range(40)))
    assert {content for content, _ in results} == {FILES["model.onnx"]}
    assert len({folder for _, folder in results}) == 40
    assert list((workshop.folder / "staging").iterdir()) == []


def test_cryptography_is_not_imported_before_a_package_is_verified(workshop: Workshop) -> None:
    """An agent without models starts without the cost of certificates."""
    program = "import sys, lightkeeper.modelpackage.package; print('cryptography' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
