"""A PostgreSQL server of the tests' own, in a folder that goes with them, on a Unix socket alone."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

START_SECONDS = 60.0
MISSING = "PostgreSQL's server is not installed: apt-get install postgresql"
_PLACES = ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin")


class Postgres:
    """The server. Each database that is asked for is new and empty."""

    def __init__(self, programs: Path, *, durable: bool = False) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="lk-pg-", dir="/tmp"))  # a socket's path is short
        self._made = 0
        owner = _server_user()
        if owner is not None:
            os.chown(self._folder, owner.pw_uid, owner.pw_gid)
        options: dict[str, Any] = {} if owner is None else {"user": owner.pw_uid, "group": owner.pw_gid}
        data = self._folder / "data"
        words = ["-U", "hub", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions"]
        subprocess.run(
            [programs / "initdb", "-D", data, *words], check=True, capture_output=True, cwd=self._folder, **options
        )
        settings = (
            "listen_addresses=",
            f"unix_socket_directories={self._folder}",
            *(() if durable else ("fsync=off",)),
            "max_connections=200",
        )
        self._log = self._folder / "log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [programs / "postgres", "-D", data, *(word for one in settings for word in ("-c", one))],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                **options,
            )

    def wait_until_started(self) -> Postgres:
        """Wait until it takes connections."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                psycopg.connect(self._address("postgres")).close()
            except psycopg.OperationalError as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise AssertionError("PostgreSQL did not start") from error
                time.sleep(0.05)
            else:
                return self

    def database(self) -> str:
        """Make a database, and return its address as `--database` takes it."""
        self._made += 1
        name = f"hub{self._made}"
        with psycopg.connect(self._address("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self._address(name)

    def stop(self) -> None:
        """End the server; its data is thrown away."""
        self.process.send_signal(3)  # SIGQUIT: at once
        self.process.wait(30)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _address(self, name: str) -> str:
        return f"postgresql://hub@/{name}?host={self._folder}"


def installed() -> Path | None:
    """Return the folder of the server's programs, if there is one."""
    for place in _PLACES:
        for found in sorted(Path("/").glob(place), reverse=True):
            if (found / "initdb").is_file():
                return found
    return None


def installed_or_skip() -> Path:
    """Return the folder of the server's programs; without one the test is skipped, except on a build server."""
    found = installed()
    if found is not None:
        return found
    assert not os.environ.get("CI"), MISSING
    pytest.skip(MISSING)


def _server_user() -> pwd.struct_passwd | None:
    """Return whom the server runs as: it refuses to be root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise AssertionError("neither the user postgres nor nobody is there")
