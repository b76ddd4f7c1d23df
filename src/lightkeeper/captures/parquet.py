"""Captures as Apache Parquet: one row a capture, for DuckDB, pandas, Spark and whatever else reads it.

The home of pyarrow, which is the extra `parquet`. A file has three kinds of columns:

- what the capture is of: id, device, fleet, model, version, `time` in microseconds (which every reader knows) and
  `time_ns`, rule, weight, package digest, the agent's version, and the file and line it was read from;
- `inputs`, `outputs`, `auxiliary_inputs`, `auxiliary_outputs`: lists of all there is, exactly: name, content type, data
  type, shape, and the payload's bytes;
- `input_NAME` and `output_NAME`: the values of a tensor as a list of numbers in C order, where the tensors of that name
  are all of one data type and small. They say the same once more, in the form that queries want.

The batches are read twice, first for the names, types and sizes that make the columns. Rows are written in groups of
about `GROUP_BYTES` of payload, so that memory stays small whatever there is to read; the file appears when it is whole.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lightkeeper.captures.reader import EVERYTHING, Captures, Damage, Wanted, refuse
from lightkeeper.captures.record import Entry, Record
from lightkeeper.errors import ExtraMissing, OutputExists, OutputUnwritable, PayloadUnreadable
from lightkeeper.tensor import DataType

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]

GROUP_BYTES = 32 * 1024 * 1024
GROUP_ROWS = 16_384
SMALL_ELEMENTS = 1024
MAX_TENSOR_COLUMNS = 256
COMPRESSION = "zstd"

PREFIXES = {"inputs": "input_", "outputs": "output_"}
REPEATING = ["device", "fleet", "model", "version", "rule", "package_digest", "agent_version", "file"]


def to_parquet(  # noqa: PLR0913 - what, where to, and who is told; most of it left out in most calls
    captures: Captures,
    path: Path,
    wanted: Wanted = EVERYTHING,
    *,
    on_damage: Callable[[Damage], object] = refuse,
    on_batch: Callable[[int, int], object] = lambda _done, _total: None,
    group_bytes: int = GROUP_BYTES,
) -> int:
    """Write the wanted captures into a new Parquet file, and return how many they were.

    `group_bytes` of payloads make a group of rows, which is what is held in memory; one capture may be larger.
    `on_damage` and `on_batch` are `Captures.records`'; a capture with a payload that cannot be read counts as damaged.
    Raises `ExtraMissing`, `OutputExists`, `OutputUnwritable`, or what reading raises.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise ExtraMissing("writing Parquet needs the extra `parquet`", extra="parquet") from error

    columns = tensor_columns(captures, wanted)
    schema = _schema(columns)
    count = 0
    with (
        _new_file(path) as unfinished,
        parquet.ParquetWriter(unfinished, schema, compression=COMPRESSION, use_dictionary=REPEATING) as writer,
    ):
        records = captures.records(wanted, on_damage=on_damage, on_batch=on_batch)
        for rows in _groups(records, columns, on_damage, group_bytes):
            count += len(rows)
            arrays = [pa.array([row.get(field.name) for row in rows], field.type) for field in schema]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=len(rows))
            del arrays
            rows.clear()  # before the next group is read
    return count


def tensor_columns(captures: Captures, wanted: Wanted) -> dict[str, DataType]:
    """Return the columns of tensors that have their own, with their data type, in the order they are met."""
    found: dict[str, DataType | None] = {}
    # Damage is told in the reading that writes; being told twice helps nobody.
    for record in captures.records(wanted, on_damage=lambda _: None):
        for column, entry in _named(record):
            data_type = entry.data_type
            if entry.shape is None or prod(entry.shape) > SMALL_ELEMENTS or found.get(column, data_type) != data_type:
                data_type = None
            found[column] = data_type
    kept = [(column, data_type) for column, data_type in found.items() if data_type is not None]
    return dict(kept[:MAX_TENSOR_COLUMNS])


def _schema(columns: dict[str, DataType]) -> pa.Schema:
    import pyarrow as pa

    entry = pa.struct(
        [
            pa.field("name", pa.string(), nullable=False),
            pa.field("content_type", pa.string(), nullable=False),
            pa.field("data_type", pa.string()),
            pa.field("shape", pa.list_(pa.int64())),
            pa.field("data", pa.binary(), nullable=False),
        ]
    )
    texts = ["id", "device", "fleet", "model", "version"]
    fields = [pa.field(name, pa.string(), nullable=False) for name in texts]
    fields += [
        pa.field("time", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("time_ns", pa.int64(), nullable=False),
        pa.field("rule", pa.string(), nullable=False),
        pa.field("weight", pa.int64(), nullable=False),
        pa.field("package_digest", pa.string(), nullable=False),
        pa.field("agent_version", pa.string(), nullable=False),
        pa.field("file", pa.string(), nullable=False),
        pa.field("line", pa.int64(), nullable=False),
    ]
    lists = ["inputs", "outputs", "auxiliary_inputs", "auxiliary_outputs"]
    fields += [pa.field(name, pa.list_(entry), nullable=False) for name in lists]
    fields += [
        pa.field(column, pa.list_(pa.from_numpy_dtype(_column_dtype(data_type))))
        for column, data_type in columns.items()
    ]
    return pa.schema(fields)


def _groups(
    records: Iterator[Record],
    columns: dict[str, DataType],
    on_damage: Callable[[Damage], object],
    group_bytes: int,
) -> Iterator[list[Row]]:
    rows: list[Row] = []
    held_bytes = 0
    for record in records:
        try:
            row, size_bytes = _row(record, columns)
        except PayloadUnreadable as error:
            on_damage(Damage(record.file, record.line, error.message))
            continue
        rows.append(row)
        held_bytes += size_bytes
        if held_bytes >= group_bytes or len(rows) >= GROUP_ROWS:
            yield rows
            rows, held_bytes = [], 0
    if rows:
        yield rows


def _row(record: Record, columns: dict[str, DataType]) -> tuple[Row, int]:
    """Return a capture's row and how many bytes its payloads have."""
    time_ns = int(record.time.astype(np.int64))
    row: Row = {"time": time_ns // 1000, "time_ns": time_ns}
    row |= {name: getattr(record, name) for name in ("id", "weight", "line", *REPEATING)}
    size_bytes = 0
    for name in ("inputs", "outputs", "auxiliary_inputs", "auxiliary_outputs"):
        row[name] = [_struct(entry) for entry in getattr(record, name)]
        size_bytes += sum(len(item["data"]) for item in row[name])
    for column, entry in _named(record):
        if column in columns:
            row[column] = entry.array().reshape(-1).astype(_column_dtype(columns[column]), copy=False)
    return row, size_bytes


def _struct(entry: Entry) -> Row:
    return {
        "name": entry.name,
        "content_type": entry.content_type,
        "data_type": None if entry.data_type is None else entry.data_type.name,
        "shape": entry.shape,
        "data": entry.data(),
    }


def _named(record: Record) -> Iterator[tuple[str, Entry]]:
    """Yield the tensors with the columns they would have; of two with one name, the first."""
    for part, prefix in PREFIXES.items():
        entries: tuple[Entry, ...] = getattr(record, part)
        yield from {f"{prefix}{entry.name}": entry for entry in reversed(entries)}.items()


def _column_dtype(data_type: DataType) -> npt.DTypeLike:
    """Return the type of a column's numbers: the tensor's own, but for half floats, which many readers do not know."""
    return np.float32 if data_type is DataType.FLOAT16 else data_type.dtype


@contextmanager
def _new_file(path: Path) -> Iterator[Path]:
    """Give a place to write beside a new file, which gets its name when all is well."""
    if os.path.lexists(path):
        raise OutputExists(f"{path} is there already", file=path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield unfinished
        unfinished.rename(path)
    except OSError as error:
        raise OutputUnwritable(f"{path} cannot be written: {error.strerror}", file=path) from error
    finally:
        unfinished.unlink(missing_ok=True)
