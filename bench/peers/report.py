"""A run's figures beside peers as tables: for a terminal, and as the page docs/benchmarks-peers.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import median

from rich.console import Console

from bench.comparison import Ratio
from bench.load import HOW_TO_GET_H2LOAD, Load
from bench.peers import profile
from bench.peers.contestants import ECHO, HANDLER, INSIDE, NATIVE
from bench.peers.driver import BYTES, SHARED_MEMORY
from bench.peers.results import ALONE, CLIENT, FEW, H2LOAD, MANY, Cell, PeerResults, Target
from bench.report import MIB, Table, in_markdown, on_terminal

ABOUT = """\
Written by `make bench-peers`, which measures everything below in one run of {minutes} minutes. The contestants are all
up at once and take turns of about {turn_seconds} s, every other round in the opposite order. A figure is the median of
{rounds} rounds; a ratio is the median of the rounds' own ratios, with the middle half of them in brackets, so that what
else the machine does meets all of them alike. `python -m bench.peers --effort quick` is a form of under three minutes.

- **small**: 64 floats in and out, one addition.
- **network**: 1x3x224x224 floats in (600 KB), 1000 out, the layers of MobileNetV2 with random weights: what a picture
  costs a real application.
- **image**: the same picture, one convolution: the harder row, where hardly anything but the carrying is left.
- **by bytes**: the tensor travels in the request. **By shared memory**: it lies in System V shared memory (Lightkeeper)
  or Triton's system shared memory; no other contestant has it.
- **h2load**: a client in C that sends a prepared request, one at a time on each connection (HTTP/1.1 for LitServe and
  BentoML). What it leaves of a figure is the server.
- **usual client**: each contestant's own or documented Python client, all threads in one process, its own work and, for
  shared memory, the copy into the segment included.

ONNX Runtime is set up alike in all of them, as the agent's are ({threads} threads a model, spinning 50 us, no memory
pattern: [ADR 3](adr/0003-onnx-runtime-settings.md)). Each peer has a virtual environment of its own with locked
requirements (`requirements/peers-*.txt`). Everybody is asked over a Unix socket who serves one, the others over TCP on
the loopback address.
"""

MEANING = """\
"echo + session.run" is the sum of two medians of the same round: a compiled server that does nothing, and the model
alone in the calling process. "session.run's" is ONNX Runtime called on arrays in the measuring process, by as many
threads as there are requests in flight: the time of a call through the agent, over that of the call without it, in the
same round. It counts everything that the agent adds, the client's half of the socket included.
"""

PARTS = """\
Medians of the rounds' own differences; beside a network of milliseconds they drown in its noise. The echo is what a
compiled server takes for the call, the socket and the client included; Lightkeeper's own code is its handler in the
calling process less `session.run`. The rest is what Python under a compiled server adds: waking a worker thread for the
call and the thread that writes for its answer, the interpreter's hand-over, caches gone cold, and, for a picture, the
copies in and out of Python.
"""

SAMPLES = """\
By the name of the thread (`wire-io` reads and writes, `lightkeeper` are the workers and ONNX Runtime's threads) and the
library, from perf's samples of the agent under load. `python -m bench.peers.profile` shows any contestant so.
"""

TARGETS = "Targets, by h2load"
CALL = "Where the time of a call goes (us of p50; by bytes, h2load, 1 in flight)"
PROFILE = "Where the agent's processor time goes (us a call; by bytes, h2load)"
NOTES = {TARGETS: MEANING, CALL: PARTS, PROFILE: SAMPLES}
WAYS = ((BYTES, "by bytes"), (SHARED_MEMORY, "by shared memory"))


def tables(results: PeerResults) -> Iterator[Table]:
    """Yield every table of a run."""
    yield Table(
        TARGETS,
        ("target", "limit", "measured", ""),
        [_target(target) for target in results.targets()],
    )
    for model in ("small", "network", "image"):
        for carrier, said in WAYS:
            for client in (H2LOAD, CLIENT):
                alone = results.cell(model, carrier, client, ALONE)
                if alone:
                    many = {number: results.cell(model, carrier, client, number) for number in (FEW, MANY)}
                    yield _comparison(f"{model} {said}, {client}", alone, many)
    parts = list(_parts(results))
    if parts:
        header = ("", "C++ echo", "session.run", "Lightkeeper's own code", "the rest", "the call")
        yield Table(CALL, header, parts)
    if results.profiles:
        yield profile.table(PROFILE, results.profiles)
    yield Table(
        "Cold start and memory",
        ("", "first answer (s)", "fastest", "slowest", "memory (PSS, MiB)", "idle, of one processor"),
        [
            (
                name,
                f"{life.first_answer_seconds:.2f}",
                f"{min(life.first_answers_seconds):.2f}",
                f"{max(life.first_answers_seconds):.2f}",
                f"{life.pss_bytes / MIB:.0f}",
                f"{life.idle_share:.1%}",
            )
            for name, life in results.lives.items()
        ],
    )


def to_terminal(results: PeerResults, console: Console) -> None:
    """Print every table."""
    on_terminal(tables(results), console)
    for name, why in results.skipped.items():
        console.print(f"without {name}: {why}", markup=False)


def to_markdown(results: PeerResults, *, rounds: int, turn_seconds: float, threads: int, minutes: int) -> str:
    """Return the page docs/benchmarks-peers.md."""
    about = ABOUT.format(minutes=minutes, turn_seconds=turn_seconds, rounds=rounds, threads=threads)
    lines = ["# Benchmarks beside peers", "", about, f"Measured on {results.date}:", ""]
    lines += [f"- {name}: {value}" for name, value in results.machine.items()]
    lines += ["", "## Contestants", ""]
    lines += [f"- **{name}**: {said}." for name, said in results.about.items()]
    for name, why in results.skipped.items():
        lines.append(f"- **{name}** is not {'everywhere' if name in results.about else 'there'}: {why}.")
    if not results.profiles:
        lines += ["", f"{profile.HOW_TO_GET_PERF}: there is no profile."]
    if results.cell("small", BYTES, H2LOAD, ALONE) is None:
        lines += ["", f"{HOW_TO_GET_H2LOAD}: only the usual clients were measured, and no target."]
    for table in tables(results):
        lines += in_markdown([table])
        if table.title in NOTES:
            lines += ["", NOTES[table.title].rstrip()]
    lines.append("")
    return "\n".join(lines)


def _parts(results: PeerResults) -> Iterator[Sequence[str]]:
    for model in ("small", "image", "network"):
        cell = results.cell(model, BYTES, H2LOAD, ALONE)
        if cell and {ECHO, INSIDE, HANDLER, NATIVE} <= set(cell.rounds):
            names = (ECHO, INSIDE, HANDLER, NATIVE)
            rounds = list(zip(*([load.p50_us for load in cell.rounds[name]] for name in names), strict=True))
            parts = [(echo, run, handler - run, call - echo - handler, call) for echo, run, handler, call in rounds]
            yield (model, *(f"{median(part):.0f}" for part in zip(*parts, strict=True)))


def _target(target: Target) -> Sequence[str]:
    return target.what, str(target.limit), _ratio(target.measured), target.verdict()


def _comparison(title: str, alone: Cell, cells: dict[int, Cell | None]) -> Table:
    rows = []
    for name in alone.rounds:
        load = alone.median(name)
        row = [name, f"{load.p50_us:.0f}", f"{load.p99_us:.0f}", _beside(alone, name, lambda found: found.p50_us)]
        for number in (FEW, MANY):
            cell = cells[number]
            row.append(f"{cell.median(name).per_second:.0f}" if cell else "-")
            row.append(_beside(cell, name, lambda found: found.per_second) if cell else "-")
        row.append("-" if load.processor_us is None else f"{load.processor_us:.0f}")
        rows.append(row)
    beside = "of Lightkeeper's"
    header = ["", "p50 (us)", "p99 (us)", f"p50, {beside}"]
    for number in (FEW, MANY):
        header += [f"calls/s, {number} in flight", beside]
    return Table(title, (*header, "server's processor time a call (us)"), rows)


def _beside(cell: Cell, name: str, figure: Callable[[Load], float]) -> str:
    return "1" if name == NATIVE else _ratio(cell.ratio(figure, name, NATIVE))


def _ratio(ratio: Ratio | None) -> str:
    return "-" if ratio is None else f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"
