"""An archive: a folder packed so that the same content gives the same bytes, its checksum and its signature."""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Iterator
from pathlib import Path

from lightkeeper.modelpackage.signature import Signer
from lightkeeper.releases import CHECKSUM, sha256_of, signature_of

_LEVEL = 9


def pack(root: Path, name: str, time_seconds: int, target: Path) -> None:
    """Pack a folder into a `.tgz`, all of it below `name`; every member has the same time, and root's rights."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        target.open("wb") as file,
        gzip.GzipFile("", "wb", _LEVEL, file, mtime=time_seconds) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.GNU_FORMAT) as archive,
    ):
        for path in _in_order(root):
            member = archive.gettarinfo(path, f"{name}/{path.relative_to(root).as_posix()}".removesuffix("/."))
            member.mtime, member.uid, member.gid, member.uname, member.gname = time_seconds, 0, 0, "root", "root"
            executable = member.isdir() or member.issym() or bool(member.mode & 0o111)
            member.mode = 0o755 if executable else 0o644
            if member.isreg():
                with path.open("rb") as content:
                    archive.addfile(member, content)
            else:
                archive.addfile(member)


def write_checksum(archive: Path) -> str:
    """Write the checksum beside an archive, as `sha256sum --check` reads it, and return it."""
    digest = sha256_of(archive)
    archive.with_name(CHECKSUM).write_text(f"{digest}  {archive.name}\n", encoding="ascii")
    return digest


def sign(archive: Path, signer: Signer) -> Path:
    """Write the signature beside an archive: the same kind of bundle that signs a model package."""
    path = signature_of(archive)
    path.write_bytes(signer.bundle(archive.name, {archive.name: sha256_of(archive)}))
    return path


def _in_order(root: Path) -> Iterator[Path]:
    yield root
    yield from sorted(root.rglob("*"), key=lambda path: path.relative_to(root).parts)
