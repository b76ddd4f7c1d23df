"""From a file to a `Config`, or to everything that is wrong with it at once.

A fault is what the agent does not start with; a warning is what it starts with and a person should know. What is
shown of a given value is at most `SHOWN_CHARACTERS` long and never a secret: neither the value of an unknown key, nor
that of the private key, nor what looks like PEM text or an address with a password.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from lightkeeper.config import document, model
from lightkeeper.config.model import Config, Notes
from lightkeeper.errors import ConfigInvalid, Finding
from lightkeeper.system import user_id

SHOWN_CHARACTERS = 80
MAX_HINTS = 20
"""Unknown keys that get a warning of their own; a file of ten thousand of them gets one for the rest."""

OLDER_NAMES = {"sagemaker_edge_core_device_uuid": "sagemaker_edge_core_device_name"}
PROVIDER_KEY = "sagemaker_edge_provider_provider"
STATE_KEY = "sagemaker_edge_local_data_root_path"

_SECRET_KEYS = frozenset({"sagemaker_edge_provider_aws_cert_pk_file"})
_SECRET_TEXT = re.compile(r"-----BEGIN|://[^/]*@")
_PREFIX = re.compile(r"^(lightkeeper_|sagemaker_edge_)?(core_|provider_)?(capture_data_|capture_|aws_)?")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Report:
    """What there is to say about one configuration. `config` is None where there are faults."""

    source: str
    config: Config | None
    faults: tuple[Finding, ...]
    warnings: tuple[Finding, ...]

    def accepted(self) -> Config:
        """Return the configuration; raises `ConfigInvalid` with every fault."""
        if self.config is None:
            count = len(self.faults)
            problems = "one fault" if count == 1 else f"{count} faults"
            raise ConfigInvalid(f"{self.source} has {problems}", self.faults, self.warnings)
        return self.config


def load(path: Path, environment: Mapping[str, str] = os.environ) -> Config:
    """Return the configuration of a file, and log every warning.

    Raises `ConfigUnreadable` or, with all faults at once, `ConfigInvalid`.
    """
    report = check(path, environment)
    for warning in report.warnings:
        logger.warning("config_warning", extra={"key": warning.key, "problem": str(warning)})
    return report.accepted()


def check(path: Path, environment: Mapping[str, str] = os.environ) -> Report:
    """Return every fault and warning of a file. Raises `ConfigUnreadable` where it holds no JSON object."""
    report = examine(document.read(path), environment, source=str(path))
    return replace(report, config=report.config and report.config.placed(path))


def examine(members: document.Members, environment: Mapping[str, str] = os.environ, source: str = "it") -> Report:
    """Return every fault and warning of an object's members."""
    faults: list[Finding] = []
    warnings: list[Finding] = []
    given = _known(_unrepeated(members, faults, warnings), faults, warnings)
    # A provider of null is let through, to be refused: it may mean the provider None as well as the default.
    filled = {
        name: value for name, value in given.items() if not _blank(value) or (name, value) == (PROVIDER_KEY, None)
    }
    filled.setdefault(STATE_KEY, str(default_state_path(environment)))
    notes = Notes()
    config, problems = model.build(filled, notes)
    allowed = {key.name: key.allowed for key in model.every_key()}
    older_names = {present: older for older, present in OLDER_NAMES.items() if older in dict(members)}
    for name, problem in problems:
        written = f"{problem}, written as {older_names[name]}" if name in older_names else problem
        faults.append(Finding(name, written, _shown(name, given.get(name)), allowed[name]))
    warnings += [Finding(name, text) for name, text in notes.warnings]
    return Report(source, None if faults else config, tuple(faults), tuple(warnings))


def default_state_path(
    environment: Mapping[str, str], *, as_root: bool | None = None, platform: str = sys.platform
) -> Path:
    """Return the agent's folder in the platform's state folder.

    In this order: what systemd gives the service, the user's XDG state folder, `/var/lib` for root, `~/.local/state`;
    on Windows the local application data.
    """
    if platform == "win32":
        return (
            Path(environment.get("LOCALAPPDATA") or environment.get("PROGRAMDATA") or "C:\\ProgramData") / "lightkeeper"
        )
    for_service = environment.get("STATE_DIRECTORY", "").split(":")[0]
    if for_service.startswith("/"):
        return Path(for_service)
    for_user = environment.get("XDG_STATE_HOME", "")
    if for_user.startswith("/"):
        return Path(for_user) / "lightkeeper"
    home = environment.get("HOME", "")
    if (user_id() == 0 if as_root is None else as_root) or not home.startswith("/"):
        return Path("/var/lib/lightkeeper")
    return Path(home) / ".local/state/lightkeeper"


def _unrepeated(members: document.Members, faults: list[Finding], warnings: list[Finding]) -> dict[str, object]:
    """Return the members by name. Nobody knows which of two values counts, so a name with two of them is a fault."""
    given: dict[str, object] = {}
    for name, value in members:
        if name in given and (given[name] != value or type(given[name]) is not type(value)):
            faults.append(Finding(_shown_name(name), "is there twice, with different values"))
        elif name in given:
            warnings.append(Finding(_shown_name(name), "is there twice, with the same value"))
        given.setdefault(name, value)
    return given


def _known(given: Mapping[str, object], faults: list[Finding], warnings: list[Finding]) -> dict[str, object]:
    """Return the members whose names are known, under their present names."""
    names = {key.name for key in model.every_key()}
    known = {name: value for name, value in given.items() if name in names}
    for older, present in OLDER_NAMES.items():
        if older not in given or _blank(given[older]):
            continue
        if not _blank(known.get(present)) and known[present] != given[older]:
            faults.append(Finding(present, f"differs from {older}, the older name of the same key"))
        elif _blank(known.get(present)):
            known[present] = given[older]
    unknown = [name for name in given if name not in names and name not in OLDER_NAMES]
    for name in unknown[:MAX_HINTS]:
        nearest = _nearest(name, [*names, *OLDER_NAMES])
        warnings.append(
            Finding(_shown_name(name), f"is no key of Lightkeeper{nearest and f'; did you mean {nearest}?'}")
        )
    if len(unknown) > MAX_HINTS:
        warnings.append(
            Finding(
                _shown_name(unknown[MAX_HINTS]), f"and {len(unknown) - MAX_HINTS - 1} more are no keys of Lightkeeper"
            )
        )
    return known


def _nearest(name: str, names: list[str]) -> str:
    """Return the known name that this one was probably meant to be, or nothing; prefixes may be left out."""
    if len(name) > SHOWN_CHARACTERS:
        return ""
    from difflib import get_close_matches

    written = {form: known for known in names for form in (_PREFIX.sub("", known), known)}
    full = get_close_matches(name.lower(), written, n=1, cutoff=0.7)
    bare = get_close_matches(_PREFIX.sub("", name.lower()), written, n=1, cutoff=0.6)
    return next((written[match] for match in [*full, *bare]), "")


def _blank(value: object) -> bool:
    """Whether a value stands for a key that was left out: null, or text of nothing but white space."""
    return value is None or (isinstance(value, str) and not value.strip())


def _shown(name: str, value: object) -> str:
    """Return a value as the file has it, cut to a length; nothing for one that is missing, nested or may be secret."""
    if value is None or isinstance(value, list | tuple):
        return ""
    if name in _SECRET_KEYS or (isinstance(value, str) and _SECRET_TEXT.search(value)):
        return "not shown, it may be a secret"
    return _cut(json.dumps(value, ensure_ascii=False))


def _shown_name(name: str) -> str:
    """Return a name of the file that is safe to print: an ordinary word as it is, else quoted, escaped and cut."""
    return (
        name if name.isascii() and name.isprintable() and 0 < len(name) <= SHOWN_CHARACTERS else _cut(json.dumps(name))
    )


def _cut(text: str) -> str:
    printable = "".join(
        letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text[: SHOWN_CHARACTERS + 1]
    )
    return printable if len(text) <= SHOWN_CHARACTERS else printable[:SHOWN_CHARACTERS] + "…"
