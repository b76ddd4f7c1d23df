"""From a url to an open session: the one place where a package is verified and only then loaded.

Steps:

1. Stage and verify the package; what cannot be trusted ends here.
2. Find a runtime for its format, and see that opening it leaves the memory reserve free.
3. Open it, and compare what it says of itself with the manifest.
4. Run it once, so that the first caller does not pay for it: on the golden input where the package has one, whose
   output must then be reproduced; else on zeros. A model may rightly fail on zeros or on dimensions of 1, so that is
   a WARNING and no refusal.

A session that fails a step is closed again. The staged copy is gone when `load` returns.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lightkeeper import resources
from lightkeeper.errors import (
    InputRejected,
    MemoryShort,
    ModelOutOfMemory,
    ModelRunFailed,
    ModelSignatureMismatch,
    WarmUpFailed,
)
from lightkeeper.model import PackageIdentity
from lightkeeper.modelpackage import golden
from lightkeeper.modelpackage.package import Package, PackageStore
from lightkeeper.runtimes.base import Session, zeros
from lightkeeper.runtimes.discovery import Runtimes

log = logging.getLogger(__name__)


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
        available_memory_bytes: Callable[[], int] = resources.available_memory_bytes,
    ) -> None:
        self._store = store
        self._runtimes = runtimes
        self._memory_reserve_bytes = memory_reserve_bytes
        self._available_memory_bytes = available_memory_bytes
        self._promised_bytes = 0
        self._promising = threading.Lock()

    def load(self, url: str) -> tuple[Session, PackageIdentity]:
        """Return the open, warm session of the package at a url, and which package that is.

        Raises `UrlInvalid`, `PackageNotFound`, a `PackageRefused` or a `ResourcesExhausted`.
        """
        with self._store.open(url) as package:
            runtime = self._runtimes.for_format(package.manifest.format)
            with self._memory(runtime.memory_bytes(package.model)):
                session = runtime.open(package.model)
                try:
                    _check_signature(session, package)
                    _warm_up(session, package)
                except BaseException:
                    session.close()
                    raise
            said = package.manifest
            return session, PackageIdentity(said.name, said.version, package.digest)

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


def _warm_up(session: Session, package: Package) -> None:
    arrays = package.golden()
    try:
        if arrays is None:
            session.run({metadata.name: zeros(metadata) for metadata in session.inputs})
            return
        outputs = session.run(arrays.inputs)
    except (InputRejected, ModelRunFailed) as error:
        if arrays is None:
            log.warning("warm_up_failed", extra={"url": package.url, "reason": error.message})
            return
        raise WarmUpFailed(f"the model fails on its golden input: {error.message}") from error
    except ModelOutOfMemory as error:
        raise MemoryShort(f"the model's first run ran out of memory: {error.message}") from error
    golden.compare(arrays, {metadata.name: output for metadata, output in zip(session.outputs, outputs, strict=True)})
