"""The process that does one step of a job: `python -m lightkeeper.hub.worker`, started by `sandbox.py` alone.

What a step opens comes from outside, and a model may do to its process what it likes. So this one has a folder, and
nothing else of value: no credentials, no database, and no network where the kernel lets it give that up. The step that
has the signing key opens no model. The order comes as JSON on stdin; the outcome is a file in the folder, which the
parent does not trust either.

Limits, set before anything is read of the folder: memory (address space), the size of a file, no core file. The kernel
ends this process with its parent, and before any other when memory runs out.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightkeeper.errors import AgentError, JobOutOfMemory, MemoryShort, ModelOutOfMemory

OUTCOME = "outcome.json"
MODEL_FOLDER = "model"

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000  # <linux/sched.h>
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _SIGKILL = 1, 4, 9  # <linux/prctl.h>, <signal.h>
_NICE = 10


def main() -> None:
    """Do the step that stdin orders, and leave the outcome."""
    order = json.load(sys.stdin)
    _confine(order["parent"], order["memory_bytes"], order["file_bytes"])
    folder = Path.cwd()
    outcome: dict[str, Any]
    try:
        outcome = {"facts": STEPS[order["step"]](folder, order["task"])}
    except (MemoryError, MemoryShort, ModelOutOfMemory):
        outcome = _refusal(JobOutOfMemory(f"the model needs more than {order['memory_bytes']} bytes of memory"))
    except AgentError as error:
        outcome = _refusal(error)
    beside = folder / f".{OUTCOME}"
    beside.write_text(json.dumps(outcome), encoding="utf-8")
    beside.replace(folder / OUTCOME)


def _compile(folder: Path, task: Mapping[str, Any]) -> dict[str, str]:
    from lightkeeper.hub.preparation import Upload, prepare
    from lightkeeper.modelpackage.limits import Limits

    upload = Upload(folder / task["input"], task["file_name"])
    done = prepare(upload, task["shapes"], folder, Limits(**task["limits"]), task["about"])
    return {
        "artifact": done.archive.name,
        "inputs": json.dumps({name: list(shape) for name, shape in done.inputs.items()}),
        "optimisation": done.optimisation,
    }


def _describe(folder: Path, task: Mapping[str, Any]) -> dict[str, str]:
    from lightkeeper import authoring
    from lightkeeper.hub.preparation import Upload, unpack
    from lightkeeper.modelpackage.limits import Limits
    from lightkeeper.modelpackage.target import Target

    found = unpack(Upload(folder / task["input"], task["file_name"]), folder / MODEL_FOLDER, Limits(**task["limits"]))
    label = authoring.Label(task["name"], task["version"], Target(**task["target"]))
    return {"manifest": authoring.draft(found, label, threads=1).manifest.to_json().decode()}


def _sign(folder: Path, task: Mapping[str, Any]) -> dict[str, str]:
    """Build the package, and verify it with the root that devices have before anybody sees it."""
    from lightkeeper.modelpackage import build
    from lightkeeper.modelpackage.manifest import Manifest
    from lightkeeper.modelpackage.package import PackageStore
    from lightkeeper.modelpackage.signature import Signer
    from lightkeeper.modelpackage.source import Source
    from lightkeeper.modelpackage.trustrecord import TrustRecord

    said = Manifest.parse(task["manifest"].encode())
    model = folder / MODEL_FOLDER
    files = {path.relative_to(model).as_posix(): path for path in sorted(model.rglob("*")) if path.is_file()}
    signer = Signer.parse(task["key"].encode(), task["certificates"].encode())
    path = build.build(build.Draft(Source(said.model, said.format, files), said), signer, folder / "package")
    roots = folder / "roots"
    roots.mkdir()
    (roots / "root.pem").write_text(task["root"], encoding="ascii")
    (roots / "root.pem").chmod(0o444)
    store = PackageStore(root_certs=roots, staging=folder / "staging", record=TrustRecord(None), host=None)
    with store.open(str(path)) as package:
        return {"artifact": path.relative_to(folder).as_posix(), "digest": package.digest}


STEPS: Mapping[str, Callable[[Path, Mapping[str, Any]], dict[str, str]]] = {
    "compile": _compile,
    "describe": _describe,
    "sign": _sign,
}


def _refusal(error: AgentError) -> dict[str, Any]:
    return {"reason": error.reason, "message": error.message, "facts": error.facts}


def _confine(parent: int, memory_bytes: int, file_bytes: int) -> None:
    import resource  # not on Windows, where no hub runs, though its modules can be imported

    for limit, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    os.nice(_NICE)
    if sys.platform == "linux":
        import ctypes

        kernel = ctypes.CDLL(None)
        with suppress(OSError):  # a container may forbid it; the limit on memory stands all the same
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
        if kernel.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0:  # not every kernel lets everybody do it
            kernel.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # what a new namespace takes from its operator's tools
        kernel.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)  # after what would have cleared it
    if os.getppid() != parent:
        sys.exit("the hub has ended")


if __name__ == "__main__":
    main()
