"""A queue of jobs with a real S3, and processes that work it off: what a hub does of jobs, without its API."""

from __future__ import annotations

import json
import logging
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from lightkeeper import logs
from lightkeeper.hub.database import Database
from lightkeeper.hub.jobrunner import JobRunner
from lightkeeper.hub.jobs import ENDED, Job, Jobs, Kind
from lightkeeper.hub.jobwork import Allowance, PackageSigner, Workshop
from lightkeeper.modelpackage import authority
from lightkeeper.objects import Address, Objects
from lightkeeper.providers.aws import Credentials
from tests.support.seaweed import ACCESS_KEY, REGION, SECRET_KEY, Seaweed

STARTED = "job_process_started"
START_SECONDS = 60.0

ROLE = "arn:aws:iam::000000000000:role/edge"
WAIT_SECONDS = 60.0


def now_ms() -> int:
    """Return the time."""
    return time.time_ns() // 1_000_000


@dataclass
class JobShop:
    """A folder with a database and an authority, and a bucket."""

    folder: Path
    seaweed: Seaweed
    lease_seconds: float = 30.0
    bucket: str = ""
    """One that is there; without a name one is made."""

    def __post_init__(self) -> None:
        """Make the bucket and the authority."""
        self.client = self.seaweed.client()
        if not self.bucket:
            self.bucket = f"jobs-{secrets.token_hex(4)}"
            self.client.create_bucket(Bucket=self.bucket)
        self.url = f"sqlite:///{self.folder / 'hub.db'}"
        self.database = Database(self.url)
        self.jobs = Jobs(self.database, now_ms, self.lease_seconds)
        self.authority = authority.create(self.folder / "ca", "test-1", datetime.now(UTC))
        self.objects = Objects(self.seaweed.endpoint, REGION, Credentials(ACCESS_KEY, SECRET_KEY))
        self.work_folder = self.folder / "work"

    def signer(self) -> PackageSigner:
        """Return who signs."""
        made = self.authority
        return PackageSigner(
            *(p.read_text() for p in (made.signer_key, made.signer_certificate, made.root_certificate))
        )

    def runner(self, objects: Objects | None = None, allowance: Allowance = Allowance()) -> JobRunner:  # noqa: B008 -- frozen
        """Return what works the queue off in this process."""
        workshop = Workshop(self.jobs, objects or self.objects, self.signer, allowance)
        return JobRunner(workshop, self.work_folder, poll_seconds=0.05)

    def upload(self, data: bytes, key: str = "in/model.onnx") -> str:
        """Put an object, and return its address."""
        self.client.put_object(Bucket=self.bucket, Key=key, Body=data)
        return f"s3://{self.bucket}/{key}"

    def compile(self, name: str, uri: str, config: str | None = None, **changed: Any) -> None:
        """Put a compilation job into the queue."""
        request = {
            "RoleArn": ROLE,
            "InputConfig": {"S3Uri": uri, "Framework": "ONNX"} | ({"DataInputConfig": config} if config else {}),
            "OutputConfig": {"S3OutputLocation": f"s3://{self.bucket}/out/{name}", "TargetDevice": "jetson_nano"},
            "StoppingCondition": {"MaxRuntimeInSeconds": 900},
        }
        self.jobs.create(Kind.COMPILATION, name, request | changed)

    def package(self, name: str, compiled: str, model: str = "model", version: str = "1.0") -> None:
        """Put a packaging job into the queue."""
        request = {
            "CompilationJobName": compiled,
            "ModelName": model,
            "ModelVersion": version,
            "RoleArn": ROLE,
            "OutputConfig": {"S3OutputLocation": f"s3://{self.bucket}/packages/"},
        }
        self.jobs.create(Kind.PACKAGING, name, request, model_name=model)

    def run(self, kind: Kind, name: str, runner: JobRunner | None = None) -> Job:
        """Do the one job that waits, as soon as it is due, in this process, and return how it ended."""
        runner = runner or self.runner()
        deadline = time.monotonic() + WAIT_SECONDS
        while not runner.run_one(threading.Event()):
            assert time.monotonic() < deadline, self.jobs.get(kind, name)
            time.sleep(0.05)
        return self.jobs.get(kind, name)

    def wait(self, kind: Kind, name: str, until: Callable[[Job], bool] = lambda job: job.status in ENDED) -> Job:
        """Wait for a job that a process works on."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not until(job := self.jobs.get(kind, name)):
            assert time.monotonic() < deadline, job
            time.sleep(0.02)
        return job

    def fetch(self, uri: str, path: Path) -> Mapping[str, str]:
        """Bring an artefact into a file, and return its metadata."""
        address = Address.parse(uri)
        answer = self.client.get_object(Bucket=address.bucket, Key=address.key)
        path.write_bytes(answer["Body"].read())
        metadata: Mapping[str, str] = answer["Metadata"]
        return metadata

    def process(self) -> JobProcess:
        """Start a process that works the queue off."""
        return JobProcess(self)

    def close(self) -> None:
        """Let go of the database."""
        self.database.close()


class JobProcess:
    """A process with a runner, as a hub has it; and the workers it starts."""

    def __init__(self, shop: JobShop) -> None:
        made = shop.authority
        order = {
            "url": shop.url,
            "work": str(shop.work_folder),
            "lease_seconds": shop.lease_seconds,
            "endpoint": shop.seaweed.endpoint,
            "signer": [str(p) for p in (made.signer_key, made.signer_certificate, made.root_certificate)],
        }
        self.log = shop.folder / f"process-{secrets.token_hex(4)}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.jobs", json.dumps(order)],
                stderr=log,
                cwd=Path(__file__).resolve().parents[2],
            )

    def workers(self) -> list[psutil.Process]:
        """Return the workers that run now."""
        try:
            return psutil.Process(self.process.pid).children()
        except psutil.NoSuchProcess:
            return []

    def stop(self) -> int:
        """Ask it to end, and return its exit code; one that was just started is let come to where it can be asked."""
        self.process.send_signal(signal.SIGCONT)
        deadline = time.monotonic() + START_SECONDS
        while self.process.poll() is None and not self.events(STARTED):
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)
        self.process.terminate()
        return self.process.wait(30)

    def kill(self) -> None:
        """End it without asking."""
        self.process.kill()
        self.process.wait(30)

    def events(self, word: str) -> list[dict[str, Any]]:
        """Return what it logged under an event word."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("event") == word]


def main(order: Mapping[str, Any]) -> None:
    """Work a queue off until SIGTERM."""
    logs.configure("INFO", logs.Style.JSON)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    logging.getLogger("lightkeeper").info(STARTED)
    database = Database(order["url"])
    jobs = Jobs(database, now_ms, order["lease_seconds"])
    objects = Objects(order["endpoint"], REGION, Credentials(ACCESS_KEY, SECRET_KEY))
    signer = PackageSigner(*(Path(path).read_text() for path in order["signer"]))
    workshop = Workshop(jobs, objects, lambda: signer, Allowance())
    JobRunner(workshop, Path(order["work"]), poll_seconds=0.05).run(stop)
    database.close()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))


def wait_for(describe: Callable[[], dict[str, Any]], status: str) -> dict[str, Any]:
    """Wait until a job that the hub describes has ended, and return its description."""
    deadline = time.monotonic() + WAIT_SECONDS
    while (job := describe())[status] in {"STARTING", "INPROGRESS"}:
        assert time.monotonic() < deadline, job
        time.sleep(0.1)
    return job
