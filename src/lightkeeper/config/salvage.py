"""What a refused configuration says all the same: each key at fault gives way to its default or to a stand-in.

Only `lightkeeper doctor` reads on where the agent refuses to start: a device with one key mistyped may have a
certificate that has ended too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lightkeeper.config import document
from lightkeeper.config.check import OLDER_NAMES, Report, examine
from lightkeeper.config.model import Config, every_key, name_of

ROUNDS = 8
"""How often keys may give way: a rule between two keys is only judged once both are sound."""

_NOWHERE = "/nonexistent"
_STAND_INS = {
    name_of(field): value
    for field, value in {
        "device_name": "unknown",
        "device_fleet_name": "unknown",
        "root_certs_path": _NOWHERE,
        "provider": "None",
        "provider_path": _NOWHERE,
        "region": "unknown",
        "aws_ca_cert_file": _NOWHERE,
        "aws_cert_file": _NOWHERE,
        "aws_private_key": _NOWHERE,
        "aws_credential_endpoint": "unknown.invalid",
        "capture_disk_path": _NOWHERE,
        "bucket": "unknown",
    }.items()
}


@dataclass(frozen=True, slots=True)
class Salvaged:
    """A configuration to look at, never to run with. `unknown` are the fields whose value is not the file's."""

    report: Report
    config: Config | None
    unknown: frozenset[str] = frozenset()


def salvage(path: Path, environment: Mapping[str, str] = os.environ) -> Salvaged:
    """Return all of a file that can be understood. Raises `ConfigUnreadable` where it holds no JSON object."""
    members = document.read(path)
    first = report = examine(members, environment, source=str(path))
    given, gone = dict(members), set[str]()
    for _ in range(ROUNDS):
        if report.config is not None:
            break
        for fault in report.faults:
            gone.add(fault.key)
            for name in (fault.key, *(older for older, present in OLDER_NAMES.items() if present == fault.key)):
                given.pop(name, None)
            if fault.key in _STAND_INS:
                given[fault.key] = _STAND_INS[fault.key]
        report = examine(tuple(given.items()), environment)
    unknown = frozenset(key.field for key in every_key() if key.name in gone)
    return Salvaged(first, report.config and report.config.placed(path), unknown)
