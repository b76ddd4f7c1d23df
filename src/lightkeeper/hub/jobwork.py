"""What a compilation and a packaging job do: fetch, have workers do the steps, put the artefact. All in one folder.

The hub's process moves bytes and never opens a model; the workers open models and have neither keys nor network.

An artefact carries the job's identity and its own digests as metadata. An attempt that finds the artefact of this very
job has nothing left to do: the one before it died after the put.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lightkeeper.errors import CompiledModelChanged, FrameworkUnsupported, JobUnknown
from lightkeeper.hub import declared, sandbox, targets
from lightkeeper.hub.jobs import Artifact, Job, Jobs, Kind
from lightkeeper.hub.sandbox import Confines
from lightkeeper.modelpackage.limits import GIB, Limits
from lightkeeper.objects import Address, Objects

CONTENT_TYPE = "application/gzip"
CHUNK_BYTES = 1024 * 1024
FACTS_MAXIMUM_BYTES = 1024
"""S3 takes 2 KB of metadata in all; facts beyond this are not kept there."""

EXPORTERS: Mapping[str, str] = {
    "DARKNET": "darknet2onnx, or a PyTorch port of the network with torch.onnx.export",
    "KERAS": "tf2onnx (python -m tf2onnx.convert --keras)",
    "MXNET": "mxnet.onnx.export_model",
    "PYTORCH": "torch.onnx.export",
    "SKLEARN": "skl2onnx (skl2onnx.to_onnx)",
    "TENSORFLOW": "tf2onnx (python -m tf2onnx.convert --saved-model)",
    "TFLITE": "tf2onnx (python -m tf2onnx.convert --tflite)",
    "XGBOOST": "onnxmltools (onnxmltools.convert_xgboost)",
}
"""The usual way from each framework to ONNX."""

_IDENTITY = "lightkeeper-job"
_FACTS = "lightkeeper-facts"
_DIGESTS = ("sha256", "sha1", "blake2b")
_ENDINGS = (".tar.gz", ".tgz", ".onnx")


@dataclass(frozen=True, slots=True)
class PackageSigner:
    """Whoever signs the hub's packages, in PEM: the key, its certificate with issuers, and the root devices trust."""

    key: str = field(repr=False)
    certificates: str
    root: str


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one job may take. `wall_seconds` bounds what the job itself asks for."""

    input_bytes: int = 2 * GIB
    unpacked_bytes: int = 4 * GIB
    memory_bytes: int = 4 * GIB
    wall_seconds: int = 3600

    @property
    def limits(self) -> Limits:
        """The limits on an archive."""
        return Limits(packed_bytes=self.input_bytes, unpacked_bytes=self.unpacked_bytes)


@dataclass(frozen=True, slots=True)
class Workshop:
    """What the work of jobs needs."""

    jobs: Jobs
    objects: Objects
    signer: Callable[[], PackageSigner]
    allowance: Allowance = Allowance()

    def work(self, job: Job, folder: Path, check: Callable[[], None]) -> Artifact:
        """Do a job in an empty folder, and return what it wrote.

        `check` is called all the while; what it raises ends the work. Raises an `AgentError`.
        """
        address = artifact_address(job)
        found = self._earlier(job, address)
        if found is not None:
            return found
        path, facts = (self._compile if job.kind is Kind.COMPILATION else self._package)(job, folder, check)
        artifact = Artifact(str(address), path.stat().st_size, **_digests(path, check), facts=facts)
        check()
        self.objects.put(
            address, path, content_type=CONTENT_TYPE, metadata=_metadata(job, artifact), advance=lambda _: check()
        )
        return artifact

    def _compile(self, job: Job, folder: Path, check: Callable[[], None]) -> tuple[Path, dict[str, str]]:
        given = job.request["InputConfig"]
        if given["Framework"] != "ONNX":
            raise FrameworkUnsupported(
                f"InputConfiguration: this hub takes ONNX models, not {given['Framework']}; export the model with "
                f"{EXPORTERS[given['Framework']]}",
                given=given["Framework"],
                expected="ONNX",
            )
        upload = Address.parse(given["S3Uri"])
        self._fetch(upload, folder, check)
        task = {
            "input": _INPUT,
            "file_name": upload.file_name,
            "shapes": declared.shapes(given.get("DataInputConfig")),
            "limits": asdict(self.allowance.limits),
            "about": {
                "job": job.name,
                "source": str(upload),
                "target": targets.word(job.request["OutputConfig"]),
            },
        }
        facts = self._step("compile", task, job, folder, check)
        return folder / _INSIDE["compile"], {name: facts[name] for name in ("inputs", "optimisation")}

    def _package(self, job: Job, folder: Path, check: Callable[[], None]) -> tuple[Path, dict[str, str]]:
        compiled = self.jobs.get(Kind.COMPILATION, job.request["CompilationJobName"])
        if compiled.artifact is None:
            raise JobUnknown(f"the compilation job {compiled.name} has no artefact", job=compiled.name)
        source = Address.parse(compiled.artifact.uri)
        self._fetch(source, folder, check)
        if _digests(folder / _INPUT, check)["sha256"] != compiled.artifact.sha256:
            raise CompiledModelChanged(
                f"{source} is not what the compilation job {compiled.name} wrote", uri=source, job=compiled.name
            )
        name, version = job.request["ModelName"], job.request["ModelVersion"]
        task = {
            "input": _INPUT,
            "file_name": source.file_name,
            "limits": asdict(self.allowance.limits),
            "name": name,
            "version": version,
            "target": asdict(targets.target(compiled.request["OutputConfig"])),
        }
        described = self._step("describe", task, job, folder, check)
        order = {"manifest": described["manifest"], **asdict(self.signer())}
        signed = self._step("sign", order, job, folder, check)
        return folder / _INSIDE["sign"] / f"{name}-{version}.tar.gz", {"digest": signed["digest"]}

    def _fetch(self, address: Address, folder: Path, check: Callable[[], None]) -> None:
        limit_bytes = self.allowance.input_bytes
        self.objects.fetch(address, folder / _INPUT, limit_bytes=limit_bytes, advance=lambda _: check())

    def _step(
        self, step: str, task: Mapping[str, Any], job: Job, folder: Path, check: Callable[[], None]
    ) -> dict[str, str]:
        asked = job.request.get("StoppingCondition", {}).get("MaxRuntimeInSeconds", self.allowance.wall_seconds)
        confines = Confines(
            memory_bytes=self.allowance.memory_bytes,
            file_bytes=self.allowance.unpacked_bytes,
            wall_seconds=min(asked, self.allowance.wall_seconds),
        )
        return sandbox.run(step, task, folder, confines, check)

    def _earlier(self, job: Job, address: Address) -> Artifact | None:
        """Return the artefact if an earlier attempt of this very job has put it."""
        if job.attempt == 1:
            return None
        found = self.objects.look(address)
        if found is None or found.metadata.get(_IDENTITY) != job.identity or _FACTS not in found.metadata:
            return None
        digests = {name: found.metadata[name] for name in _DIGESTS}
        return Artifact(str(address), found.size_bytes, **digests, facts=json.loads(found.metadata[_FACTS]))


_INPUT = "input"
_INSIDE = {"compile": "artifact.tar.gz", "sign": "package"}


def artifact_address(job: Job) -> Address:
    """Return where a job's artefact goes. Raises `ObjectAddressInvalid`."""
    place = Address.parse_prefix(job.request["OutputConfig"]["S3OutputLocation"])
    if job.kind is Kind.PACKAGING:
        return place.below(f"{job.request['ModelName']}-{job.request['ModelVersion']}.tar.gz")
    stem = Address.parse(job.request["InputConfig"]["S3Uri"]).file_name
    for ending in _ENDINGS:
        stem = stem.removesuffix(ending)
    return place.below(f"{stem}-{targets.word(job.request['OutputConfig'])}.tar.gz")


def _metadata(job: Job, artifact: Artifact) -> dict[str, str]:
    metadata = {_IDENTITY: job.identity, **{name: getattr(artifact, name) for name in _DIGESTS}}
    facts = json.dumps(artifact.facts)
    return {**metadata, _FACTS: facts} if len(facts) <= FACTS_MAXIMUM_BYTES else metadata


def _digests(path: Path, check: Callable[[], None]) -> dict[str, str]:
    """Return a file's digests in hexadecimal: SHA-256, the SHA-1 of deployments and the BLAKE2 of compilation jobs."""
    sums = (hashlib.sha256(), hashlib.sha1(usedforsecurity=False), hashlib.blake2b(digest_size=32))
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            check()
            for each in sums:
                each.update(chunk)
    return dict(zip(_DIGESTS, (each.hexdigest() for each in sums), strict=True))
