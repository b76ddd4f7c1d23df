"""Every limit on a package from outside, with its unit."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


@dataclass(frozen=True, slots=True)
class Limits:
    """What a package may cost before anybody knows whether it can be trusted (`docs/spec/model-package.md`, 5)."""

    packed_bytes: int = 8 * GIB
    """The archive file itself."""
    unpacked_bytes: int = 16 * GIB
    """All files together."""
    members: int = 10_000
    """Files, folders and whatever else an archive lists."""
    ratio: int = 200
    """Unpacked bytes for each byte of the archive, judged once `ratio_grace_bytes` are unpacked."""
    ratio_grace_bytes: int = 64 * MIB
    """Below this, a high ratio harms nobody."""
    depth: int = 16
    """Parts of a path."""
    name_bytes: int = 1024
    """A whole path, in UTF-8."""
    header_bytes: int = 256 * KIB
    """What an archive may use to describe one member."""
    manifest_bytes: int = 1 * MIB
    """`manifest.json`."""
    signature_bytes: int = 8 * MIB
    """`model.sig`."""
    free_bytes_kept: int = 32 * MIB
    """Room that stays free on the disk for everybody else."""
