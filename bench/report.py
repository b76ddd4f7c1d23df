"""A run's figures as tables: for a terminal, and as the page docs/benchmarks.md. Both show the same cells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table as RichTable

from bench.comparison import AGENT, BARE, Comparison, Ratio
from bench.latency import H2LOAD, HANDLER, RUN
from bench.load import HOW_TO_GET_H2LOAD
from bench.results import Results, Target
from bench.workshop import Memory

MIB = 1 << 20

ABOUT = """\
Written by `make bench`, which measures everything below in one run of about {minutes} minutes; `make bench-quick` is a
short form that writes nothing. The contestants take turns, every other round in the opposite order. A figure is the
median of {rounds} rounds; a ratio is the median of the rounds' own ratios, with the middle half of them in brackets,
so that what else the machine does meets both sides alike.

- **bare server**: the least grpcio server with ONNX Runtime (`bench/bare_server.py`): no package, no trust, no lease,
  no check of a tensor. It has the agent's number of threads and workers and its settings of ONNX Runtime.
- **agent**: `lightkeeper agent` as installed, with models loaded from signed packages.
- **session.run**: ONNX Runtime alone, arrays in and out, in the measuring process.
- **agent's handler**: the agent's own code from request bytes to response bytes, in the measuring process, no gRPC.
- **small**: 64 floats in and out, one addition.
- **image**: 1x3x224x224 floats in (600 KB), 1000 out, one convolution.
- **h2load**: a client in C that sends a prepared request over the Unix socket.
- **Python client**: `lightkeeper.client`, whose own work is in the figure.
"""


@dataclass(frozen=True, slots=True)
class Table:
    """A title, a header and rows of text."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def tables(results: Results) -> Iterator[Table]:
    """Yield every table of a run."""
    yield Table("Targets", ("target", "limit", "measured", ""), [_target(target) for target in results.targets()])
    for comparison in results.comparisons:
        yield _comparison(comparison)
    where = list(_where_time_goes(results))
    if where:
        yield Table(
            "Where the time of one call goes",
            ("model", "ONNX Runtime", "agent's own code", "gRPC, socket, threads"),
            where,
        )
    yield Table(
        "Cold start (s)",
        ("", "socket served", "first answer", "fastest", "slowest"),
        [
            (
                name,
                f"{start.served_seconds:.3f}",
                f"{start.answered_seconds:.3f}",
                f"{start.answered_seconds_fastest:.3f}",
                f"{start.answered_seconds_slowest:.3f}",
            )
            for name, start in results.cold_starts.items()
        ],
    )
    memory = results.memory
    yield Table(
        "Memory (MiB)",
        ("", "resident", "proportional"),
        [
            _memory("bare server, two models, after an answer of each", memory.bare_serving),
            _memory("agent at rest, no model", memory.agent_at_rest),
            _memory("agent, two models, after an answer of each", memory.agent_serving),
            _memory(
                f"agent after {memory.few_cycles} cycles of three models, none loaded", memory.agent_after_few_cycles
            ),
            _memory(
                f"agent after {memory.all_cycles} cycles of three models, none loaded", memory.agent_after_all_cycles
            ),
        ],
    )


def on_terminal(shown: Iterable[Table], console: Console) -> None:
    """Print tables."""
    for table in shown:
        drawn = RichTable(title=table.title, title_justify="left")
        for number, name in enumerate(table.header):
            drawn.add_column(name, justify="left" if number == 0 else "right", no_wrap=number > 0 and len(name) < 12)
        for row in table.rows:
            drawn.add_row(*row)
        console.print(drawn)


def in_markdown(shown: Iterable[Table]) -> Iterator[str]:
    """Yield the lines of tables, each under its title."""
    for table in shown:
        yield from ("", f"## {table.title}", "", _line(table.header), "|---" + "|---:" * (len(table.header) - 1) + "|")
        yield from (_line(row) for row in table.rows)


def to_terminal(results: Results, console: Console) -> None:
    """Print every table."""
    on_terminal(tables(results), console)
    if results.comparison("small", H2LOAD, 1) is None:
        console.print(f"{HOW_TO_GET_H2LOAD}: only the Python client was measured")


def to_markdown(results: Results, *, rounds: int, minutes: int) -> str:
    """Return the page docs/benchmarks.md."""
    lines = ["# Benchmarks", "", ABOUT.format(rounds=rounds, minutes=minutes)]
    lines += [f"Measured on {results.date}:", ""]
    lines += [f"- {name}: {value}" for name, value in results.machine.items()]
    lines += in_markdown(tables(results))
    if results.comparison("small", H2LOAD, 1) is None:
        lines += ["", f"{HOW_TO_GET_H2LOAD}: only the Python client was measured."]
    lines += ["", "Where the time goes, and what each decision brought: [ADR 4](adr/0004-predict-path.md)."]
    lines += ["Beside a C++ server and other model servers: [benchmarks-peers.md](benchmarks-peers.md).", ""]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _target(target: Target) -> tuple[str, str, str, str]:
    measured = "" if target.measured is None else f"{target.measured:.3g}{target.unit}"
    return target.what, f"{target.limit:g}{target.unit}", measured, target.verdict()


def _comparison(comparison: Comparison) -> Table:
    rows: list[Sequence[str]] = [
        (name, f"{load.p50_us:.0f}", f"{load.p99_us:.0f}", f"{load.per_second:.0f}", _or_dash(load.processor_us))
        for name, load in comparison.loads.items()
    ]
    ratios = (comparison.p50_ratio, comparison.p99_ratio, comparison.per_second_ratio, comparison.processor_ratio)
    rows.append((f"{AGENT} / {BARE}", *map(_ratio, ratios)))
    title = f"Predict, model {comparison.model}, {comparison.client}, {comparison.in_flight} in flight"
    return Table(title, ("", "p50 (us)", "p99 (us)", "calls a second", "server's processor time a call (us)"), rows)


def _ratio(ratio: Ratio | None) -> str:
    return "-" if ratio is None else f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


def _or_dash(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.0f}"


def _where_time_goes(results: Results) -> Iterator[Sequence[str]]:
    for model in ("small", "image"):
        comparison = results.comparison(model, H2LOAD, 1)
        if comparison:
            run, handler, whole = (comparison.loads[name].p50_us for name in (RUN, HANDLER, AGENT))
            yield model, f"{run:.0f} us", f"{handler - run:.0f} us", f"{whole - handler:.0f} us"


def _memory(what: str, memory: Memory) -> tuple[str, str, str]:
    return what, f"{memory.rss_bytes / MIB:.1f}", f"{memory.pss_bytes / MIB:.1f}"
