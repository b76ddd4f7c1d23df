"""Kept packages: whole or not at all, and no longer than somebody names them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightkeeper.errors import FileChanged, PackageMemberForbidden, RootUnknown
from lightkeeper.modelpackage.shelf import Shelf
from lightkeeper.system import HAS_MODES
from tests.support.certificates import AUTHORITY, make, write_roots
from tests.support.packages import FILES, Workshop


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """Makes packages that its store trusts."""
    return Workshop(tmp_path)


def keep(workshop: Workshop, shelf: Shelf) -> str:
    """Open a package as the agent does, keep it, and return its digest."""
    with workshop.store().open(str(workshop.write_folder(workshop.package()))) as package:
        assert shelf.put(package.digest, package.folder)
        return package.digest


def test_a_kept_package_outlives_its_source_and_is_verified_again(workshop: Workshop) -> None:
    """It is found by its digest, and opened where it lies."""
    shelf = Shelf(workshop.folder / "packages")
    digest = keep(workshop, shelf)
    folder = shelf.find(digest)
    assert folder is not None
    package = workshop.store().open_kept(folder, "/where/it/was")
    assert (package.digest, package.url) == (digest, "/where/it/was")
    assert (package.folder / "model.onnx").read_bytes() == FILES["model.onnx"]
    assert not HAS_MODES or folder.parent.stat().st_mode & 0o777 == 0o700


def test_a_kept_package_that_the_disk_changed_is_refused(workshop: Workshop) -> None:
    """As it would be anywhere else."""
    shelf = Shelf(workshop.folder / "packages")
    folder = shelf.find(keep(workshop, shelf))
    assert folder is not None
    (folder / "model.onnx").write_bytes(b"changed")
    with pytest.raises(FileChanged):
        workshop.store().open_kept(folder, "")
    if not HAS_MODES:
        return
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").symlink_to("/etc/passwd")
    with pytest.raises(PackageMemberForbidden):
        workshop.store().open_kept(folder, "")


def test_a_kept_package_whose_root_is_trusted_no_more_is_refused(workshop: Workshop) -> None:
    """Trust is decided at each load, not once."""
    shelf = Shelf(workshop.folder / "packages")
    folder = shelf.find(keep(workshop, shelf))
    assert folder is not None
    workshop.roots = write_roots(workshop.folder / "others", make("other", None, AUTHORITY))
    with pytest.raises(RootUnknown):
        workshop.store().open_kept(folder, "")


def test_the_same_content_signed_anew_takes_the_old_ones_place(workshop: Workshop) -> None:
    """Else the old signature would be the one that counts after a restart."""
    shelf = Shelf(workshop.folder / "packages")
    digest = keep(workshop, shelf)
    folder = shelf.find(digest)
    assert folder is not None
    (folder / "model.sig").write_bytes(b"an older one")
    assert keep(workshop, shelf) == digest
    workshop.store().open_kept(folder, "")
    assert [path.name for path in folder.parent.iterdir()] == [digest]


def test_what_nobody_names_is_removed_and_what_was_left_half_removed_too(workshop: Workshop) -> None:
    """A kill while a package leaves does not keep its bytes for ever."""
    root = workshop.folder / "packages"
    shelf = Shelf(root)
    digest = keep(workshop, shelf)
    (root / "1234.leaving").mkdir()
    shelf.retain({digest})
    assert [path.name for path in root.iterdir()] == [digest]
    shelf.retain(set())
    assert list(root.iterdir()) == []


def test_a_shelf_that_cannot_be_written_is_said(workshop: Workshop, caplog: pytest.LogCaptureFixture) -> None:
    """The package is loaded all the same; it is just not kept."""
    (workshop.folder / "file").touch()
    shelf = Shelf(workshop.folder / "file" / "packages")
    with workshop.store().open(str(workshop.write_folder(workshop.package()))) as package:
        assert not shelf.put(package.digest, package.folder)
        assert package.folder.is_dir()
    assert "package_not_kept" in caplog.text
    shelf.retain(set())
