"""What Lightkeeper costs a device: megabytes installed and packed, memory, and how soon it answers.

`make footprint` builds the archive first and writes docs/footprint.md. Times are medians of several starts; the
machine's load is told beside them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median

from bench import machine
from bench.workshop import Memory, Workshop
from lightkeeper.client import Client

REPOSITORY = Path(__file__).resolve().parent.parent
REQUIREMENTS = REPOSITORY / "requirements"
STARTS = 9
MB = 1_000_000
SKIPPED = ("pip", "setuptools", "pkg_resources", "_distutils_hack")  # what a new environment has anyway

LARGEST = 6
EXTRAS = {
    "aws": "provider `Aws`, buckets, `lightkeeper release publish`",
    "images": "pictures as inputs of `lightkeeper predict`",
    "parquet": "captures as Parquet",
    "compile": "preparing ONNX models, as the hub's compilation jobs do",
    "hub": "`lightkeeper hub`; it brings `aws` and `compile`",
}

IMPORTS = {
    "`lightkeeper --help`": "lightkeeper.cli",
    "the client": "lightkeeper.client",
    "the agent": "lightkeeper.agent",
}


def installed(folder: Path, extra: str = "") -> Counter[str]:
    """Install the locked requirements of the agent, with an extra or without; return what each part takes, in bytes."""
    environment = folder / f"venv-{extra or 'alone'}"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    pip = (environment / "bin" / "python", "-m", "pip", "--quiet", "--disable-pip-version-check", "install")
    wheel = next((REPOSITORY / "dist").glob("lightkeeper-*.whl"))
    constraint = folder / "locked.txt"
    lines = (REQUIREMENTS / "dev.txt").read_text(encoding="utf-8")
    constraint.write_text(
        "\n".join(line.split(" \\")[0] for line in lines.splitlines() if line and not line.startswith((" ", "#"))),
        encoding="utf-8",
    )
    subprocess.run([*pip, "--constraint", constraint, f"{wheel}[{extra}]" if extra else wheel], check=True)
    (site,) = (environment / "lib").glob("python3.*/site-packages")
    parts: Counter[str] = Counter()
    for entry in site.iterdir():
        if entry.name.startswith(SKIPPED):
            continue
        files = [entry] if entry.is_file() else entry.rglob("*")
        part = entry.name.split(".")[0].split("-")[0].lower()  # numpy.libs and numpy-2.0.dist-info belong to numpy
        parts[part] += sum(file.stat().st_size for file in files if file.is_file())
    return parts


def import_seconds(module: str) -> float:
    """Return how long a new interpreter takes to import a module, less its own start."""

    def start(code: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - started

    pairs = [(start(f"import {module}"), start("pass")) for _ in range(STARTS)]
    return median(whole - bare for whole, bare in pairs)


def from_archive(archive: Path, folder: Path) -> tuple[int, list[float], Memory]:
    """Unpack an archive, start its agent several times; return its size, seconds to the first answer, and memory."""
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    root = folder / archive.stem
    size_bytes = sum(path.stat().st_size for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    (folder / "workshop").mkdir()
    agent = [str(root / "bin" / "sagemaker_edge_agent_binary")]
    workshop = Workshop(folder / "workshop", names=("small",), agent=agent)
    answered: list[float] = []
    resident: list[Memory] = []
    for _ in range(STARTS):
        with workshop.agent() as server, Client(str(server.address)) as client:
            client.load_model(workshop.packages["small"], "small")
            client.predict("small", {"x": workshop.models["small"].input()})
            answered.append(time.perf_counter() - server.started_at)
            resident.append(server.memory())
            client.unload_model("small")  # else the next start would find it restored
    rss_bytes = int(median(memory.rss_bytes for memory in resident))
    pss_bytes = int(median(memory.pss_bytes for memory in resident))
    return size_bytes, answered, Memory(rss_bytes, pss_bytes)


def page(archive: Path) -> str:
    """Measure everything and return the page."""
    with tempfile.TemporaryDirectory(prefix="footprint-") as name:
        folder = Path(name)
        unpacked_bytes, answered, memory = from_archive(archive, folder)
        rows = (
            (
                "`pip install lightkeeper`, the agent alone, on the disk, with the bytecode that pip writes",
                (alone := installed(folder)).total() / MB,
                160,
                "MB",
            ),
            ("the archive, packed", archive.stat().st_size / MB, 60, "MB"),
            ("the archive, unpacked", unpacked_bytes / MB, None, "MB"),
            ("resident memory of the archive's agent, a small model loaded", memory.rss_bytes / MB, 100, "MB"),
            ("of it, its proportional share (PSS)", memory.pss_bytes / MB, None, "MB"),
            ("first answer after the start: verified, opened, run", median(answered), 0.6, "s"),
        )
        extras = {extra: installed(folder, extra).total() - alone.total() for extra in EXTRAS}
    lines = [
        "# Footprint",
        "",
        "Written by `make footprint`. Times are medians of nine starts.",
        "",
        *(f"- {key}: {value}" for key, value in machine.describe().items()),
        "",
        "| what | measured | limit | |",
        "|---|---:|---:|---:|",
    ]
    for what, value, limit, unit in rows:
        verdict = "" if limit is None else "met" if value <= limit else f"missed by {value - limit:.3g} {unit}"
        lines.append(f"| {what} | {value:.3g} {unit} | {'' if limit is None else f'{limit} {unit}'} | {verdict} |")
    lines += ["", "What the agent alone is made of; its two largest parts leave little of the limit:", ""]
    lines += ["| part | MB |", "|---|---:|"]
    lines += [f"| {part} | {size / MB:.0f} |" for part, size in alone.most_common(LARGEST)]
    lines += [f"| the other {len(alone) - LARGEST} | {sum(sorted(alone.values())[:-LARGEST]) / MB:.0f} |"]
    lines += ["", "| extra | more MB | for |", "|---|---:|---|"]
    lines += [f"| `{extra}` | {extras[extra] / MB:.0f} | {use} |" for extra, use in EXTRAS.items()]
    lines += ["", "| import of | seconds |", "|---|---:|"]
    lines += [f"| {what} (`{module}`) | {import_seconds(module):.3f} |" for what, module in IMPORTS.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and print or write the page."""
    parser = argparse.ArgumentParser(prog="python -m bench.footprint", description=__doc__)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--write", type=Path)
    args = parser.parse_args()
    text = page(args.archive)
    print(text) if args.write is None else args.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
