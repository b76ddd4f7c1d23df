"""A hub as a process of its own: signals, and the machine's limits."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable

from lightkeeper.hub.folder import Addresses
from lightkeeper.hub.up import Hub, Options

_ENDING = (signal.SIGTERM, signal.SIGINT)


def run(options: Options, when_ready: Callable[[Addresses], None]) -> None:
    """Run a hub until a signal ends it. Raises what `Hub` and its start raise.

    Signals are not blocked, since children would inherit that: the byte that Python's own handler writes is waited for.
    """
    _open_files()
    waiting, woken = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    os.set_blocking(waiting, True)
    signal.set_wakeup_fd(woken)
    for number in _ENDING:
        signal.signal(number, lambda *_: None)
    hub = Hub(options)
    try:
        when_ready(hub.start())
        os.read(waiting, 1)
    finally:
        hub.stop()


def _open_files() -> None:
    """Let this process have as many connections as the system lets it have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
