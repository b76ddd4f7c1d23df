"""The demo: three signed models, one agent, a scanned page whose text is read through it, and a forgery refused.

Everything it makes lies in one folder, which it makes anew on each run; it touches nothing else. It exits with 1, and
says why, unless every step did what it should.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lightkeeper.client import Client
from lightkeeper.errors import AgentError, FileChanged
from lightkeeper.resources import usable_cpus

if TYPE_CHECKING:
    from demo.ocr import Line, PredictSession, Stage

MARKER = ".made-by-the-demo"
START_SECONDS = 30
STOP_SECONDS = 30
MB = 1_000_000

console = Console(highlight=False, soft_wrap=True)


class DemoError(Exception):
    """A step did not do what it should."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What loading a model took: seconds, and by how many bytes the agent's resident memory grew."""

    seconds: float
    memory_bytes: int


def main() -> int:
    """Run the demo and return the exit code."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("build/demo"), help="where everything goes (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="how often the page is read (%(default)s)")
    arguments = parser.parse_args()
    started = time.monotonic()
    try:
        run(arguments.folder, max(1, arguments.rounds))
    except (DemoError, AgentError, OSError, subprocess.TimeoutExpired) as error:
        text = error.diagnostics() if isinstance(error, AgentError) else str(error)
        console.print(f"\n[bold red]The demo failed:[/] {escape(text)}")
        return 1
    except KeyboardInterrupt:
        return 130
    console.print(
        f"\n[bold green]Done[/] in {time.monotonic() - started:.0f} s. All it made lies in {arguments.folder}"
    )
    return 0


def run(folder: Path, rounds: int) -> None:
    """Go through the steps. Raises `DemoError` or an `AgentError`."""
    make_anew(folder)
    page = folder / "page.png"
    page.write_bytes((files("skimage") / "data/page.png").read_bytes())
    threads = usable_cpus()

    step("Make a certificate authority; package and sign the three models that rapidocr ships")
    from demo.ocr import STAGES, PageReader  # takes its seconds, so the title stands first

    lightkeeper("ca", "init", folder / "authority", "--region", "demo")
    packages = {stage.model: package(stage, folder) for stage in STAGES}

    step("Start the agent on a Unix socket; it trusts that authority alone")
    with agent_running(folder, threads) as agent, Client(str(folder / "agent.sock")) as client:
        step("Load the models: each is verified, opened, and run on a sample whose output must come out as signed")
        costs = {model: load(client, agent, model, archive) for model, archive in packages.items()}
        console.print(f"loaded: {', '.join(model.name for model in client.list_models())}")

        step(f"Read the text of {page}, every model run by the agent (in front: how sure the recognition is)")
        reader = PageReader(threads)
        expected = reader.read(page)  # in this process: what the agent's answers must lead to
        sessions = reader.hand_over(client)
        for _ in range(rounds):
            lines = reader.read(page)
            check_same_text(lines, expected)
        for line in lines:
            console.print(f"  [dim]{line.confidence:4.0%}[/]  [bold cyan]{escape(line.text)}[/]")
        console.print("[green]The text equals, letter for letter, what the models give in the demo's own process.[/]")

        step("What each model cost")
        console.print(cost_table(sessions, costs))
        console.print(
            "The first load brings ONNX Runtime into memory too. "
            f"After these calls the agent holds {resident_bytes(agent) / MB:.0f} MB in all."
        )

        step("Flip one byte of a signed model, and try to load it")
        console.print(f"[red]refused[/] {escape(load_forgery(client, packages['text-orientation'], folder))}")

        step("Stop the agent with SIGTERM")
    console.print("The agent finished its calls, removed its socket and ended with exit code 0.")


def make_anew(folder: Path) -> None:
    """Make the demo's folder; only one that an earlier run made is removed first."""
    if folder.exists():
        if not (folder / MARKER).is_file():
            raise DemoError(f"{folder} was not made by the demo; move it away, or choose another with --folder")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / MARKER).touch()


def lightkeeper(*arguments: object) -> None:
    """Show and run a command of Lightkeeper."""
    words = [str(argument) for argument in arguments]
    console.print(f"[dim]$[/] lightkeeper {escape(shlex.join(words))}")
    done = subprocess.run([sys.executable, "-m", "lightkeeper", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise DemoError(f"the command ended with exit code {done.returncode}:\n{done.stderr}")


def package(stage: Stage, folder: Path) -> Path:
    """Package and sign a stage's model with a golden input, whose output every device must reproduce."""
    model, golden = folder / "models" / stage.file.name, folder / "models" / f"{stage.model}.npz"
    model.parent.mkdir(exist_ok=True)
    shutil.copyfile(stage.file, model)
    np.savez(golden, x=np.random.default_rng(seed=0).random(stage.shape, np.float32))
    what = ("--name", stage.model, "--version", stage.version, "--golden-input", golden)
    lightkeeper("package", model, *what, "--signer", folder / "authority", "--output", folder / "packages")
    return folder / "packages" / f"{stage.model}-{stage.version}.tar.gz"


@contextmanager
def agent_running(folder: Path, threads: int) -> Iterator[psutil.Process]:
    """Run an agent in a process of its own; at the end it must stop as it should."""
    socket, config, log = folder / "agent.sock", folder / "agent.json", folder / "agent.log"
    settings = {
        "sagemaker_edge_core_device_name": "demo-device",
        "sagemaker_edge_core_device_fleet_name": "demo-fleet",
        "sagemaker_edge_core_root_certs_path": str(folder / "authority" / "certs"),
        "sagemaker_edge_core_capture_data_disk_path": str(folder / "captures"),
        "sagemaker_edge_provider_provider": "None",
        "sagemaker_edge_local_data_root_path": str(folder / "state"),
        "lightkeeper_threads": threads,
    }
    config.write_text(json.dumps(settings, indent=2))
    words = ["agent", "-a", str(socket), "-c", str(config)]
    console.print(f"[dim]$[/] lightkeeper {shlex.join(words)} 2> {log} &")
    with log.open("wb") as stderr:
        process = subprocess.Popen([sys.executable, "-m", "lightkeeper", *words], stderr=stderr)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not socket.exists():  # it appears when the agent can take calls
            if process.poll() is not None or time.monotonic() > deadline:
                raise DemoError(f"the agent did not start; its log:\n{log.read_text()}")
            time.sleep(0.01)
        yield psutil.Process(process.pid)
        process.send_signal(signal.SIGTERM)
        if process.wait(STOP_SECONDS) or socket.exists():
            raise DemoError(f"the agent did not stop well (exit code {process.returncode}); see {log}")
    finally:
        process.kill()  # does nothing where it has ended
        process.wait()


def load(client: Client, agent: psutil.Process, model: str, archive: Path) -> Cost:
    """Load a model and return what that took."""
    before_bytes, started = resident_bytes(agent), time.perf_counter()
    client.load_model(str(archive.resolve()), model)
    return Cost(time.perf_counter() - started, resident_bytes(agent) - before_bytes)


def resident_bytes(process: psutil.Process) -> int:
    """Return how much memory a process holds."""
    resident: int = process.memory_info().rss
    return resident


def check_same_text(lines: Sequence[Line], expected: Sequence[Line]) -> None:
    """See that a page was read, and that the agent's answers lead to the same text as the models alone."""
    through_agent, alone = ([line.text for line in page] for page in (lines, expected))
    if not alone:
        raise DemoError("no text was found on the page")
    if through_agent != alone:
        raise DemoError(f"the text differs.\nthrough the agent: {through_agent}\nin this process: {alone}")


def cost_table(sessions: Sequence[PredictSession], costs: Mapping[str, Cost]) -> Table:
    """Return what each model's load and calls took, seen from here: a call includes its way over the socket."""
    table = Table("model", box=box.SIMPLE_HEAD)
    for heading in ("load s", "agent grew by MB", "calls", "median ms a call"):
        table.add_column(heading, justify="right")
    for session in sessions:
        cost, median_ms = costs[session.model], statistics.median(session.seconds) * 1000
        grown = f"{cost.memory_bytes / MB:.0f}"
        table.add_row(session.model, f"{cost.seconds:.2f}", grown, str(len(session.seconds)), f"{median_ms:.1f}")
    return table


def load_forgery(client: Client, archive: Path, folder: Path) -> str:
    """Change one byte of a package's model and return the refusal that loading it meets."""
    forged = folder / "forged"
    shutil.unpack_archive(archive, forged, filter="data")
    model = next(forged.glob("*.onnx"))
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    try:
        client.load_model(str(forged.resolve()), "forged")
    except FileChanged as refusal:
        return refusal.diagnostics()
    raise DemoError("a forged model was loaded")


def step(title: str) -> None:
    """Begin a step."""
    console.print(f"\n[bold yellow]▸[/] [bold]{title}[/]")


if __name__ == "__main__":
    sys.exit(main())
