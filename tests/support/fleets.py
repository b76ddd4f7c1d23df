"""A fleet that lies in a folder: deployments in a file, packages beside it. It implements the real interface."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from lightkeeper.errors import DestinationUnreachable, PackageNotFound
from lightkeeper.providers.fleet import Definition, Deployment, DesiredState, FailurePolicy

PIECE_BYTES = 1024
BUCKET = "s3://packages/"


class FolderFleet:
    """Gives what lies in a folder. `away` fails every call, `cut_after_bytes` each fetch that has given so many."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.away = False
        self.cut_after_bytes: int | None = None
        self.asked = 0
        self.fetched_bytes = 0

    def put(self, package: Path) -> Definition:
        """Take a package in, and return the definition that deploys it under its name without the version."""
        (self._folder / package.name).write_bytes(package.read_bytes())
        sha1 = hashlib.sha1(package.read_bytes(), usedforsecurity=False).hexdigest()
        handle = package.name.rsplit("-", 1)[0]
        return Definition(handle, DesiredState.DEPLOY, f"{BUCKET}{package.name}", sha1)

    def offer(self, *deployments: Deployment) -> None:
        """Have these deployments wait for the device."""
        (self._folder / "offered.json").write_text(json.dumps([asdict(deployment) for deployment in deployments]))

    def get_deployments(self) -> Sequence[Deployment]:
        """Return what was offered last."""
        self.asked += 1
        self._check_there()
        offered = self._folder / "offered.json"
        documents = json.loads(offered.read_text()) if offered.exists() else []
        return [
            Deployment(
                each["name"],
                FailurePolicy(each["policy"]),
                tuple(
                    Definition(item["handle"], DesiredState(item["state"]), item["url"], item["sha1"])
                    for item in each["definitions"]
                ),
            )
            for each in documents
        ]

    def size_bytes(self, url: str) -> int:
        """Return the size of the file."""
        self._check_there()
        return self._path(url).stat().st_size

    def fetch(self, url: str, offset: int) -> Iterator[bytes]:
        """Yield the file, until it ends or is cut."""
        self._check_there()
        given = 0
        with self._path(url).open("rb") as file:
            file.seek(offset)
            while piece := file.read(PIECE_BYTES):
                if self.cut_after_bytes is not None and given >= self.cut_after_bytes:
                    raise DestinationUnreachable("cut")
                yield piece
                given += len(piece)
                self.fetched_bytes += len(piece)

    def _check_there(self) -> None:
        if self.away:
            raise DestinationUnreachable("nobody answers")

    def _path(self, url: str) -> Path:
        path = self._folder / url.removeprefix(BUCKET)
        if not path.exists():
            raise PackageNotFound(f"nothing lies at {url}", url=url)
        return path
