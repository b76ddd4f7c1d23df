"""A Debian that is booted: systemd as its first process, in a container of systemd-nspawn.

The container has its own processes, mounts and, if wanted, network, which end with it; it ends with this process.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

BOOT_SECONDS = 60.0
STOP_SECONDS = 150.0
REBOOT = 133
"""How systemd-nspawn ends where whoever started it is to start it again."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def lacking() -> str:
    """Return what this machine lacks to boot one, and how to get it; empty if nothing."""
    if os.geteuid() != 0:
        return "needs root"
    if shutil.which("systemd-nspawn") is None:
        return "needs systemd-nspawn: apt-get install systemd-container"
    return ""


class Machine:
    """A root folder, and the machine that is booted from it."""

    def __init__(self, root: Path, environment: Mapping[str, str] | None = None, *, own_network: bool = True) -> None:
        """Take a root with systemd in it, and boot it.

        `environment` is that of commands which are run inside. Without a network of its own it has this machine's.
        """
        self.root = root
        self._network = ("--private-network",) if own_network else ()
        self._environment = {"PATH": PATH, "LC_ALL": "C.UTF-8", **(environment or {})}
        self._console = root.with_name(f"{root.name}.console")
        self._boot()

    def run(self, *words: str, user: str = "root", code: int = 0) -> str:
        """Run a command inside as a user, and return what it says."""
        done = self._done(*words, user=user)
        assert done.returncode == code, f"{words} ended with {done.returncode}\n{done.stdout}\n{self.journal()}"
        return done.stdout

    def reboot(self) -> None:
        """Restart the machine, as `reboot` does, and wait until it is up."""
        before = self._first()
        self._done("systemctl", "reboot")
        deadline = time.monotonic() + STOP_SECONDS
        while self._process.poll() is None and self._first() in (None, before):
            assert time.monotonic() < deadline, self._console.read_text(errors="replace")[-3000:]
            time.sleep(0.1)
        if self._process.returncode == REBOOT:
            self._boot()
        else:
            self._wait_until_up()

    def close(self) -> None:
        """End the machine, in whatever state it is."""
        self._process.terminate()  # systemd-nspawn asks the first process inside to power off
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()  # and the kernel ends all that is inside
            self._process.wait()

    def unit(self, name: str) -> str:
        """Return a property of the agent's unit."""
        return self._done("systemctl", "show", "--value", "--property", name, "lightkeeper").stdout.strip()

    def journal(self) -> str:
        """Return what the agent's unit has said since the machine was booted."""
        return self._done("journalctl", "--unit", "lightkeeper", "--boot", "--no-pager", "--output", "cat").stdout

    def wait_until(self, condition: Callable[[], bool], what: str, seconds: float = BOOT_SECONDS) -> None:
        """Wait until a condition holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited for this in vain: {what}\n{self.journal()}"
            time.sleep(0.1)

    def _boot(self) -> None:
        # without a service manager there is no scope for it to be registered in
        alone = () if Path("/run/systemd/system").is_dir() else ("--register=no", "--keep-unit")
        words = ("--boot", "--directory", str(self.root), f"--machine=lightkeeper-{os.getpid()}", *self._network)
        with self._console.open("ab") as console:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", "systemd-nspawn", *words, "--console=read-only", *alone],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        try:
            self._wait_until_up()
        except BaseException:
            self.close()
            raise

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + BOOT_SECONDS
        while True:
            said = self._console.read_text(errors="replace")[-3000:]
            assert self._process.poll() is None, f"systemd-nspawn ended:\n{said}"
            assert time.monotonic() < deadline, f"not up after {BOOT_SECONDS:.0f} s:\n{said}"
            if self._first() is not None and self._done("systemctl", "is-system-running").stdout.strip() in (
                "running",
                "degraded",
            ):
                return
            time.sleep(0.1)

    def _first(self) -> int | None:
        """Return the first process inside, as the machine outside knows it."""
        try:
            (child,) = psutil.Process(self._process.pid).children()
        except (psutil.NoSuchProcess, ValueError):
            return None
        return child.pid

    def _done(self, *words: str, user: str = "root") -> subprocess.CompletedProcess[str]:
        namespaces = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd")
        as_user = () if user == "root" else ("runuser", "-u", user, "--")
        return subprocess.run(
            ["nsenter", "--target", str(self._first()), *namespaces, *as_user, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self._environment,
            timeout=180,
            check=False,
        )
