"""A real S3: SeaweedFS in one process, on free ports of the loopback."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ACCESS_KEY = "test-access"
SECRET_KEY = "test-secret"  # noqa: S105  # of a server that lives as long as the tests
REGION = "test-1"
START_SECONDS = 60.0

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/nonexistent",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
}
"""What a process needs to be let in."""

_PORTS = (
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port",
    "s3.port.grpc",
)


def free_ports(count: int) -> list[int]:
    """Return ports that nobody serves on the loopback just now."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


class Seaweed:
    """The server, with its data in a folder. It answers signed requests only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._log = folder / "weed.log"
        ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
        self.host, self.port = "127.0.0.1", ports["s3.port"]
        self.endpoint = f"http://{self.host}:{self.port}"
        identity = {
            "name": "tests",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        config = folder / "s3.json"
        config.write_text(json.dumps({"identities": [identity]}))
        (folder / "data").mkdir()
        program = Path(sys.executable).with_name("weed")
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    program,
                    "server",
                    f"-dir={folder / 'data'}",
                    "-s3",
                    f"-s3.config={config}",
                    "-s3.autoCreateBucket=false",
                    "-s3.port.iceberg=0",
                    "-s3.port.lance=0",
                    f"-s3.localSocket={folder / 's'}",
                    f"-filer.localSocket={folder / 'f'}",
                    "-ip=127.0.0.1",
                    "-ip.bind=127.0.0.1",
                    "-volume.max=200",
                    "-volume.preStopSeconds=0",
                    "-master.volumeSizeLimitMB=64",
                    *(f"-{name}={port}" for name, port in ports.items()),
                ],
                stdout=log,
                stderr=log,
                env=os.environ | {"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"},  # one volume a bucket, not seven
            )

    def wait_until_started(self) -> Seaweed:
        """Wait until an object can be put."""
        deadline = time.monotonic() + START_SECONDS
        while not self._takes_objects():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f"SeaweedFS did not start:\n{self._log.read_text(errors='replace')[-4000:]}")
            time.sleep(0.1)
        return self

    def client(self) -> Any:
        """Return a boto3 client that goes to the server itself."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            region_name=REGION,
            endpoint_url=self.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
        )

    def stop(self) -> None:
        """End the server; its data is thrown away anyway."""
        self.process.kill()
        self.process.wait(10)

    def _takes_objects(self) -> bool:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            urllib.request.urlopen(self.endpoint, timeout=1).close()  # noqa: S310  # our own server
        except urllib.error.HTTPError:
            pass  # it speaks, and asks for a signature
        except OSError:
            return False
        client = self.client()
        try:
            client.create_bucket(Bucket="probe")
            client.put_object(Bucket="probe", Key="probe", Body=b"probe")
        except (BotoCoreError, ClientError):
            return False
        else:
            return True
        finally:
            client.close()
