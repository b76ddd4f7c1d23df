"""The folder of trusted roots."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightkeeper.errors import AgentError, RootsMissing, RootsWritable, RootUnusable
from lightkeeper.modelpackage import roots
from tests.support.certificates import AUTHORITY, make, write_roots
from tests.support.systems import posix_only


def test_every_pem_counts_and_nothing_else(tmp_path: Path) -> None:
    """Each certificate of each *.pem file is a root; other files do not matter (clause 4.7)."""
    one, two, three = (make(name, None, AUTHORITY) for name in ("one", "two", "three"))
    folder = write_roots(tmp_path, one)
    (folder / "several.pem").write_bytes(b"a remark\n" + two.pem + three.pem)
    (folder / "several.pem").chmod(0o444)
    (folder / "README").write_text("writable, and no certificate")
    found = roots.load(folder)
    assert [root.certificate for root in found] == [one.certificate, two.certificate, three.certificate]
    assert [root.file for root in found] == ["root-0.pem", "several.pem", "several.pem"]


@posix_only
def test_link_to_a_read_only_file_counts(tmp_path: Path) -> None:
    """A link is judged by the file it leads to (clause 4.7)."""
    elsewhere = write_roots(tmp_path / "elsewhere", make("one", None, AUTHORITY))
    folder = tmp_path / "roots"
    folder.mkdir()
    (folder / "linked.pem").symlink_to(elsewhere / "root-0.pem")
    assert len(roots.load(folder)) == 1
    (elsewhere / "root-0.pem").chmod(0o644)
    with pytest.raises(RootsWritable):
        roots.load(folder)


@posix_only
def test_folder_that_everybody_may_write_in_is_refused(tmp_path: Path) -> None:
    """Where everybody may add a root, no root says anything (clause 4.7)."""
    folder = write_roots(tmp_path / "roots", make("one", None, AUTHORITY))
    folder.chmod(0o777)
    with pytest.raises(RootsWritable):
        roots.load(folder)


@pytest.mark.parametrize("content", [b"", b"no PEM", b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"])
def test_file_that_is_no_certificate_is_named(tmp_path: Path, content: bytes) -> None:
    """A *.pem file that cannot be read is not passed over in silence (clause 4.7)."""
    path = tmp_path / "broken.pem"
    path.write_bytes(content)
    path.chmod(0o444)
    with pytest.raises(RootUnusable) as refused:
        roots.load(tmp_path)
    assert refused.value.facts["file"] == str(path)


def test_certificate_that_another_issued_is_no_root(tmp_path: Path) -> None:
    """An intermediate among the roots is refused, as the reference would not trust it either (clause 4.7)."""
    root = make("root", None, AUTHORITY)
    with pytest.raises(RootUnusable, match="not self-signed") as refused:
        roots.load(write_roots(tmp_path, make("middle", root, AUTHORITY)))
    assert refused.value.facts["subject"] == "CN=middle"


@posix_only
def test_dangling_link_is_named(tmp_path: Path) -> None:
    """A link that leads nowhere is refused by name (clause 4.7)."""
    (tmp_path / "gone.pem").symlink_to("nowhere")
    with pytest.raises(RootUnusable):
        roots.load(tmp_path)


@pytest.mark.parametrize("name", ["empty", "missing", "file"])
def test_no_roots_at_all_is_said(tmp_path: Path, name: str) -> None:
    """An empty folder, none, and a file in its place are told apart from a wrong root (clause 4.7)."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(RootsMissing) as refused:
        roots.load(tmp_path / name)
    assert isinstance(refused.value, AgentError)
    assert refused.value.facts["folder"].endswith(name)
