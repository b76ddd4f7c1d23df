"""Real packages in folders and archives, and the ways to damage them."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from lightkeeper.modelpackage.limits import Limits
from lightkeeper.modelpackage.manifest import Manifest
from lightkeeper.modelpackage.package import PackageStore
from lightkeeper.modelpackage.signature import Signer
from lightkeeper.modelpackage.target import Host
from lightkeeper.modelpackage.trustrecord import TrustRecord
from lightkeeper.tensor import DataType, TensorMetadata
from tests.support.certificates import AUTHORITY, LEAF, NOW, Holder, make, write_roots, write_signer

MANIFEST = Manifest(
    name="probe",
    version="1.0",
    format="onnx",
    model="model.onnx",
    inputs=(TensorMetadata("x", DataType.FLOAT32, (-1, 3)),),
    outputs=(TensorMetadata("y", DataType.FLOAT32, (-1, 2)),),
)
HOST = Host("linux", "x86_64", frozenset({"cpu"}), "1.2.3")
FILES = {"model.onnx": b"the model", "data/weights.bin": bytes(range(256)) * 8}


def sha256(data: bytes) -> str:
    """Return the SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


@dataclass
class Workshop:
    """A folder with an authority, where packages are made and opened."""

    folder: Path
    root: Holder = field(default_factory=lambda: make("root", None, AUTHORITY))
    record: TrustRecord = field(default_factory=lambda: TrustRecord(None, released=NOW.replace(year=2026)))
    now: datetime = NOW
    host: Host = HOST
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        """Make the signer and the folder of roots."""
        self.leaf = make("signer", self.root, LEAF)
        self.signer = Signer.load(write_signer(self.folder / "signer", self.leaf))
        self.roots = write_roots(self.folder / "roots", self.root)

    def package(self, manifest: Manifest = MANIFEST, files: Mapping[str, bytes] = FILES) -> dict[str, bytes]:
        """Return the files of a signed package."""
        content = {"manifest.json": manifest.to_json(), **files}
        return self.signed(content)

    def signed(self, content: Mapping[str, bytes]) -> dict[str, bytes]:
        """Return these files and their signature."""
        digests = {name: sha256(data) for name, data in content.items()}
        return {**content, "model.sig": self.signer.bundle("probe-1.0", digests)}

    def write_folder(self, files: Mapping[str, bytes], name: str = "package") -> Path:
        """Write files into a new folder."""
        folder = self.folder / name
        for file, data in files.items():
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return folder

    def store(self) -> PackageStore:
        """Return a store as this workshop stands."""
        return PackageStore(
            root_certs=self.roots,
            staging=self.folder / "staging",
            record=self.record,
            host=self.host,
            limits=self.limits,
            now=lambda: self.now,
        )


def archive(path: Path, files: Mapping[str, bytes], edit: Callable[[tarfile.TarFile], None] | None = None) -> Path:
    """Write a .tar.gz of files; `edit` may add what no honest builder would."""
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        for name, data in files.items():
            add(tar, name, data)
        if edit:
            edit(tar)
    return path


def add(tar: tarfile.TarFile, name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> None:
    """Add a member of any kind and name."""
    info = tarfile.TarInfo(name)
    info.size = len(data) if kind == tarfile.REGTYPE else 0
    info.type = kind
    info.linkname = link
    tar.addfile(info, io.BytesIO(data))


def repack(path: Path, change: Callable[[bytes], bytes]) -> Path:
    """Change the bytes within the compression."""
    path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes()))))
    return path
