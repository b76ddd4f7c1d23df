"""Makes every check of a device in its order.

A check whose keys the configuration has wrong, or that builds on one that failed, is skipped and says so. No check runs
longer than its bound; one that hangs is left behind in its thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from lightkeeper.config.model import name_of
from lightkeeper.config.salvage import Salvaged, salvage
from lightkeeper.doctor.check import Check, bounded
from lightkeeper.doctor.checks import Patient, checks
from lightkeeper.doctor.diagnosis import Diagnosis, Result, State, ok, refused, skipped, warning
from lightkeeper.errors import ConfigInvalid, ConfigUnreadable


def examine(patient: Patient, begin: Callable[[str], object] = lambda _: None) -> Iterator[Result]:
    """Yield the result of each check; `begin` is told the name of each before it starts."""
    began = time.monotonic()
    begin("configuration")
    salvaged, diagnosis = _configuration(patient.config_file)
    done = {"configuration": diagnosis}
    yield Result("configuration", diagnosis, time.monotonic() - began)
    for check in checks(patient, salvaged.config if salvaged else None):
        began = time.monotonic()
        begin(check.name)
        obstacle = _obstacle(check, done, salvaged)
        done[check.name] = skipped(obstacle) if obstacle else bounded(check)
        yield Result(check.name, done[check.name], time.monotonic() - began)


def _configuration(file: Path | None) -> tuple[Salvaged | None, Diagnosis]:
    if file is None:
        return None, skipped("no configuration was named, so only the machine is looked at: give -c FILE")
    try:
        found = salvage(file)
    except ConfigUnreadable as error:
        return None, refused(error)
    try:
        found.report.accepted()
    except ConfigInvalid as error:
        listed = "; ".join(f"{finding.key} {finding.problem}" for finding in error.faults)
        return found, replace(refused(error), found=f"{error.message}: {listed}")
    warnings = found.report.warnings
    if warnings:
        facts = {finding.key: str(finding) for finding in warnings}
        count = "one warning" if len(warnings) == 1 else f"{len(warnings)} warnings, the first"
        return found, warning(
            f"{file} is accepted, with {count}: {warnings[0].key} {warnings[0].problem}",
            fix=f"lightkeeper config check {file}",
            facts=facts,
        )
    return found, ok(f"{file} is accepted", facts={"file": file})


def _obstacle(check: Check, done: dict[str, Diagnosis], salvaged: Salvaged | None) -> str:
    """Return why a check cannot be made, or nothing."""
    if check.needs and salvaged is None:
        return "there is no configuration that says what to check"
    unknown = [name_of(field) for field in check.needs if salvaged and field in salvaged.unknown]
    if unknown:
        return f"the configuration is at fault in {', '.join(unknown)}"
    failures = [name for name in check.after if name in done and done[name].state is State.FAILED]
    return f"{' and '.join(failures)} failed" if failures else ""
