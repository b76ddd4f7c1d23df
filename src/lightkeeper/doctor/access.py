"""Who may do what on the device: the socket, the files that must be one's own, the certificates that are trusted."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from lightkeeper import paths
from lightkeeper.doctor.diagnosis import Diagnosis, failed, ok, refused, warning
from lightkeeper.errors import (
    AgentError,
    AgentUnreachable,
    Finding,
    SignatureRefused,
    SocketDenied,
    SocketError,
    SocketInUse,
    SocketStale,
)
from lightkeeper.modelpackage import roots
from lightkeeper.system import group_exists
from lightkeeper.transport import door
from lightkeeper.transport.door import Door

ANSWER_SECONDS = 5.0
"""How long an agent has to list its models."""


def socket(address: str, *, mode: int, group: str | None, models: Callable[[], int]) -> Diagnosis:
    """Whether an agent could serve this address, or one does; `models` asks it how many models are loaded.

    It looks as a starting agent does, and makes and removes nothing.
    """
    try:
        entrance = door.at(address)
    except SocketError as error:
        return refused(error)
    path = entrance.path.absolute()
    try:
        entrance.look()
    except SocketStale as error:
        return _stale(error)
    except SocketInUse:
        return _served(entrance, path, mode, models)
    except SocketError as error:
        return _not_yours(path) if _is_unreadable(entrance) else refused(error)
    return _free(entrance, path, mode, group)


def _free(entrance: Door, path: Path, mode: int, group: str | None) -> Diagnosis:
    """Judge a path that an agent could serve: whether those it is meant for could call it, and nobody takes it away."""
    what = _name(entrance)
    if group is not None and not group_exists(group):
        return failed(f"there is no group {group}", fix=f"groupadd --system {group}", reason=SocketDenied.reason)
    folder = path.parent.stat()
    if folder.st_mode & stat.S_IWOTH and not folder.st_mode & stat.S_ISVTX:
        return warning(
            f"everybody may remove files from {path.parent}, the {what} too",
            fix=f"chmod o-w {path.parent}, or let the {what} lie in /run/lightkeeper",
            facts={"path": path},
        )
    callers = mode & entrance.callers
    closed = _closed_folder(path, callers)
    if closed is not None:
        return warning(
            f"the {what}'s mode {mode:04o} lets others call, and {closed} does not let them through",
            fix=f"chmod {'g' if not callers & stat.S_IRWXO else 'go'}+x {closed}",
            facts={"path": path},
        )
    return ok(
        f"{path} can be served; no agent does",
        facts={"path": path, "mode": f"{mode:04o}", "group": group or "the agent's own"},
    )


def _stale(error: SocketStale) -> Diagnosis:
    """A killed agent's file: the service starts with `-f` and takes it away; by hand nobody does."""
    return warning(
        error.message, fix="start the agent with -f, as its service does", reason=error.reason, facts=error.facts
    )


def _served(entrance: Door, path: Path, mode: int, models: Callable[[], int]) -> Diagnosis:
    facts = _rights(path)
    if entrance.token is None and not os.access(path, os.W_OK):
        return _not_yours(path)
    try:
        count = models()
    except AgentUnreachable as error:
        if entrance.token is None:
            return refused(error)
        return warning(
            f"{path} tells of an agent that has ended: another program listens on its port",
            fix="start the agent with -f, as its service does",
            reason=SocketStale.reason,
            facts=facts,
        )
    except AgentError as error:
        return refused(error)
    if entrance.token is not None and int(facts["mode"], 8) & ~mode & entrance.callers:
        return warning(
            f"{path} has the mode {facts['mode']}, which lets more callers in than the configuration's {mode:04o}",
            fix=f"chmod {mode:04o} {path}, and start the agent again: its token may have been read",
            facts=facts,
        )
    return ok(f"an agent serves {path}: {count} models loaded", facts={**facts, "models": count})


def _not_yours(path: Path) -> Diagnosis:
    return warning(
        f"an agent serves {path}, and you may not call it",
        fix="set lightkeeper_socket_mode to 0660 and lightkeeper_socket_group to a group that you are in",
        facts=_rights(path),
    )


def _is_unreadable(entrance: Door) -> bool:
    try:
        return entrance.token is not None and paths.is_file(entrance.path) and not os.access(entrance.path, os.R_OK)
    except OSError:  # in a folder that may not be entered, which the refusal tells
        return False


def _rights(path: Path) -> dict[str, str]:
    found = path.lstat()
    mode = f"{stat.S_IMODE(found.st_mode):04o}"
    return {"path": str(path), "mode": mode, "owner": str(found.st_uid), "group": str(found.st_gid)}


def _name(entrance: Door) -> str:
    return "socket" if entrance.token is None else "file"


def _closed_folder(path: Path, callers: int) -> Path | None:
    """Return a folder above the socket that keeps those out whom the socket's mode lets in, the highest first."""
    needed = (stat.S_IXGRP if callers & stat.S_IRWXG else 0) | (stat.S_IXOTH if callers & stat.S_IRWXO else 0)
    for folder in reversed(path.parents):
        if folder.stat().st_mode & needed != needed and not (needed == stat.S_IXGRP and _open_to_all(folder)):
            return folder
    return None


def _open_to_all(folder: Path) -> bool:
    return bool(folder.stat().st_mode & stat.S_IXOTH)


def file_modes(opened: Sequence[Finding]) -> Diagnosis:
    """Whether other users may change the configuration or read the device's key."""
    if opened:
        return warning(
            f"{opened[0].key} {opened[0].problem.partition(': run ')[0]}",
            fix="; ".join(finding.problem.rpartition("run ")[2] for finding in opened),
            facts={finding.key: finding for finding in opened},
        )
    return ok("nobody else may change the configuration or read the device's key")


def root_certificates(folder: Path, now: datetime) -> Diagnosis:
    """Whether the certificates that packages must chain to can be read, nobody may change them, and they are valid."""
    try:
        found = roots.load(folder)
    except SignatureRefused as error:
        return refused(error)
    ends = {f"{root.file}": root.certificate.not_valid_after_utc for root in found}
    facts = {"folder": folder, **{file: f"until {end:%Y-%m-%d}" for file, end in ends.items()}}
    out = [root.file for root in found if not _valid(root, now)]
    renew = "get the authority's new root certificate, without write bits; see whether the device's clock is right"
    if len(out) == len(found):
        return failed(f"no root certificate in {folder} is valid today", fix=renew, facts=facts)
    if out:
        return warning(f"not valid today: {', '.join(sorted(set(out)))}", fix=renew, facts=facts)
    if folder.stat().st_mode & stat.S_IWGRP:
        return warning(f"a group may put certificates into {folder}", fix=f"chmod g-w {folder}", facts=facts)
    return ok(f"{len(found)} trusted, the first until {min(ends.values()):%Y-%m-%d}", facts=facts)


def _valid(root: roots.Root, now: datetime) -> bool:
    return root.certificate.not_valid_before_utc <= now <= root.certificate.not_valid_after_utc
