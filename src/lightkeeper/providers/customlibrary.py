"""The shared object of a Custom provider: its C functions, the layout of what they take, and the calls.

Invariants: one thread makes every call, in the order in which they were asked for; nothing the library hands out is
kept beyond the call; structures have the layout that a C compiler of this platform gives them. The library runs inside
this process: what crashes there ends the agent.
"""

from __future__ import annotations

import ctypes
import logging
import os
import stat
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from lightkeeper.errors import DestinationBusy, ProviderUnusable

CALL_SECONDS = 60.0
"""How long a caller waits for the library; after it the call goes on and the caller does not wait for it."""

DIMENSIONS = 32
MODEL_METRICS = 32
MOST_BYTES = 2**31 - 1
"""What fits into the `int` that says an object's size."""

REASON_BYTES = 1024
"""How much of a reason is told."""

log = logging.getLogger(__name__)


class Result(ctypes.Structure):
    """What every function returns, by value: an error value, and a text that may be null."""

    _fields_ = (("error", ctypes.c_int), ("reason", ctypes.c_char_p))


class Element(ctypes.Structure):
    """A key of the configuration with its value."""

    _fields_ = (("key", ctypes.c_char_p), ("value", ctypes.c_char_p))


class Registration(ctypes.Structure):
    """Whether the device is registered, and for how many seconds that holds."""

    _fields_ = (("active", ctypes.c_bool), ("ttl", ctypes.c_long))


class Dimension(ctypes.Structure):
    """What a metric is about."""

    _fields_ = (("key", ctypes.c_char * 64), ("val", ctypes.c_char * 256))


class Metric(ctypes.Structure):
    """A figure with its time in ISO 8601."""

    _fields_ = (
        ("metricName", ctypes.c_char * 101),
        ("metricValue", ctypes.c_double),
        ("timestamp", ctypes.c_char * 33),
        ("dimensions", Dimension * DIMENSIONS),
    )


class Model(ctypes.Structure):
    """A loaded model with its metrics."""

    _fields_ = (
        ("name", ctypes.c_char * 257),
        ("version", ctypes.c_char * 65),
        ("num_metrics", ctypes.c_int),
        ("metrics", Metric * MODEL_METRICS),
    )


FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "initProvider": (ctypes.POINTER(ctypes.c_void_p),),
    "shutdownProvider": (ctypes.c_void_p,),
    "initConfiguration": (ctypes.c_void_p, ctypes.POINTER(Element), ctypes.c_int),
    "initCloudClient": (ctypes.c_void_p,),
    "uploadSampleDataToCloud": (
        ctypes.c_void_p,
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_char_p,
    ),
    "sendHeartBeatToCloud": (
        ctypes.c_void_p,
        ctypes.POINTER(ctypes.POINTER(Model)),
        ctypes.c_int,
        ctypes.POINTER(ctypes.POINTER(Metric)),
        ctypes.c_int,
    ),
    "getDeviceRegistrationFromCloud": (ctypes.c_void_p, ctypes.POINTER(Registration)),
    "getNetworkStatus": (ctypes.c_void_p,),
}
"""The functions with their parameters; each returns a `Result`."""

Answer = tuple[int, str]
"""An error value, 0 for none, and the library's words for it."""


class Library:
    """A loaded shared object and the thread that calls it. Any thread may use it."""

    def __init__(self, path: Path, *, call_seconds: float = CALL_SECONDS) -> None:
        """Load it. Raises `ProviderUnusable`."""
        self._loaded = _load(path)
        self._context = ctypes.c_void_p()
        self._call_seconds = call_seconds
        self._started = False
        self._waiting: SimpleQueue[tuple[Future[Answer], Callable[[], Answer]] | None] = SimpleQueue()
        self._overdue: tuple[object, Future[Answer]] | None = None
        self._changing = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="custom-provider", daemon=True)
        self._thread.start()

    def start(self) -> Answer:
        """Have the library make its context."""
        answer = self.call("initProvider", ctypes.byref(self._context), context=False)
        self._started = answer[0] == 0
        return answer

    def call(self, function: str, *arguments: Any, context: bool = True, token: object = None) -> Answer:
        """Call a function and return its answer; see `run`."""
        return self.run(function, lambda: self.ask(function, *arguments, context=context), token=token)

    def ask(self, function: str, *arguments: Any, context: bool = True) -> Answer:
        """Call a function in this thread, which is the library's own inside of `run`."""
        given = (self._context, *arguments) if context else arguments
        result = getattr(self._loaded, function)(*given)
        return int(result.error), (result.reason or b"")[:REASON_BYTES].decode(errors="replace")

    def run(self, what: str, work: Callable[[], Answer], *, token: object = None) -> Answer:
        """Have the library's thread do some work, and return its answer.

        Raises `DestinationBusy` where it takes longer than a caller waits. Asked for again with the same `token`, work
        that went on is not begun anew: its answer is waited for, or returned.
        """
        with self._changing:
            overdue = self._overdue
            if overdue is not None and token is not None and overdue[0] == token:
                future = overdue[1]
            elif overdue is not None and not overdue[1].done():
                raise DestinationBusy("the provider's library has not returned from an earlier call", function=what)
            else:
                future = Future()
                self._waiting.put((future, work))
        try:
            answer = future.result(self._call_seconds)
        except TimeoutError:
            self._give_up(what, future, token)
            raise DestinationBusy(
                f"the provider's library did not return within {self._call_seconds:g} s", function=what
            ) from None
        with self._changing:
            if self._overdue is not None and self._overdue[1] is future:
                self._overdue = None
        return answer

    def end(self, seconds: float) -> None:
        """Have the library give up the context that it made, and end the thread; a call that hangs is left behind."""
        self._waiting.put((Future(), self._shut_down))
        self._waiting.put(None)
        self._thread.join(seconds)
        if self._thread.is_alive():
            log.warning("provider_not_shut_down", extra={"seconds": seconds})

    def _shut_down(self) -> Answer:
        return self.ask("shutdownProvider") if self._started else (0, "")

    def _give_up(self, what: str, future: Future[Answer], token: object) -> None:
        """Wait no longer; a call that was not begun is dropped, one that is under way is told of once."""
        with self._changing:
            if future.cancel() or (self._overdue is not None and self._overdue[1] is future):
                return
            self._overdue = (token, future)
        log.warning("provider_call_slow", extra={"function": what, "seconds": self._call_seconds})
        future.add_done_callback(lambda _: log.info("provider_call_returned", extra={"function": what}))

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            future, work = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(work())
            except Exception as fault:  # noqa: BLE001  # whoever waits for it gets it
                future.set_exception(fault)


def text(value: str, room_bytes: int) -> bytes:
    """Return a string as it fits into an array of chars with its end, cut between characters."""
    return value.replace("\0", "").encode()[: room_bytes - 1].decode(errors="ignore").encode()


def _load(path: Path) -> ctypes.CDLL:
    """Load a shared object: a file not everyone may change, for this machine, with every function.

    1. The file must be there, and not writable by everyone; 2. it must be of the machine's kind;
    3. the loader must take it with all it needs; 4. it must have every function.
    """
    where = str(path.absolute())
    try:
        mode = path.stat().st_mode
        with path.open("rb") as file:
            head = file.read(20)
    except OSError as error:
        raise _unusable(where, f"cannot be read: {error.strerror}") from error
    if stat.S_IMODE(mode) & stat.S_IWOTH:
        raise _unusable(where, "can be changed by every user of this device: run chmod o-w on it")
    if sys.platform == "linux":
        if head[:4] != b"\x7fELF":
            raise _unusable(where, "is not a shared object")
        own = _own_head()
        if (head[4:6], head[18:20]) != (own[4:6], own[18:20]):
            machine = int.from_bytes(head[18:20], "little" if head[5:6] == b"\1" else "big")
            raise _unusable(where, f"is for another machine (ELF machine {machine}, {head[4] * 32} bits)")
    try:
        loaded = ctypes.CDLL(where, mode=ctypes.RTLD_LOCAL | getattr(os, "RTLD_NOW", 0))
    except OSError as error:
        raise _unusable(where, f"cannot be loaded: {error}") from error
    missing = [name for name in FUNCTIONS if not hasattr(loaded, name)]
    if missing:
        raise _unusable(where, f"lacks the functions {', '.join(missing)}")
    for name, parameters in FUNCTIONS.items():
        function = getattr(loaded, name)
        function.argtypes, function.restype = parameters, Result
    return loaded


def _own_head() -> bytes:
    with Path("/proc/self/exe").open("rb") as file:
        return file.read(20)


def _unusable(where: str, problem: str) -> ProviderUnusable:
    return ProviderUnusable(f"the provider's library {where} {problem}", library=where)
