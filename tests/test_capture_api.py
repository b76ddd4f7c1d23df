"""CaptureData and GetCaptureDataStatus as applications of 2021 call them: their stubs, a real socket, real files."""

from __future__ import annotations

import base64
import calendar
import json
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import sysv_ipc

from lightkeeper.client import Client
from tests.conftest import Stubs
from tests.support.agents import AgentProcess
from tests.test_local_api import refusal

DELIVERY_SECONDS = 20.0
SIX = np.arange(6, dtype="<f4")


class Application:
    """An application that captures, and the agent it does so with; both may be started again."""

    def __init__(self, folder: Path, root_certs: Path, package: Path, stubs: Stubs, stack: ExitStack) -> None:
        self.folder = folder
        self._root_certs = root_certs
        self._package = package
        self.pb, self._grpc = stubs
        self._stack = stack

    def start(self, flags: tuple[str, ...] = (), **settings: object) -> Application:
        """Start an agent with these capture keys (short names), load the model as `alias`, and connect."""
        keys = {
            f"sagemaker_edge_core_capture_data_{name}"
            if not name.startswith(("lightkeeper", "sagemaker"))
            else name: value
            for name, value in settings.items()
        }
        self.agent = AgentProcess(self.folder, self._root_certs, settings=keys, flags=flags).wait_until_started()
        self._stack.callback(self.agent.stop)
        with Client(self.agent.address) as client:
            client.load_model(str(self._package), "alias")
        self.stub = self._grpc.AgentStub(self._stack.enter_context(grpc.insecure_channel(self.agent.address)))
        return self

    def tensor(self, array: np.ndarray = SIX, name: bytes = b"input") -> Any:
        """Return a FLOAT32 tensor."""
        metadata = self.pb.TensorMetadata(name=name, data_type=5, shape=array.shape)
        return self.pb.Tensor(tensor_metadata=metadata, byte_data=array.astype("<f4").tobytes())

    def capture(self, capture_id: str, **fields: Any) -> None:
        """Call CaptureData, by default with one tensor of six floats."""
        if not {"input_tensors", "output_tensors", "inputs", "outputs"} & fields.keys():
            fields["input_tensors"] = [self.tensor()]
        fields.setdefault("model_name", "alias")
        self.stub.CaptureData(self.pb.CaptureDataRequest(capture_id=capture_id, **fields))

    def status(self, capture_id: str) -> str:
        """Call GetCaptureDataStatus."""
        answer = self.stub.GetCaptureDataStatus(self.pb.GetCaptureDataStatusRequest(capture_id=capture_id))
        return str(self.pb.CaptureDataStatus.Name(answer.status))

    def wait_for(self, *capture_ids: str) -> None:
        """Wait until captures are where they should be."""
        deadline = time.monotonic() + DELIVERY_SECONDS
        while any(self.status(capture_id) != "SUCCESS" for capture_id in capture_ids):
            assert time.monotonic() < deadline, {one: self.status(one) for one in capture_ids}
            time.sleep(0.05)

    def batches(self, folder: str = "captures") -> list[list[dict[str, Any]]]:
        """Return the lines of each batch on the disk."""
        files = sorted((self.folder / folder).rglob("*.jsonl"))
        return [[json.loads(line) for line in file.read_text().splitlines()] for file in files]

    def lines(self) -> dict[str, dict[str, Any]]:
        """Return every line by its capture's id; none may be there twice."""
        found = [line for batch in self.batches() for line in batch]
        by_id = {line["eventMetadata"]["eventId"]: line for line in found}
        assert len(by_id) == len(found)
        return by_id


@pytest.fixture
def application(tmp_path: Path, authority: Path, doubled_package: Path, stubs: Stubs) -> Iterator[Application]:
    """An application whose agent is not started yet."""
    with ExitStack() as stack:
        yield Application(tmp_path, authority / "certs", doubled_package, stubs, stack)


# --- what is written -------------------------------------------------------------------------------------------------


def test_a_capture_becomes_the_line_that_consumers_parse(application: Application) -> None:
    """Names are the package's, not the alias; tensors the model does not know are welcome; time is now."""
    application.start(push_period_seconds=1)
    before = time.time()
    application.capture(
        "capture1637012345", input_tensors=[application.tensor()], output_tensors=[application.tensor(name=b"output")]
    )
    application.wait_for("capture1637012345")
    line = application.lines()["capture1637012345"]
    metadata = line["eventMetadata"]
    assert line["eventVersion"] == "0"
    assert (metadata["deviceId"], metadata["deviceFleetName"]) == ("test-device", "test-fleet")
    assert (metadata["modelName"], metadata["modelVersion"]) == ("doubled", "1.0")
    parsed = time.strptime(metadata["inferenceTime"], "%Y-%m-%dT%H:%M:%S")
    assert abs(calendar.timegm(parsed) - before) < 60
    entry = line["deviceFleetInputs"][0]
    assert (entry["name"], entry["mode"], entry["encoding"]) == ("input", "Input", "BASE64")
    assert struct.unpack("6f", base64.b64decode(entry["data"])) == tuple(range(6))
    assert line["deviceFleetOutputs"][0]["mode"] == "Output"
    assert line["deviceFleetAuxiliaryInputs"] == line["deviceFleetAuxiliaryOutputs"] == []


def test_auxiliary_data_carry_the_type_that_their_name_says(application: Application) -> None:
    """A picture past the embed limit is a file beside the batch, complete when the line can be seen."""
    pb, picture = application.start(push_period_seconds=1).pb, bytes(range(256)) * 40
    application.capture(
        "with-picture",
        inputs=[pb.AuxilaryData(name="camera.jpg", encoding=pb.NONE, byte_data=picture)],
        outputs=[pb.AuxilaryData(name="boxes.json", encoding=pb.JSON, byte_data=b'{"boxes": []}')],
    )
    application.wait_for("with-picture")
    line = application.lines()["with-picture"]
    (camera,), (boxes,) = line["deviceFleetAuxiliaryInputs"], line["deviceFleetAuxiliaryOutputs"]
    assert (camera["encoding"], camera["mode"]) == ("NONE", "Input")
    assert "jp" in camera["observedContentType"]
    assert Path(camera["data-ref"].removeprefix("file://")).read_bytes() == picture
    assert "json" in boxes["observedContentType"]
    assert base64.b64decode(boxes["data"]) == b'{"boxes": []}'


@pytest.mark.parametrize(("limit", "embedded"), [(2, False), (20, False), (24, True), (2048, True), (3072, True)])
def test_the_embed_limit_decides_what_lies_in_the_line(application: Application, limit: int, embedded: bool) -> None:
    """Payloads of up to the limit are base64, larger ones files; 24 bytes here."""
    application.start(push_period_seconds=1, base64_embed_limit=limit)
    application.capture("one")
    application.wait_for("one")
    entry = application.lines()["one"]["deviceFleetInputs"][0]
    assert ("data" in entry) is embedded
    content = (
        base64.b64decode(entry["data"]) if embedded else Path(entry["data-ref"].removeprefix("file://")).read_bytes()
    )
    assert content == SIX.tobytes()


def test_tensors_may_lie_in_shared_memory(application: Application) -> None:
    """They are kept as they were at the call."""
    pb = application.start(push_period_seconds=1).pb
    segment = sysv_ipc.SharedMemory(None, sysv_ipc.IPC_CREX, mode=0o600, size=100)
    segment.write(SIX.tobytes())
    segment.mode = 0o400
    handle = pb.SharedMemoryHandle(segment_id=segment.id)
    metadata = pb.TensorMetadata(name=b"x", data_type=5, shape=[6])
    application.capture("shared", input_tensors=[pb.Tensor(tensor_metadata=metadata, shared_memory_handle=handle)])
    segment.detach()
    segment.remove()
    application.wait_for("shared")
    entry = application.lines()["shared"]["deviceFleetInputs"][0]
    assert base64.b64decode(entry["data"]) == SIX.tobytes()


def test_the_inference_time_is_the_one_given(application: Application) -> None:
    """In UTC, to the second, and more precisely in a key of ours."""
    pb = application.start(push_period_seconds=1).pb
    application.capture("dated", inference_timestamp=pb.Timestamp(seconds=1637012345, nanos=678))
    application.wait_for("dated")
    assert application.lines()["dated"]["eventMetadata"]["inferenceTime"] == "2021-11-15T21:39:05"


# --- batches ---------------------------------------------------------------------------------------------------------


def test_a_batch_is_written_when_it_is_full(application: Application) -> None:
    """Long before a period of 4000 seconds is over; what does not fill a batch waits."""
    application.start(buffer_size=6, batch_size=3, push_period_seconds=4000)
    for number in range(4):
        application.capture(f"c-{number}")
    application.wait_for("c-0", "c-1", "c-2")
    assert application.status("c-3") == "IN_PROGRESS"
    assert [[line["eventMetadata"]["eventId"] for line in batch] for batch in application.batches()] == [
        ["c-0", "c-1", "c-2"]
    ]


@pytest.mark.parametrize(("buffer", "batch"), [(2, 1), (2048, 2048), (30, 10)])
def test_the_buffers_and_batches_of_the_field_work(application: Application, buffer: int, batch: int) -> None:
    """Every capture is written once, in order."""
    application.start(buffer_size=str(buffer), batch_size=str(batch), push_period_seconds="1")
    ids = [f"c-{number}" for number in range(25)]
    for capture_id in ids:
        application.capture(capture_id)
    application.wait_for(*ids)
    assert [line["eventMetadata"]["eventId"] for found in application.batches() for line in found] == ids


def test_captures_of_a_stopped_agent_are_written_by_the_next(application: Application) -> None:
    """SIGTERM with an open batch loses nothing; ids stay taken over the restart."""
    application.start(push_period_seconds=4000)
    application.capture("before")
    assert application.agent.stop() == 0
    application.start(push_period_seconds=1)
    application.wait_for("before")
    code, reason, _ = refusal(lambda: application.capture("before"))
    assert (code, reason) == (grpc.StatusCode.ALREADY_EXISTS, "CAPTURE_ID_TAKEN")
    assert list(application.lines()) == ["before"]


def test_provider_none_with_destination_cloud_stays_on_the_disk(application: Application) -> None:
    """One warning says so and where; real configurations have this pair."""
    application.start(destination="Cloud", push_period_seconds=1)
    application.capture("kept")
    application.wait_for("kept")
    assert list(application.lines()) == ["kept"]
    warnings = application.agent.events("config_warning")
    assert len([line for line in warnings if "captures stay on the disk" in json.dumps(line)]) == 1


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("capture_id", ["", "-a", "a-", "a_b", "a" * 65, "ä", "a b", "x" * 100_000])
def test_a_bad_id_is_invalid(application: Application, capture_id: str) -> None:
    """Letters, digits and inner hyphens, up to 64."""
    application.start()
    code, reason, _ = refusal(lambda: application.capture(capture_id))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "CAPTURE_ID_INVALID")


@pytest.mark.parametrize("capture_id", ["a", "0" * 64, "3f2504e0-4f89-41d3-9a0c-0305e82c3301", "capture1637012345"])
def test_every_id_of_the_pattern_is_taken_once(application: Application, capture_id: str) -> None:
    """The second time it already exists, and the first stays."""
    application.start()
    application.capture(capture_id)
    code, reason, facts = refusal(lambda: application.capture(capture_id))
    assert (code, reason) == (grpc.StatusCode.ALREADY_EXISTS, "CAPTURE_ID_TAKEN")
    assert facts["capture_id"] == capture_id
    assert application.status(capture_id) == "IN_PROGRESS"


def test_a_model_that_is_not_loaded_is_not_found(application: Application) -> None:
    """The package's own name is not the alias."""
    application.start()
    code, reason, facts = refusal(lambda: application.capture("one", model_name="doubled"))
    assert (code, reason, facts["model"]) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", "doubled")
    assert application.status("one") == "NOT_FOUND"


def test_a_time_in_the_future_is_out_of_range(application: Application) -> None:
    """And no time at all is invalid; zero means now."""
    pb = application.start().pb
    ahead = pb.Timestamp(seconds=int(time.time()) + 3600)
    code, reason, _ = refusal(lambda: application.capture("one", inference_timestamp=ahead))
    assert (code, reason) == (grpc.StatusCode.OUT_OF_RANGE, "TIMESTAMP_IN_FUTURE")
    for wrong in (pb.Timestamp(seconds=1, nanos=10**9), pb.Timestamp(seconds=-5), pb.Timestamp(seconds=2**62)):
        call = lambda wrong=wrong: application.capture("one", inference_timestamp=wrong)  # noqa: E731  # one expression
        assert refusal(call)[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "TIMESTAMP_INVALID")
    application.capture("one", inference_timestamp=pb.Timestamp())
    assert application.status("one") == "IN_PROGRESS"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda tensor: setattr(tensor, "byte_data", b"123"), "TENSOR_SIZE_MISMATCH"),
        (lambda tensor: tensor.tensor_metadata.shape.__setitem__(0, -1), "TENSOR_SHAPE_MISMATCH"),
        (lambda tensor: setattr(tensor.tensor_metadata, "data_type", 99), "TENSOR_TYPE_MISMATCH"),
        (lambda tensor: tensor.ClearField("byte_data"), "TENSOR_DATA_MISSING"),
        (lambda tensor: setattr(tensor.shared_memory_handle, "segment_id", 2**31 - 1), "SHARED_MEMORY_NOT_FOUND"),
    ],
)
def test_a_tensor_that_contradicts_itself_is_invalid(
    application: Application, change: Callable[[Any], None], reason: str
) -> None:
    """Its own type and shape against its bytes; nothing is kept."""
    application.start()
    tensor = application.tensor()
    change(tensor)
    code, given, _ = refusal(lambda: application.capture("one", input_tensors=[tensor]))
    assert (code, given) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert application.status("one") == "NOT_FOUND"


def test_auxiliary_data_without_name_or_data_are_invalid(application: Application) -> None:
    """Each says what is missing."""
    pb = application.start().pb
    for wrong in (pb.AuxilaryData(byte_data=b"x"), pb.AuxilaryData(name="x.jpg")):
        call = lambda wrong=wrong: application.capture("one", inputs=[wrong])  # noqa: E731  # one expression
        assert refusal(call)[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "AUXILIARY_DATA_INVALID")


def test_a_full_spool_is_resource_exhausted_and_predictions_go_on(application: Application) -> None:
    """Refused at once with a reason, counted and said in one log line."""
    application.start(lightkeeper_spool_max_bytes=2**20, buffer_size=2000, batch_size=1000, push_period_seconds=4000)
    large = application.tensor(np.zeros(300_000 // 4, np.float32))
    for number in range(3):
        application.capture(f"c-{number}", input_tensors=[large])
    for number in range(10):
        code, reason, _ = refusal(lambda number=number: application.capture(f"d-{number}", input_tensors=[large]))
        assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "SPOOL_FULL")
    with Client(application.agent.address) as client:
        assert client.predict("alias", {"x": np.ones((1, 4), np.float32)})["y"].tolist() == [[2, 2, 2, 2]]
    (warning,) = application.agent.events("captures_refused")
    assert warning["reason"] == "SPOOL_FULL"


def test_a_full_buffer_is_resource_exhausted_at_once(application: Application) -> None:
    """Many callers on a buffer of one: each capture is in or refused, and what is in gets written."""
    application.start(buffer_size=1, batch_size=1, push_period_seconds=1)
    taken: list[str] = []
    refused: list[grpc.StatusCode] = []

    def call(caller: int) -> None:
        for number in range(50):
            capture_id = f"c-{caller}-{number}"
            try:
                application.capture(capture_id)
                taken.append(capture_id)
            except grpc.RpcError as error:
                refused.append(error.code())

    callers = [threading.Thread(target=call, args=(caller,)) for caller in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(taken) + len(refused) == 300
    assert set(refused) == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    application.wait_for(*taken)
    assert set(application.lines()) == set(taken)
    assert application.agent.events("captures_refused")[0]["reason"] == "CAPTURE_BUFFER_FULL"


def test_a_folder_that_cannot_be_used_is_a_failed_precondition(application: Application) -> None:
    """A file lies where the folder should be; captures work again once it is gone."""
    blocked = application.folder / "captures"
    blocked.write_text("in the way")
    application.start(push_period_seconds=1)
    code, reason, _ = refusal(lambda: application.capture("one"))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "CAPTURE_DESTINATION_UNUSABLE")
    blocked.unlink()
    application.capture("one")
    application.wait_for("one")
    assert list(application.lines()) == ["one"]


# --- durability ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("durability", "survives"), [("sync", True), ("interval:50", True), ("memory", False)])
def test_a_killed_agent_keeps_what_its_durability_promises(
    application: Application, durability: str, survives: bool
) -> None:
    """A kill is no power cut: an interval survives it too; memory does not, as with the old agent."""
    application.start(push_period_seconds=4000, lightkeeper_capture_durability=durability)
    application.capture("one")
    application.agent.stop(9)
    application.start(("-f",), push_period_seconds=4000, lightkeeper_capture_durability=durability)
    assert application.status("one") == ("IN_PROGRESS" if survives else "NOT_FOUND")


# --- rules -----------------------------------------------------------------------------------------------------------


def test_a_rule_captures_around_predict_by_itself(application: Application) -> None:
    """Every third prediction, with the rule's name in the line; the application asks for nothing."""
    rule = {"name": "third", "model": "alias", "every": 3}
    application.start(push_period_seconds=1, lightkeeper_capture_rules=[rule])
    with Client(application.agent.address) as client:
        for number in range(9):
            client.predict("alias", {"x": np.full((1, 4), number, np.float32)})
    deadline = time.monotonic() + DELIVERY_SECONDS
    while len(application.lines()) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    lines = list(application.lines().values())
    assert [line["eventMetadata"]["captureRule"] for line in lines] == ["third"] * 3
    inputs = [struct.unpack("4f", base64.b64decode(line["deviceFleetInputs"][0]["data"])) for line in lines]
    outputs = [struct.unpack("4f", base64.b64decode(line["deviceFleetOutputs"][0]["data"])) for line in lines]
    assert inputs == [(2,) * 4, (5,) * 4, (8,) * 4]
    assert outputs == [(4,) * 4, (10,) * 4, (16,) * 4]


# --- broken disks ----------------------------------------------------------------------------------------------------


def test_an_agent_whose_spool_cannot_be_opened_predicts_all_the_same(application: Application) -> None:
    """A file lies where the spool should be: captures are refused with that fault, and taken once it is gone."""
    state = application.folder / "state"
    state.mkdir(mode=0o700)
    (state / "spool").write_text("in the way")
    application.start(push_period_seconds=1)
    code, reason, _ = refusal(lambda: application.capture("one"))
    assert (code, reason) == (grpc.StatusCode.INTERNAL, "SPOOL_BROKEN")
    with Client(application.agent.address) as client:
        assert client.predict("alias", {"x": np.ones((1, 4), np.float32)})["y"].tolist() == [[2, 2, 2, 2]]
    assert len(application.agent.events("captures_unavailable")) == 1
    (state / "spool").unlink()
    deadline = time.monotonic() + 2 * DELIVERY_SECONDS
    while not application.agent.events("captures_available"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    application.capture("one")
    application.wait_for("one")
    assert list(application.lines()) == ["one"]
