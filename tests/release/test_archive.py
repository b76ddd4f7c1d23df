"""Archives: the same content gives the same bytes, and what was fetched can be checked."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

import pytest

from lightkeeper import releases
from lightkeeper.cli import run
from lightkeeper.errors import FileChanged, FileMissing, ReleaseUnreadable, RootUnknown
from lightkeeper.modelpackage.signature import Signer
from release import archive
from release.build import version_of_commit

TIME_SECONDS = 1_790_000_000


def tree(folder: Path) -> Path:
    """Make a small archive's content."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "program").write_text("#!/bin/sh\n")
    (folder / "bin" / "program").chmod(0o700)
    (folder / "bin" / "other").symlink_to("program")
    (folder / "notes.txt").write_text("notes\n")
    return folder


@pytest.fixture
def packed(tmp_path: Path, authority: Path) -> Path:
    """An archive with its checksum and signature."""
    path = tmp_path / "store" / "1.20261101.0a1b2c3.tgz"
    archive.pack(tree(tmp_path / "tree"), "1.20261101.0a1b2c3", TIME_SECONDS, path)
    archive.write_checksum(path)
    archive.sign(path, Signer.load(authority))
    return path


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    """Whenever and by whomever it is packed."""
    for name in "ab":
        archive.pack(tree(tmp_path / name), "v", TIME_SECONDS, tmp_path / f"{name}.tgz")
    assert (tmp_path / "a.tgz").read_bytes() == (tmp_path / "b.tgz").read_bytes()


def test_members_carry_no_trace_of_the_builder(packed: Path) -> None:
    """Owners, times and rights are those of a release, and all of it lies below the version's name."""
    with tarfile.open(packed) as opened:
        members = {member.name: member for member in opened}
    assert {name.split("/")[0] for name in members} == {"1.20261101.0a1b2c3"}
    assert {(member.uid, member.uname, member.mtime) for member in members.values()} == {(0, "root", TIME_SECONDS)}
    modes = {name.rpartition("/")[2]: oct(member.mode) for name, member in members.items()}
    assert modes["program"] == modes["bin"] == "0o755"
    assert modes["notes.txt"] == "0o644"


def test_the_checksum_is_one_that_sha256sum_reads(packed: Path) -> None:
    """As users' scripts check it."""
    subprocess.run(["sha256sum", "--check", "--strict", releases.CHECKSUM], cwd=packed.parent, check=True)
    assert (packed.parent / releases.CHECKSUM).read_text().split()[0] == releases.sha256_of(packed)


def test_a_signed_archive_is_verified(packed: Path, authority: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The digest and the signer are told."""
    assert run(["release", "verify", str(packed), "--root-certs", str(authority / "certs")]) == 0
    assert releases.sha256_of(packed) in capsys.readouterr().out


def test_a_changed_archive_is_refused(packed: Path, authority: Path) -> None:
    """One byte more is not what was signed."""
    with packed.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(FileChanged):
        releases.verify(packed, authority / "certs")


def test_an_archive_of_another_name_is_refused(packed: Path, authority: Path) -> None:
    """An older archive cannot pass for a newer one."""
    newer = packed.with_name("1.20261201.0a1b2c3.tgz")
    packed.rename(newer)
    releases.signature_of(packed).rename(releases.signature_of(newer))
    with pytest.raises(FileMissing):
        releases.verify(newer, authority / "certs")


def test_an_archive_of_another_authority_is_refused(packed: Path, tmp_path: Path) -> None:
    """Only the roots that the user names count."""
    assert run(["ca", "init", str(tmp_path / "other"), "--region", "r"]) == 0
    with pytest.raises(RootUnknown):
        releases.verify(packed, tmp_path / "other" / "certs")


def test_an_archive_without_signature_is_refused(packed: Path, authority: Path) -> None:
    """With the file that is missing."""
    releases.signature_of(packed).unlink()
    with pytest.raises(ReleaseUnreadable, match="cannot be read"):
        releases.verify(packed, authority / "certs")


def test_the_version_names_the_commit() -> None:
    """Major version, day and the first seven digits of the commit, as scripts sort them."""
    version, time_seconds = version_of_commit()
    major, day, commit = version.split(".")
    told = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout
    assert (major, commit) == ("1", told[:7])
    assert len(day) == len("20261101")
    assert time_seconds > 0
