"""The one way from a url to a verified model package.

`PackageStore.open` finds the package, makes a private copy of it, verifies the copy, reads its manifest, and checks
that it may run here. A package that it gives out can be loaded; what cannot be trusted never gets further than this.

`cryptography` is imported when the first package is verified, not before: an agent starts without it.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes, urlsplit

from lightkeeper.errors import FileMissing, SignatureMissing, UrlInvalid
from lightkeeper.modelpackage import archive, golden, manifest
from lightkeeper.modelpackage.limits import Limits
from lightkeeper.modelpackage.manifest import Manifest
from lightkeeper.modelpackage.staging import Copy, StagedFile, Staging
from lightkeeper.modelpackage.target import Host
from lightkeeper.modelpackage.trustrecord import TrustRecord
from lightkeeper.system import path_of_url

if TYPE_CHECKING:
    from lightkeeper.modelpackage.trust import Verified

_SIGNATURE_FILE_NAME = "model.sig"  # `signature` has it too, but would bring `cryptography` along
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signed a package, and for how long the certificates' path is valid."""

    subject: str
    root: str
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True)
class Package:
    """A verified package. Its folder is private; one that `open` gave is there until the `with` block ends."""

    url: str
    folder: Path
    manifest: Manifest
    digest: str
    """SHA-256 of the content, in hexadecimal (`trust.digest_of`)."""
    files: dict[str, StagedFile]
    signer: Signer
    warnings: tuple[str, ...]
    """What was let pass, in a sentence each; they are logged too."""

    @property
    def model(self) -> Path:
        """The model's main file; the files it refers to lie beside it."""
        return self.folder / self.manifest.model

    def golden(self) -> golden.GoldenArrays | None:
        """Read the golden input and output, or return None where the package has none; see `golden.compare`."""
        return golden.read(self.folder, self.manifest)


class PackageStore:
    """Opens packages. Any number of threads may use it at once."""

    def __init__(  # noqa: PLR0913  # named collaborators, none of which can be left out
        self,
        *,
        root_certs: Path,
        staging: Path,
        record: TrustRecord,
        host: Host | None,
        limits: Limits = Limits(),  # noqa: B008  # frozen
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Take what decides, and remove the copies that dead processes left in `staging`.

        `root_certs` is read at each `open`. `host` None leaves out whether a package may run here: a builder verifies
        packages for other devices. Raises `StateUnusable`.
        """
        self._root_certs = root_certs
        self._staging = Staging(staging, limits)
        self._record = record
        self._host = host
        self._limits = limits
        self._now = now

    @contextmanager
    def open(self, url: str, advance: Callable[[int], None] = lambda _: None) -> Iterator[Package]:
        """Give the verified package at a url; its folder is gone when the block ends.

        `advance` is told the bytes of each piece that is copied. Raises `UrlInvalid`, `PackageNotFound`, `DiskShort`,
        or any `PackageRefused` except those that need a runtime.
        """
        path = local_path(url)
        with self._staging.copy(advance) as copy:
            archive.stage(path, copy, self._limits)
            _enter_single_folder(copy)
            yield self._package(url, copy)

    def open_kept(self, folder: Path, url: str) -> Package:
        """Return the package of a private folder (see `shelf.py`), verified anew where it lies. Raises as `open` does.

        `url` is where the package once came from.
        """
        return self._package(url, Copy.of(folder, self._limits))

    def _package(self, url: str, copy: Copy) -> Package:
        verified = self._verify(copy)
        if manifest.FILE_NAME not in copy.files:
            raise FileMissing(f"the package has no {manifest.FILE_NAME}", file=manifest.FILE_NAME)
        said = Manifest.parse(copy.read(manifest.FILE_NAME, limit_name="manifest_bytes"))
        for file in said.files:
            if file not in copy.files:
                raise FileMissing(f"the manifest names {file}, which is not in the package", file=file)
        if self._host is not None:
            self._host.check_runs(said.target, said.minimum_agent_version)
        self._record.accept(verified.digest, verified.begins)
        for warning in verified.warnings:
            logger.warning("package_accepted_with_warning", extra={"url": url, "warning": warning})
        return Package(url, copy.folder, said, verified.digest, dict(copy.files), _signer(verified), verified.warnings)

    def _verify(self, copy: Copy) -> Verified:
        from lightkeeper.modelpackage import roots, trust

        if _SIGNATURE_FILE_NAME not in copy.files:
            raise SignatureMissing(f"the package has no {_SIGNATURE_FILE_NAME}", file=_SIGNATURE_FILE_NAME)
        return trust.verify(
            copy.read(_SIGNATURE_FILE_NAME, limit_name="signature_bytes"),
            copy,
            roots.load(self._root_certs),
            trust.TrustTime(self._now(), self._record.floor),
            self._record.accepted,
        )


def local_path(url: str) -> Path:
    """Return the path of a package: of a `file:` URL, percent-decoded, or of a path as it stands.

    Raises `UrlInvalid` for another scheme, another host, a query or a fragment.
    """
    if not url or "\0" in url:
        raise UrlInvalid("the url is empty" if not url else "the url has a NUL byte", url=url.replace("\0", "\\0"))
    if not _SCHEME.match(url) or ("://" not in url and not url.lower().startswith("file:")):
        return Path(url)
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UrlInvalid(f"{url!r} is not a URL: {error}", url=url) from error
    if parts.scheme != "file" or parts.netloc.lower() not in {"", "localhost"}:
        raise UrlInvalid(f"{url!r} is not on this device", url=url)
    if parts.query or parts.fragment or not parts.path.startswith("/"):
        raise UrlInvalid(f"{url!r} is not the URL of a file", url=url)
    path = unquote_to_bytes(parts.path)
    if b"\0" in path:
        raise UrlInvalid(f"{url!r} has a NUL byte", url=url)
    found = path_of_url(os.fsdecode(path))
    if found is None:
        raise UrlInvalid(f"{url!r} is not on this device", url=url)
    return Path(found)


def _enter_single_folder(copy: Copy) -> None:
    """Let an archive of one folder count as that folder: `tar czf x.tar.gz folder` makes such."""
    tops = {name.partition("/")[0] for name in copy.files}
    if manifest.FILE_NAME not in copy.files and len(tops) == 1:
        (top,) = tops
        if f"{top}/{manifest.FILE_NAME}" in copy.files:
            copy.enter(top)


def _signer(verified: Verified) -> Signer:
    from lightkeeper.modelpackage.certificate import name

    return Signer(
        subject=name(verified.path[0]),
        root=name(verified.path[-1]),
        not_before=verified.begins,
        not_after=min(certificate.not_valid_after_utc for certificate in verified.path),
    )
