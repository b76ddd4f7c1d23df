"""Kept packages: private copies of what is loaded, by their digest, so that a model outlives the agent and its source.

A package is put on the shelf by renaming its verified private copy, so it is there whole or not at all. Whoever takes
one from the shelf verifies it again (`PackageStore.open_kept`): the disk may have changed it, or the time.

On the disk: `<root>/<digest>/…`, the package's files as they were signed.

Invariants
1. The root is of mode 0700; a folder in it whose name is a digest holds what was once verified as that digest, synced.
2. A package is removed by renaming it first, so that no half of one keeps its name.
3. What nobody `retain`s is removed. The caller names what it needs; that is at most two versions a model.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Set as AbstractSet
from pathlib import Path

from lightkeeper.state import PRIVATE
from lightkeeper.system import sync_file, sync_folder

_LEAVING = ".leaving"
_SIGNATURE_FILE_NAME = "model.sig"

logger = logging.getLogger(__name__)


class Shelf:
    """The folder of kept packages. Any number of threads may use it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._changing = threading.Lock()

    def find(self, digest: str) -> Path | None:
        """Return the folder of a package, or None where it is not kept."""
        folder = self._root / digest
        return folder if folder.is_dir() else None

    def put(self, digest: str, folder: Path) -> bool:
        """Take a verified private copy over, and return whether the package is kept now.

        Where the disk does not allow it, the copy stays where it is, and a WARNING says so.
        """
        place = self._root / digest
        try:
            with self._changing:
                self._root.mkdir(PRIVATE, parents=True, exist_ok=True)
                if place.is_dir():
                    if _signature(place) == _signature(folder):
                        return True
                    _remove(place)  # the same content, signed anew
                _sync(folder)
                folder.rename(place)
                sync_folder(self._root)
        except OSError as error:
            logger.warning("package_not_kept", extra={"digest": digest, "error": str(error)})
            return False
        return True

    def retain(self, digests: AbstractSet[str]) -> None:
        """Remove every package but these; what cannot be removed is tried again the next time."""
        with self._changing:
            try:
                kept = list(self._root.iterdir())
            except OSError:
                return
            for folder in kept:
                if folder.name in digests:
                    continue
                try:
                    _remove(folder)
                    logger.info("kept_package_removed", extra={"digest": folder.name})
                except OSError as error:
                    logger.warning("kept_package_stays", extra={"digest": folder.name, "error": str(error)})


def _signature(folder: Path) -> bytes:
    return (folder / _SIGNATURE_FILE_NAME).read_bytes()


def _remove(folder: Path) -> None:
    leaving = folder if folder.suffix == _LEAVING else folder.rename(folder.with_suffix(_LEAVING))
    shutil.rmtree(leaving)


def _sync(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        if path.is_dir():
            sync_folder(path)
        else:
            sync_file(path)
