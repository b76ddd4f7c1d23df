"""What a sound configuration needs of the device it is on: files that exist, folders that can be written.

The judgement is that of the user who asks, by the permissions of this moment; nothing is opened for writing or made.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from lightkeeper import paths
from lightkeeper.config.check import Report
from lightkeeper.config.model import Config, name_of
from lightkeeper.config.values import Provider
from lightkeeper.errors import Finding, SignatureRefused, TokenToolsMissing
from lightkeeper.system import HAS_MODES, group_exists
from lightkeeper.tokenkey import KeyAddress

WRITE_BY_OTHERS = 0o022
ANYTHING_BY_OTHERS = 0o077
OWNER_ALONE = 0o600


def survey(report: Report, file: Path, read_roots: Callable[[Path], object]) -> Report:
    """Return the report with what the device lacks for it; one that has faults already is returned as it is.

    `read_roots` reads the folder of root certificates as the agent will, and raises a `SignatureRefused`.
    """
    if report.config is None:
        return report
    faults = tuple(_faults(report.config, read_roots))
    warnings = (*report.warnings, *opened_to_others(report.config, file), *_without_effect(report.config))
    return replace(report, config=None if faults else report.config, faults=faults, warnings=warnings)


def _faults(config: Config, read_roots: Callable[[Path], object]) -> Iterator[Finding]:
    try:
        read_roots(config.root_certs_path)
    except SignatureRefused as error:
        yield Finding(name_of("root_certs_path"), f"is of no use yet: {error.message}; {error.next_step}")
    needed = ["provider_path"] if config.provider is Provider.CUSTOM else []
    if config.provider is Provider.AWS:
        needed += ["aws_ca_cert_file", "aws_cert_file"]
    problems = [(field, file_problem(getattr(config, field))) for field in needed]
    if config.provider is Provider.AWS and config.aws_private_key is not None:
        problems.append(("aws_private_key", _key_problem(config.aws_private_key)))
    yield from (Finding(name_of(field), problem) for field, problem in problems if problem)
    folders = {"state_path": config.state_path}
    if config.capture_disk_path and not config.captures_to_cloud:
        folders["capture_disk_path"] = config.capture_disk_path
    for field, folder in folders.items():
        problem = folder_problem(folder)
        if problem:
            yield Finding(name_of(field), problem)
    if HAS_MODES and config.socket_group is not None and not group_exists(config.socket_group):
        yield Finding(name_of("socket_group"), f"names no group of this device: {config.socket_group}")


def opened_to_others(config: Config, file: Path) -> Iterator[Finding]:
    """Yield what other users may do to the configuration's file or with the device's private key."""
    if _mode(file) & WRITE_BY_OTHERS:
        yield Finding(str(file), "can be changed by other users: run chmod go-w on it")
    secret = config.aws_private_key if config.provider is Provider.AWS else None
    if isinstance(secret, KeyAddress):
        secret = file if secret.pin_value is not None else secret.pin_file
    if secret is not None and _mode(secret) & ANYTHING_BY_OTHERS:
        problem = f"can be read or changed by other users: run chmod 600 {secret.absolute()}"
        yield Finding(name_of("aws_private_key"), problem)


def _without_effect(config: Config) -> Iterator[Finding]:
    """Yield what says who may call by means that this system has not."""
    if HAS_MODES:
        return
    for field, default in (("socket_mode", OWNER_ALONE), ("socket_group", None)):
        if getattr(config, field) != default:
            problem = "has no effect on this system: who runs the agent, and administrators, may call it"
            yield Finding(name_of(field), problem)


def _key_problem(key: Path | KeyAddress) -> str:
    """Return why a private key cannot be used, or nothing; a token is not asked, since it counts wrong PINs."""
    if isinstance(key, Path):
        return file_problem(key)
    if shutil.which("curl") is None:
        return f"is a key in a token, and there is no curl: {TokenToolsMissing.next_step}"
    problem = file_problem(key.pin_file) if key.pin_file else ""
    return problem and f"has a pin-source that {problem}"


def file_problem(path: Path) -> str:
    """Return why a file cannot be used, or nothing."""
    where = path.absolute()
    try:
        if paths.is_file(path):
            return "" if os.access(path, os.R_OK) else f"names a file that this user cannot read: {where}"
        return f"names something that is no file: {where}" if paths.exists(path) else f"names no file: {where}"
    except OSError as error:
        return f"names a file that cannot be reached: {where}: {error.strerror}"


def folder_problem(path: Path) -> str:
    """Return why a folder cannot be written or, where it is missing, made; or nothing."""
    absolute = path.absolute()
    try:
        present = paths.nearest(path)
        if not paths.is_folder(present):
            return f"needs a folder where a file lies: {present}"
    except OSError as error:
        return f"names a folder that cannot be reached: {absolute}: {error.strerror}"
    return "" if os.access(present, os.W_OK | os.X_OK) else f"needs a folder that this user cannot write to: {present}"


def _mode(path: Path) -> int:
    if not HAS_MODES:
        return 0
    try:
        return path.stat().st_mode
    except OSError:
        return 0
