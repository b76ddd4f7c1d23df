"""The machine: its processor, its C library, and whether what runs models starts on it."""

from __future__ import annotations

import faulthandler
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from lightkeeper.doctor.diagnosis import Diagnosis, failed, ok, skipped, warning
from lightkeeper.modelpackage.target import architecture

GLIBC_LEAST = (2, 28)
"""What the wheels of ONNX Runtime, and with them the archives, ask for."""

START_SECONDS = 60.0
"""How long the start of what runs models may take; on a slow flash disk it reads 100 MiB for the first time."""

NEEDED = {
    "x86_64": ("cx16", "lahf_lm", "popcnt", "ssse3", "sse4_1", "sse4_2"),  # numpy's wheels: x86-64-v2
    "aarch64": ("asimd",),
}
"""Without one of these nothing starts, by the words of /proc/cpuinfo."""

QUICKENING = {"x86_64": ("avx2", "fma"), "aarch64": ("asimddp",)}
"""ONNX Runtime has quicker ways for a processor with these, and takes slower ones without."""

CPUINFO = Path("/proc/cpuinfo")

_POLL_SECONDS = 0.02
_FLAGS = re.compile(r"^(?:flags|Features)\s*:(.*)$", re.MULTILINE)
_MODEL = re.compile(r"^(?:model name|Model|Hardware)\s*:\s*(.*)$", re.MULTILINE)


def processor(machine: str, cpuinfo: Path = CPUINFO) -> Diagnosis:
    """Hold the processor against what ONNX Runtime, numpy and the wire were built for."""
    kind = architecture(machine)
    if kind not in NEEDED:
        return failed(
            f"there is no ONNX Runtime for a processor of the kind {machine}",
            fix="use a device with a 64-bit system: x86-64, or ARMv8",
            facts={"architecture": machine},
        )
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        return skipped(f"{cpuinfo} cannot be read: {error.strerror}")
    flags = _FLAGS.search(text)
    if flags is None:
        return skipped(f"{cpuinfo} does not list what the processor can do")
    has = set(flags[1].split())
    model = _MODEL.search(text)
    facts = {"architecture": kind, "model": model[1].strip() if model else "unknown"}
    missing = [word for word in NEEDED[kind] if word not in has]
    if missing:
        return failed(
            f"the processor lacks {', '.join(missing)}: nothing that runs models starts on it",
            fix="use a processor of x86-64-v2 (from about 2009) or ARMv8; in a virtual machine, pass the host's on",
            facts={**facts, "missing": " ".join(missing)},
        )
    slow = [word for word in QUICKENING[kind] if word not in has]
    if slow and kind == "x86_64":
        return warning(
            f"the processor lacks {', '.join(slow)}: models run, several times slower than they could",
            fix="in a virtual machine, pass the host's processor on; else measure your models before you rely on it",
            facts={**facts, "missing": " ".join(slow)},
        )
    said = f"; without {', '.join(slow)}, models in 8 bits gain little" if slow else ""
    return ok(f"{kind}, with all that is needed{said}", facts=facts)


def system_library(version: str | None) -> Diagnosis:
    """Hold the C library's version, such as `glibc 2.31`, against what is needed; None where it is another library."""
    need = ".".join(map(str, GLIBC_LEAST))
    fix = f"use a system with glibc {need} or later: Debian 10, Ubuntu 18.10, RHEL 8 or newer"
    found = re.fullmatch(r"glibc (\d+)\.(\d+)(?:\.\d+)?", version or "")
    if found is None:
        return failed("the C library is not glibc (Alpine has musl): no ONNX Runtime is built for it", fix=fix)
    if (int(found[1]), int(found[2])) < GLIBC_LEAST:
        return failed(f"{version} is older than {need}", fix=fix, facts={"version": version})
    return ok(f"{version}, {need} is needed", facts={"version": version})


def glibc() -> str | None:
    """Return the C library's name and version, None where it does not say."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION")
    except (AttributeError, ValueError, OSError):
        return None


def starts(what: str, start: Callable[[], object], *, fix: str, seconds: float = START_SECONDS) -> Diagnosis:
    """Start something in a process of its own, so that an instruction this processor does not know ends only that."""
    if sys.platform == "win32":
        return skipped("there is no process to try it in on this system")
    began = time.monotonic()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _be_child(start, writing)
    os.close(writing)
    try:
        status = _ended(child, began + seconds)
        said = os.read(reading, 4096).decode(errors="replace") if status is not None else ""
    finally:
        os.close(reading)
    if status is None:
        return failed(f"{what} did not start within {seconds:g} s", fix=fix)
    if os.WIFSIGNALED(status):
        word = signal.Signals(os.WTERMSIG(status)).name
        return failed(f"{what} ends with {word} when it starts", fix=fix, facts={"signal": word})
    if status:
        return failed(f"{what} does not start: {said}", fix=fix)
    return ok(f"{what} starts: {said}" if said else f"{what} starts")


def _be_child(start: Callable[[], object], writing: int) -> None:
    """Start it, tell what it says, and end without anything of the parent's."""
    code = 1
    try:
        faulthandler.disable()
        silent = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silent, stream)
        said = str(start() or "")
        code = 0
    except BaseException as fault:  # noqa: BLE001  # whatever it is, the parent tells it
        said = f"{type(fault).__name__}: {fault}"
    os.write(writing, said.encode()[:4096])
    os._exit(code)


def _ended(child: int, deadline: float) -> int | None:
    """Wait for a process and return its status; one that takes too long is ended, for None."""
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(_POLL_SECONDS)
