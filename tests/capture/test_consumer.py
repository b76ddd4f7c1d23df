"""A consumer that knows the format from its documentation alone reads every record (section 1)."""

from __future__ import annotations

import ast
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lightkeeper.capture.record import Part
from tests.support import consumer
from tests.support.captures import START_NS, auxiliary, capture, tensor, write_batch
from tests.support.consumer import consume

SIX = np.array([[1.5, -2.25, 3e38, 1e-45, np.inf, -0.0]], np.float32)


def test_the_consumer_knows_nothing_of_lightkeeper() -> None:
    """It imports the standard library alone."""
    source = ast.parse(Path(consumer.__file__).read_text())
    imported = [node.module or "" for node in ast.walk(source) if isinstance(node, ast.ImportFrom)]
    imported += [name.name for node in ast.walk(source) if isinstance(node, ast.Import) for name in node.names]
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names


@pytest.mark.parametrize("embed_limit_bytes", [0, 2, 20, 2048, 3072])
def test_every_embed_limit_of_the_field_gives_records_that_are_read(tmp_path: Path, embed_limit_bytes: int) -> None:
    """In the line or in a file, six floats are six floats."""
    folder = tmp_path / "with a space, ümlaut and 100%"
    captures = [
        capture(f"c-{number}", tensor(Part.INPUT, "x", SIX + number), tensor(Part.OUTPUT, "y", SIX - number))
        for number in range(3)
    ]
    batch = write_batch(folder, captures, embed_limit_bytes=embed_limit_bytes)
    for number, found in enumerate(consume(batch)):
        assert found.metadata == {
            "eventId": f"c-{number}",
            "deviceId": "cam-1",
            "deviceFleetName": "yard",
            "modelName": "turbine",
            "modelVersion": "1.0",
            "inferenceTime": "2023-11-14T22:13:20",
        }
        assert found.time == datetime(2023, 11, 14, 22, 13, 20)  # noqa: DTZ001 - consumers read no time zone
        assert found.floats("deviceFleetInputs", 6) == tuple((SIX + number).ravel().tolist())
        assert found.floats("deviceFleetOutputs", 6) == tuple((SIX - number).ravel().tolist())
    assert number == 2


def test_pictures_and_documents_are_found_by_their_type(tmp_path: Path) -> None:
    """Consumers look for `jpg` and `json`."""
    picture, document = bytes(range(256)) * 50, b'{"boxes": []}'
    batch = write_batch(
        tmp_path,
        [
            capture(
                "c-1",
                auxiliary(Part.AUXILIARY_INPUT, "frame.jpg", picture),
                auxiliary(Part.AUXILIARY_OUTPUT, "json", document),
            )
        ],
    )
    (found,) = consume(batch)
    assert found.entries == {
        "deviceFleetInputs": [],
        "deviceFleetOutputs": [],
        "deviceFleetAuxiliaryInputs": [("frame.jpg", "jpg", picture)],
        "deviceFleetAuxiliaryOutputs": [("json", "json", document)],
    }


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["x", "y z", "ä", "日本", "a\u2028b", 'q"\\', "\x85\x1c"]),
            arrays.arrays(np.float32, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)),
        ),
        max_size=5,
    ),
    st.integers(0, START_NS),
    st.sampled_from([0, 8, 3072]),
)
def test_whatever_tensors_there_are_the_consumer_gets_their_bytes(
    tmp_path: Path, tensors: list[tuple[str, np.ndarray]], time_ns: int, embed_limit_bytes: int
) -> None:
    """Any number, any shape, any name, any time."""
    payloads = [tensor(Part.OUTPUT, name, array) for name, array in tensors]
    batch = write_batch(tmp_path, [capture("c", *payloads, time_ns=time_ns)], embed_limit_bytes=embed_limit_bytes)
    (found,) = consume(batch)
    given_entries = [(name, array.tobytes()) for name, array in tensors]
    assert [(name, data) for name, _, data in found.entries["deviceFleetOutputs"]] == given_entries
    assert (found.time - datetime(1970, 1, 1)).total_seconds() == time_ns // 10**9  # noqa: DTZ001 - see above
