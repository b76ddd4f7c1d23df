"""From a url to an open session: the one place where a package is verified and only then loaded.

Steps:

1. Stage and verify the package; what cannot be trusted ends here.
2. Find a runtime for its format, and see that opening it leaves the memory reserve free.
3. Open it, and compare what it says of itself with the manifest.
4. Run it once, so that the first caller does not pay for it: on the golden input where the package has one, whose
   output must then be reproduced; else on zeros. A model may rightly fail on zeros or on dimensions of 1, so that is
   a WARNING and no refusal.

A session that fails a step is closed again. The staged copy is gone when `load` returns, or was put on the shelf of
kept packages, where there is one. What is loaded from there (`load_kept`) takes the same steps.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from lightkeeper import resources
from lightkeeper.errors import (
    DiskShort,
    InputRejected,
    MemoryShort,
    ModelOutOfMemory,
    ModelRunFailed,
    ModelSignatureMismatch,
    PackageNotKept,
    WarmUpFailed,
)
from lightkeeper.model import PackageIdentity
from lightkeeper.modelpackage import golden
from lightkeeper.modelpackage.manifest import SwapLimits
from lightkeeper.modelpackage.package import Package, PackageStore
from lightkeeper.modelpackage.shelf import Shelf
from lightkeeper.runtimes.base import Array, Session, zeros
from lightkeeper.runtimes.discovery import Runtimes

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Opened:
    """A package's open, warm session, and what else its package says."""

    session: Session
    package: PackageIdentity
    golden_inputs: Mapping[str, Array] | None
    swap_limits: SwapLimits


class ModelLoader:
    """Loads packages; any number of threads may load at once.

    Invariant: what the loads under way are expected to take, and the reserve, fit into the memory that is free.
    """

    def __init__(
        self,
        *,
        store: PackageStore,
        runtimes: Runtimes,
        memory_reserve_bytes: int,
        shelf: Shelf | None = None,
        available_memory_bytes: Callable[[], int] = resources.available_memory_bytes,
    ) -> None:
        self._store = store
        self._shelf = shelf
        self._runtimes = runtimes
        self._memory_reserve_bytes = memory_reserve_bytes
        self._available_memory_bytes = available_memory_bytes
        self._promised_bytes = 0
        self._promising = threading.Lock()

    def load(self, url: str, advance: Callable[[int], None] = lambda _: None) -> Opened:
        """Open the package at a url, and put it on the shelf where there is one.

        `advance` is told the bytes of each piece that is copied. Raises `UrlInvalid`, `PackageNotFound`, a
        `PackageRefused` or a `ResourcesExhausted`.
        """
        with self._store.open(url, advance) as package:
            opened = self._open(package)
            if self._shelf is not None:
                self._shelf.put(package.digest, package.folder)
            return opened

    def load_kept(self, digest: str, url: str) -> Opened:
        """Open a package of the shelf, or the one at the url it once came from where the shelf has it not.

        Raises what `load` does, and `PackageNotKept` where another package lies at the url now.
        """
        folder = None if self._shelf is None else self._shelf.find(digest)
        if folder is not None:
            return self._open(self._store.open_kept(folder, url))
        opened = self.load(url)
        if opened.package.digest != digest:
            opened.session.close()
            raise PackageNotKept(f"the package is not kept, and another one lies at {url} now", url=url, digest=digest)
        return opened

    def keep(self, url: str) -> PackageIdentity:
        """Verify the package at a url and put it on the shelf, without opening it. Raises what `load` does."""
        with self._store.open(url) as package:
            self._runtimes.for_format(package.manifest.format)
            if self._shelf is None or not self._shelf.put(package.digest, package.folder):
                raise DiskShort(f"the package {package.manifest.name} cannot be kept", digest=package.digest)
            return PackageIdentity(package.manifest.name, package.manifest.version, package.digest)

    def digest(self, url: str) -> str:
        """Return the digest of the package at a url, which is verified for it. Raises what `load` does."""
        with self._store.open(url) as package:
            return package.digest

    def memory_is_short(self) -> bool:
        """Whether less memory is free than should stay free."""
        return self._available_memory_bytes() < self._memory_reserve_bytes

    def _open(self, package: Package) -> Opened:
        runtime = self._runtimes.for_format(package.manifest.format)
        arrays = package.golden()
        with self._memory(runtime.memory_bytes(package.model)):
            session = runtime.open(package.model)
            try:
                _check_signature(session, package)
                _warm_up(session, package.url, arrays)
            except BaseException:
                session.close()
                raise
        said = package.manifest
        identity = PackageIdentity(said.name, said.version, package.digest)
        return Opened(session, identity, None if arrays is None else arrays.inputs, said.swap)

    @contextmanager
    def _memory(self, needed_bytes: int) -> Iterator[None]:
        """Promise memory to a load until it holds it. Raises `MemoryShort`."""
        with self._promising:
            available_bytes = self._available_memory_bytes() - self._promised_bytes
            if needed_bytes + self._memory_reserve_bytes > available_bytes:
                raise MemoryShort(
                    f"the model needs about {needed_bytes} bytes of memory; {available_bytes} are free, "
                    f"of which {self._memory_reserve_bytes} stay free",
                    needed_bytes=needed_bytes,
                    available_bytes=available_bytes,
                    reserve_bytes=self._memory_reserve_bytes,
                )
            self._promised_bytes += needed_bytes
        try:
            yield
        finally:
            with self._promising:
                self._promised_bytes -= needed_bytes


def _check_signature(session: Session, package: Package) -> None:
    for kind, opened, declared in (
        ("inputs", session.inputs, package.manifest.inputs),
        ("outputs", session.outputs, package.manifest.outputs),
    ):
        if tuple(opened) != declared:
            raise ModelSignatureMismatch(
                f"the model's {kind} are not those of its manifest",
                kind=kind,
                expected=", ".join(map(str, declared)),
                given=", ".join(map(str, opened)),
            )


def _warm_up(session: Session, url: str, arrays: golden.GoldenArrays | None) -> None:
    try:
        if arrays is None:
            session.run({metadata.name: zeros(metadata) for metadata in session.inputs})
            return
        outputs = session.run(arrays.inputs)
    except (InputRejected, ModelRunFailed) as error:
        if arrays is None:
            log.warning("warm_up_failed", extra={"url": url, "reason": error.message})
            return
        raise WarmUpFailed(f"the model fails on its golden input: {error.message}") from error
    except ModelOutOfMemory as error:
        raise MemoryShort(f"the model's first run ran out of memory: {error.message}") from error
    golden.compare(arrays, {metadata.name: output for metadata, output in zip(session.outputs, outputs, strict=True)})
