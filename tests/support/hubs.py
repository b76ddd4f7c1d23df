"""Hubs that run in the test's own process or in one of their own, and clients of them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from lightkeeper.hub.folder import ADDRESSES, Addresses, read
from lightkeeper.hub.up import Hub, Options

NOWHERE = "http://127.0.0.1:9"
"""The S3 of hubs that need none."""


START_SECONDS = 120.0


class HubProcess:
    """`lightkeeper hub up` in a process of its own, on one port whenever it is started."""

    def __init__(self, folder: Path, *options: str, environment: Mapping[str, str] | None = None) -> None:
        """Take the hub's folder, which need not be there, and the command's options."""
        with socket.create_server(("127.0.0.1", 0)) as found:
            port = found.getsockname()[1]
        self.folder = folder
        self._command = [sys.executable, "-m", "lightkeeper", "hub", "up", str(folder), "--port", str(port), *options]
        self._environment = os.environ | dict(environment or {})
        self._log = folder.parent / f"{folder.name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Addresses:
        """Start, and wait until it is ready; a killed one's `hub.json` does not count."""
        (self.folder / ADDRESSES).unlink(missing_ok=True)
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log, env=self._environment)
        deadline = time.monotonic() + START_SECONDS
        while not (self.folder / ADDRESSES).exists():
            assert self.process.poll() is None, self.log()[-2000:]
            assert time.monotonic() < deadline, self.log()[-2000:]
            time.sleep(0.02)
        return read(self.folder)

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Ask it to end, or kill it."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(60)

    def log(self) -> str:
        """Return what it said."""
        return self._log.read_text()


class RunningHub:
    """A hub that answers until `stop`."""

    def __init__(self, folder: Path, **options: Any) -> None:
        """Start one with its state in the folder; `options` are those of `Options`."""
        self.hub = Hub(Options(folder=folder, **options))
        self.database = self.hub.database
        self.api = self.hub.api
        self.addresses = self.hub.start()
        self.endpoint = self.addresses.endpoint

    def client(self, service: str, **options: Any) -> Any:
        """Return a boto3 client with the operator's key; it makes one attempt a call."""
        return client(self.addresses, service, **options)

    def close(self) -> None:
        """End the hub."""
        self.hub.stop()


def client(addresses: Addresses, service: str, **options: Any) -> Any:
    """Return a boto3 client of a hub with the operator's key, unless the options say otherwise."""
    given = {
        "region_name": addresses.region,
        "endpoint_url": addresses.endpoint,
        "aws_access_key_id": addresses.access_key_id,
        "aws_secret_access_key": addresses.secret_access_key,
    } | options
    config = Config(retries={"total_max_attempts": 1}).merge(given.pop("config", Config()))
    return boto3.client(service, config=config, **given)


def command(hub: Path, *arguments: str, folder: Path) -> tuple[int, str, str]:
    """Run `lightkeeper hub` for the hub in a folder, from another one; return its exit code and what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "lightkeeper", "hub", *arguments],
        cwd=folder,
        env={**os.environ, "LIGHTKEEPER_HUB": str(hub)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr
