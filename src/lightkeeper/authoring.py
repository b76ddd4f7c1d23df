"""From a model to the draft of its package: what a package says of a model is read from the model itself.

The command line and the hub both make their drafts here; `modelpackage.build` signs and writes them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lightkeeper.modelpackage.build import Draft
from lightkeeper.modelpackage.golden import GoldenArrays
from lightkeeper.modelpackage.manifest import NO_LIMITS, Manifest, SwapLimits
from lightkeeper.modelpackage.source import Source
from lightkeeper.modelpackage.target import ANY_TARGET, Target
from lightkeeper.names import check_model_name, check_model_version
from lightkeeper.runtimes.base import RuntimeOptions, Session
from lightkeeper.runtimes.discovery import Runtimes


@dataclass(frozen=True, slots=True)
class Label:
    """What whoever builds a package says of it; the rest is read from the model."""

    name: str
    version: str
    target: Target = ANY_TARGET
    minimum_agent_version: str = "1"
    swap: SwapLimits = NO_LIMITS

    def check(self) -> None:
        """Raise `NameInvalid` or `VersionInvalid`, before a model is opened for nothing."""
        check_model_name(self.name)
        check_model_version(self.version)


def no_golden(_: Session) -> GoldenArrays | None:
    """Give no golden input and output."""
    return None


def draft(
    source: Source, label: Label, *, threads: int, golden: Callable[[Session], GoldenArrays | None] = no_golden
) -> Draft:
    """Open a model, and return the draft of its package; `golden` makes its golden arrays with the open session.

    Raises `NameInvalid`, `VersionInvalid`, `ManifestInvalid` for what a device would refuse, `FormatUnsupported`, and
    what `Runtime.open` and `golden` raise.
    """
    label.check()
    session = Runtimes(RuntimeOptions(threads=threads)).for_format(source.format).open(source.main)
    try:
        said = Manifest(
            name=label.name,
            version=label.version,
            format=source.format,
            model=source.model,
            inputs=tuple(session.inputs),
            outputs=tuple(session.outputs),
            target=label.target,
            minimum_agent_version=label.minimum_agent_version,
            swap=label.swap,
        )
        Manifest.parse(said.to_json())  # what a device would refuse is refused here
        return Draft(source, said, golden(session))
    finally:
        session.close()
