"""Jobs while workers and whole hubs are killed or paused at any moment: each is done once, and what it wrote is whole.

The short form kills six times; `make test-job-crash` kills a hundred times.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import tarfile
import time
from collections import Counter
from pathlib import Path

import psutil

from lightkeeper.cli import run
from lightkeeper.hub.jobs import ATTEMPTS_MAXIMUM, ENDED, Job, Kind, Status
from tests.support import models
from tests.support.jobs import JobProcess, JobShop
from tests.support.seaweed import Seaweed

KILLS = int(os.environ.get("LIGHTKEEPER_JOB_KILLS", "6"))
SEED = int(os.environ.get("LIGHTKEEPER_JOB_SEED", str(random.SystemRandom().randrange(10**6))))
FRUITLESS_KILLS = 10 * KILLS
"""So often at most, where every strike fell between two jobs."""

LEASE_SECONDS = 2.0
STRIKES = 3
"""So often at most while one job is under way."""


class Chaos:
    """Two hubs on one queue, and whatever befalls them."""

    def __init__(self, shop: JobShop) -> None:
        self.shop = shop
        self.random = random.Random(SEED)  # noqa: S311 -- reproducible, not secret
        self.hubs = [shop.process(), shop.process()]
        self.ended: list[JobProcess] = []

    def strike(self) -> None:
        """Kill a worker, kill a hub and start another, or pause a hub until its leases have ended."""
        time.sleep(self.random.uniform(0.05, 0.9))
        place = self.random.randrange(len(self.hubs))
        hub = self.hubs[place]
        match self.random.choice(["worker", "worker", "hub", "hub", "pause"]):
            case "worker":
                for worker in hub.workers():
                    with contextlib.suppress(psutil.NoSuchProcess):
                        worker.kill()
            case "hub":
                hub.kill()
                self.ended.append(hub)
                self.hubs[place] = self.shop.process()
            case "pause":
                hub.process.send_signal(signal.SIGSTOP)
                time.sleep(LEASE_SECONDS * 1.2)
                hub.process.send_signal(signal.SIGCONT)

    def finish(self) -> None:
        """End both hubs as an operator does."""
        assert [hub.stop() for hub in self.hubs] == [0] * len(self.hubs)  # each is ended, whatever another one answers
        self.ended += self.hubs

    def completed(self) -> list[tuple[str, str]]:
        """Return every job that some hub says it completed."""
        return [
            (event["kind"], event["job"])
            for hub in self.ended
            for event in hub.events("job_ended")
            if event["how"] == "completed"
        ]


def test_jobs_survive_kills_of_workers_and_hubs(seaweed: Seaweed, tmp_path: Path) -> None:
    """Every job is COMPLETED once, with one whole artefact that a device trusts, and nothing is left lying about."""
    shop = JobShop(tmp_path, seaweed, lease_seconds=LEASE_SECONDS)
    uri = shop.upload(models.doubled(("n", 4)))
    jobs: list[Job] = []
    chaos = Chaos(shop)
    try:
        kills = 0
        while kills < KILLS or (kills < FRUITLESS_KILLS and all(job.attempt == 1 for job in jobs)):
            number = len(jobs) // 2
            shop.compile(f"c{number}", uri, '{"x": [1, 4]}')
            kills += struck(chaos, shop, Kind.COMPILATION, f"c{number}")
            jobs.append(shop.wait(Kind.COMPILATION, f"c{number}"))
            shop.package(f"p{number}", f"c{number}", f"model-{number}")
            kills += struck(chaos, shop, Kind.PACKAGING, f"p{number}")
            jobs.append(shop.wait(Kind.PACKAGING, f"p{number}"))
    finally:
        chaos.finish()
    assert [(job.name, job.status, job.reason) for job in jobs if job.status is not Status.COMPLETED] == [], SEED
    assert max(Counter(chaos.completed()).values()) == 1, SEED
    assert max(job.attempt for job in jobs) > 1, f"no job was hit with the seed {SEED}"
    for job in jobs:
        assert job.artifact is not None
        path = tmp_path / f"{job.name}.tar.gz"
        metadata = shop.fetch(job.artifact.uri, path)
        assert metadata["lightkeeper-job"] == job.identity
        assert metadata["sha256"] == job.artifact.sha256
        with tarfile.open(path) as archive:
            assert "model.onnx" in archive.getnames()
        if job.kind is Kind.PACKAGING:
            assert run(["verify", str(path), "--root-certs", str(shop.authority.root_certificate.parent)]) == 0
    listed = shop.client.list_objects_v2(Bucket=shop.bucket)["Contents"]
    assert len(listed) == 1 + len(jobs)
    assert shop.client.list_multipart_uploads(Bucket=shop.bucket).get("Uploads", []) == []
    shop.runner()  # the next start removes what killed hubs left
    assert list(shop.work_folder.iterdir()) == []
    shop.close()


def struck(chaos: Chaos, shop: JobShop, kind: Kind, name: str) -> int:
    """Strike while a job is under way, and return how often."""
    strikes = 0
    while strikes < STRIKES:
        job = shop.jobs.get(kind, name)
        if job.status in ENDED or job.attempt >= ATTEMPTS_MAXIMUM - 1:
            break
        chaos.strike()
        strikes += 1
    return strikes
