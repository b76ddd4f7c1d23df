"""Which devices and agents a package is for, and what this device and agent are."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass

from lightkeeper import __version__
from lightkeeper.errors import AgentTooOld, TargetMismatch

ANY = "any"
"""The target that fits every device."""

_ARCHITECTURES = {
    "amd64": "x86_64",
    "x64": "x86_64",
    "i386": "x86",
    "i686": "x86",
    "arm64": "aarch64",
    "armv8": "aarch64",
    "armv8l": "aarch64",
}
"""Other words for one architecture."""

_WORD = re.compile(r"[a-z0-9][a-z0-9_.-]{0,31}")
_VERSION = re.compile(r"\d{1,9}(\.\d{1,9}){0,2}")


@dataclass(frozen=True, slots=True)
class Target:
    """The device a package is built for: `linux`, `x86_64`, `cpu`; each may be `any`."""

    os: str = ANY
    architecture: str = ANY
    accelerator: str = ANY


ANY_TARGET = Target()
"""The target of a package that runs everywhere."""


@dataclass(frozen=True, slots=True)
class Host:
    """The device and the agent on it."""

    os: str
    architecture: str
    accelerators: frozenset[str]
    agent_version: str

    @classmethod
    def this(cls, accelerators: frozenset[str] = frozenset({"cpu"}), agent_version: str = __version__) -> Host:
        """Return what this process runs on."""
        return cls(platform.system().lower(), architecture(platform.machine()), accelerators, agent_version)

    def check_runs(self, target: Target, minimum_agent_version: str) -> None:
        """Raise `TargetMismatch` or `AgentTooOld` unless a package for this target runs here."""
        for aspect, wanted, offered in (
            ("os", target.os, {self.os}),
            ("architecture", target.architecture, {self.architecture}),
            ("accelerator", target.accelerator, self.accelerators),
        ):
            if wanted not in {ANY, *offered}:
                here = ", ".join(sorted(offered))
                raise TargetMismatch(
                    f"the package is for the {aspect} {wanted}, this device has {here}",
                    aspect=aspect,
                    expected=wanted,
                    given=here,
                )
        if _numbers(self.agent_version) < _numbers(minimum_agent_version):
            raise AgentTooOld(
                f"the package needs agent {minimum_agent_version} or later, this is {self.agent_version}",
                expected=minimum_agent_version,
                given=self.agent_version,
            )


def architecture(word: str) -> str:
    """Return the one word used here for a processor architecture: `amd64` and `x64` are `x86_64`."""
    lower = word.lower()
    return _ARCHITECTURES.get(lower, lower)


def is_target_word(word: str) -> bool:
    """Tell whether a word may stand in a target: a few lower-case letters and digits, in the form used here."""
    return _WORD.fullmatch(word) is not None and architecture(word) == word


def is_minimum_version(version: str) -> bool:
    """Tell whether a text is a minimum agent version: one to three numbers, such as `1.20201218` or `1.0.0`."""
    return _VERSION.fullmatch(version) is not None


def _numbers(version: str) -> tuple[int, int, int]:
    """Return the leading numbers of a version; `1.20201218.81f481f` counts as `1.20201218.0`."""
    numbers: list[int] = []
    for piece in version.split("."):
        if not piece.isdecimal():
            break
        numbers.append(int(piece))
    major, minor, patch = [*numbers, 0, 0, 0][:3]
    return major, minor, patch
