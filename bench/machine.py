"""Where and with what a run was made."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import psutil

from bench import load
from lightkeeper import __version__
from lightkeeper.agent import transports
from lightkeeper.config.values import Transport
from lightkeeper.resources import usable_cpus

QUIET_LOAD = 0.5
BUSY = "other work was under way, so ratios hold, and times in seconds are longer than on a quiet machine"
PACKAGES = ("onnxruntime", "grpcio", "protobuf", "numpy")


def describe(transport: Transport = Transport.AUTO) -> dict[str, str]:
    """Return what a reader needs to judge the figures, in the order it is shown."""
    described = {
        "processor": f"{_processor()}, {usable_cpus()} of {os.cpu_count()} usable",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "Python": platform.python_version(),
        "lightkeeper": f"{__version__}, with the {transports.chosen(transport)} transport",
        **{name: version(name) for name in PACKAGES},
        "h2load": _h2load(),
    }
    return described | {"load average before": _load_average()}


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _h2load() -> str:
    if not load.has_h2load():
        return "not installed"
    return subprocess.run(["h2load", "--version"], check=True, capture_output=True, text=True).stdout.strip()


def _load_average() -> str:
    """Return the load before the run, with a warning where other work makes every time longer than it is."""
    load_average = os.getloadavg()[0]
    busy = f": {BUSY}" if load_average > QUIET_LOAD else ""
    return f"{load_average:.1f} in the last minute{busy}"
