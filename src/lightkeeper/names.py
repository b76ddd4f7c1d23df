"""What models, their versions and captures may be called: one rule for packages, aliases and requests."""

from __future__ import annotations

import re

from lightkeeper.errors import CaptureIdInvalid, NameInvalid, VersionInvalid

MODEL_NAME_MAXIMUM = 63
"""The most characters of a model's name."""

MODEL_VERSION_MAXIMUM = 64
"""The most characters of a model's version."""

CAPTURE_ID_MAXIMUM = 64
"""The most characters of a capture's id."""

# Equal to ^[a-zA-Z0-9](-*[a-zA-Z0-9])*$, written without the nested repeat that costs quadratic time on long input.
_WORD = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?")
_MODEL_VERSION = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9._+-]*[a-zA-Z0-9])?")


def check_model_name(name: str) -> None:
    """Raise `NameInvalid` unless the name is 1 to 63 letters, digits and inner hyphens."""
    if len(name) > MODEL_NAME_MAXIMUM or not _WORD.fullmatch(name):
        raise NameInvalid(f"{name[:80]!r} is not a model name", name=name[:80])


def check_capture_id(capture_id: str) -> None:
    """Raise `CaptureIdInvalid` unless the id is 1 to 64 letters, digits and inner hyphens."""
    if len(capture_id) > CAPTURE_ID_MAXIMUM or not _WORD.fullmatch(capture_id):
        raise CaptureIdInvalid(f"{capture_id[:80]!r} is not a capture id", capture_id=capture_id[:80])


def check_model_version(version: str) -> None:
    """Raise `VersionInvalid` unless the version is a short text, such as `1.0`, that is safe in a file's name."""
    if len(version) > MODEL_VERSION_MAXIMUM or not _MODEL_VERSION.fullmatch(version):
        raise VersionInvalid(f"{version[:80]!r} is not a model version", version=version[:80])
