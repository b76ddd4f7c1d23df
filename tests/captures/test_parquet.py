"""Captures as Parquet and as `.npz`: everything reads back equal, and memory stays small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pyarrow import parquet

from lightkeeper.capture.record import Part
from lightkeeper.captures import Damage, Wanted, open_captures
from lightkeeper.captures.npz import to_npz
from lightkeeper.captures.parquet import SMALL_ELEMENTS, to_parquet
from lightkeeper.errors import CaptureDamaged, OutputExists, OutputUnwritable
from lightkeeper.tensor import DataType
from tests.support.captures import START_NS, auxiliary, capture, tensor, vibration, write_batch

METADATA = (
    "id",
    "device",
    "fleet",
    "model",
    "version",
    "rule",
    "weight",
    "package_digest",
    "agent_version",
    "file",
    "line",
)
MIB = 1024 * 1024
LISTS = ("inputs", "outputs", "auxiliary_inputs", "auxiliary_outputs")


def exported(tmp_path: Path, **wanted: Any) -> Any:
    """Return the table that a folder's captures make."""
    path = tmp_path / "out.parquet"
    path.unlink(missing_ok=True)
    to_parquet(open_captures(tmp_path / "captures"), path, Wanted(**wanted))
    return parquet.read_table(path)


def test_every_row_is_its_record(tmp_path: Path) -> None:
    """What a row says is what reading the line says."""
    folder = tmp_path / "captures"
    write_batch(folder, [vibration("a", 1), vibration("b", 2, rule="few", time_ns=START_NS + 1_001)], weight=2)
    write_batch(folder, [capture("c", auxiliary(Part.AUXILIARY_OUTPUT, "note.txt", b""))], hour="2023/11/15/01")
    rows = exported(tmp_path).to_pylist()
    for row, record in zip(rows, open_captures(folder).records(), strict=True):
        assert {name: row[name] for name in METADATA} == {name: getattr(record, name) for name in METADATA}
        assert np.datetime64(row["time_ns"], "ns") == record.time
        assert np.datetime64(row["time"].replace(tzinfo=None), "us") == record.time.astype("datetime64[us]")
        for name in LISTS:
            for found, entry in zip(row[name], getattr(record, name), strict=True):
                assert (found["name"], found["content_type"], found["data"]) == (
                    entry.name,
                    entry.content_type,
                    entry.data(),
                )
                assert (
                    found["data_type"] and DataType[found["data_type"]],
                    found["shape"] and tuple(found["shape"]),
                ) == (
                    entry.data_type,
                    entry.shape,
                )
    assert rows[0]["input_x"] == open_inputs(folder)[0].reshape(-1).tolist()
    assert rows[2]["input_x"] is rows[2]["output_y"] is None


def open_inputs(folder: Path) -> list[Any]:
    """Return the first input of each capture that has one."""
    return [record.inputs[0].array() for record in open_captures(folder).records() if record.inputs]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    st.sampled_from(DataType).flatmap(
        lambda data_type: st.lists(
            arrays.arrays(data_type.dtype, arrays.array_shapes(min_dims=0, min_side=0, max_side=3)),
            min_size=1,
            max_size=5,
        )
    )
)
def test_the_column_of_a_tensor_has_its_values(tmp_path: Path, values: list[Any]) -> None:
    """Of every type, bit for bit; half floats as floats, which hold the same numbers."""
    write_batch(
        tmp_path / "captures", [capture(f"c{at}", tensor(Part.OUTPUT, "y", one)) for at, one in enumerate(values)]
    )
    column = exported(tmp_path)["output_y"]
    dtype = np.dtype(np.float32) if values[0].dtype == np.float16 else values[0].dtype
    assert column.type == pa.list_(pa.from_numpy_dtype(dtype))
    for value, cell in zip(values, column, strict=True):
        assert np.array(cell.values, dtype).tobytes() == value.reshape(-1).astype(dtype).tobytes()


def test_only_small_tensors_of_one_type_have_a_column(tmp_path: Path) -> None:
    """The others are in the lists like all the rest."""
    small, large = np.zeros(SMALL_ELEMENTS, np.uint8), np.zeros(SMALL_ELEMENTS + 1, np.uint8)
    first = [tensor(Part.INPUT, name, small) for name in ("small", "grows", "changes")]
    second = [
        tensor(Part.INPUT, "small", small),
        tensor(Part.INPUT, "grows", large),
        tensor(Part.INPUT, "changes", small.astype(np.int16)),
        tensor(Part.OUTPUT, "small", small.astype(np.int64)),
    ]
    write_batch(tmp_path / "captures", [capture("a", *first), capture("b", *second)])
    table = exported(tmp_path)
    assert [name for name in table.column_names if name.startswith(("input_", "output_"))] == [
        "input_small",
        "output_small",
    ]
    assert [entry["name"] for entry in table["inputs"][1].as_py()] == ["small", "grows", "changes"]


def test_of_two_tensors_of_one_name_the_first_has_the_column(tmp_path: Path) -> None:
    """Nothing is mixed, and the lists have both."""
    one, two = np.array([1], np.float32), np.array([2], np.float32)
    write_batch(tmp_path / "captures", [capture("a", tensor(Part.INPUT, "x", one), tensor(Part.INPUT, "x", two))])
    table = exported(tmp_path)
    assert table["input_x"].to_pylist() == [[1.0]]
    assert len(table["inputs"][0]) == 2


def test_only_the_wanted_captures_are_written(tmp_path: Path) -> None:
    """And a file without rows is a file with columns."""
    write_batch(tmp_path / "captures", [vibration("a", 1), vibration("b", 1, model="gate")])
    assert exported(tmp_path, model="gate")["id"].to_pylist() == ["b"]
    nothing = exported(tmp_path, model="none")
    assert (nothing.num_rows, nothing.column_names[:3]) == (0, ["id", "device", "fleet"])


def test_a_lost_payload_is_told_and_the_other_captures_are_written(tmp_path: Path) -> None:
    """Once, with file and line, although the batches are read twice."""
    folder = tmp_path / "captures"
    path = write_batch(folder, [vibration("a", 1), vibration("b", 2)])
    next(folder.rglob("a-*.jpg")).unlink()
    path.write_bytes(path.read_bytes() + b"torn")
    damage: list[Damage] = []
    out = tmp_path / "out.parquet"
    assert to_parquet(open_captures(folder), out, on_damage=damage.append) == 1
    assert [(item.line, item.problem[:7]) for item in damage] == [(1, "file://"), (3, "Expecti")]
    assert parquet.read_table(out)["id"].to_pylist() == ["b"]
    with pytest.raises(CaptureDamaged):
        to_parquet(open_captures(folder), tmp_path / "strict.parquet")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["captures", "out.parquet"]


def test_a_file_is_never_replaced_and_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    """What was there stays."""
    write_batch(tmp_path / "captures", [vibration("a", 1)])
    out = tmp_path / "out.parquet"
    out.write_bytes(b"mine")
    with pytest.raises(OutputExists):
        to_parquet(open_captures(tmp_path / "captures"), out)
    assert out.read_bytes() == b"mine"
    with pytest.raises(OutputUnwritable):
        to_parquet(open_captures(tmp_path / "captures"), tmp_path / "missing" / "out.parquet")


def test_memory_is_bounded_by_a_group_not_by_the_captures(tmp_path: Path) -> None:
    """Many pictures are written in groups of rows, and never held together."""
    folder, out = tmp_path / "captures", tmp_path / "out.parquet"
    picture = np.random.default_rng(1).bytes(MIB)
    write_batch(folder, [capture(f"c{at}", auxiliary(Part.AUXILIARY_INPUT, "f.jpg", picture)) for at in range(96)])
    program = (
        "import resource, sys; from pathlib import Path; from pyarrow import parquet\n"
        "from lightkeeper.captures import open_captures; from lightkeeper.captures.parquet import to_parquet\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "to_parquet(open_captures(sys.argv[1]), Path(sys.argv[2]), group_bytes=4 << 20)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)"
    )
    done = subprocess.run([sys.executable, "-c", program, folder, out], capture_output=True, text=True, check=True)
    assert parquet.ParquetFile(out).metadata.num_row_groups == 24
    assert int(done.stdout) < 64 * MIB


def test_an_npz_file_has_every_array_and_what_it_is_of(tmp_path: Path) -> None:
    """One file a capture, readable without pickle."""
    x = np.arange(6, dtype=np.int16).reshape(2, 3)
    item = capture(
        "a-1",
        tensor(Part.INPUT, "in/x.1", x),
        tensor(Part.INPUT, "in/x.1", x + 1),
        tensor(Part.OUTPUT, "y\0z", np.array(0.5, np.float16)),
        auxiliary(Part.AUXILIARY_INPUT, "frame.jpg", b"\xff\xd8"),
        time_ns=START_NS + 1,
    )
    write_batch(tmp_path / "captures", [item])
    assert to_npz(open_captures(tmp_path / "captures"), tmp_path / "out") == 1
    with np.load(tmp_path / "out/turbine/1.0/a-1.npz", allow_pickle=False) as file:
        assert set(file) == {
            "metadata",
            "inputs/in/x.1",
            "inputs/in/x.1#1",
            "outputs/y\ufffdz",
            "auxiliary_inputs/frame.jpg",
        }
        np.testing.assert_array_equal(file["inputs/in/x.1"], x)
        np.testing.assert_array_equal(file["inputs/in/x.1#1"], x + 1)
        assert (file["outputs/y\ufffdz"].dtype, file["outputs/y\ufffdz"].shape) == (np.float16, ())
        assert file["auxiliary_inputs/frame.jpg"].tobytes() == b"\xff\xd8"
        said = json.loads(str(file["metadata"]))
    assert (said["id"], said["time"], said["model"]) == ("a-1", "2023-11-14T22:13:20.000000001Z", "turbine")


def test_npz_files_stay_in_their_folder_and_replace_nothing(tmp_path: Path) -> None:
    """Whatever a line says its model is called, and however often it says its id."""
    hostile = [vibration("../../a", 1, model="../..", version=".."), vibration("b", 1), vibration("b", 2)]
    write_batch(tmp_path / "captures", [hostile[0]])
    assert to_npz(open_captures(tmp_path / "captures"), tmp_path / "out") == 1
    (path,) = (tmp_path / "out").rglob("*.npz")
    assert path.relative_to(tmp_path / "out").as_posix() == "..%2F../%2E%2E/..%2F..%2Fa.npz"
    with pytest.raises(OutputExists):
        to_npz(open_captures(tmp_path / "captures"), tmp_path / "out")
    write_batch(tmp_path / "twice", hostile[1:])
    with pytest.raises(OutputUnwritable):
        to_npz(open_captures(tmp_path / "twice"), tmp_path / "other")
