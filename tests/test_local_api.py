"""The local API as applications of 2021 call it: their own stubs, a real socket, a real agent.

Each habit of the clients in the field is a test, and so is each status that a method may answer.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import numpy as np
import pytest
import sysv_ipc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from onnx import TensorProto

from tests.conftest import PackageFactory
from tests.support import models
from tests.support.agents import AgentProcess

X = np.array([[1, 2, 3, 4]], "<f4")

Application = Any
"""The stub, with the messages as its attribute `pb`; generated code has no types."""


@pytest.fixture
def application(agent: AgentProcess, stubs: tuple[ModuleType, ModuleType]) -> Iterator[Application]:
    """An application's stub; what it loads is unloaded afterwards."""
    pb, pb_grpc = stubs
    with grpc.insecure_channel(agent.address) as channel:
        stub = pb_grpc.AgentStub(channel)
        stub.pb = pb
        yield stub
        for model in stub.ListModels(pb.ListModelsRequest()).models:
            stub.UnLoadModel(pb.UnLoadModelRequest(name=model.name))


@pytest.fixture
def doubled(application: Application, doubled_package: Path) -> str:
    """The name under which y = x + x is loaded."""
    load(application, doubled_package, "doubled")
    return "doubled"


def load(application: Application, url: object, name: str) -> Any:
    """Call LoadModel and return the model."""
    return application.LoadModel(application.pb.LoadModelRequest(url=str(url), name=name)).model


def predict(application: Application, name: str, *tensors: Any) -> list[Any]:
    """Call Predict and return the tensors."""
    return list(application.Predict(application.pb.PredictRequest(name=name, tensors=tensors)).tensors)


def tensor(application: Application, array: np.ndarray, name: bytes = b"x", data_type: int = 5) -> Any:
    """Return an array as a tensor with all metadata."""
    pb = application.pb
    metadata = pb.TensorMetadata(name=name, data_type=data_type, shape=array.shape)
    return pb.Tensor(tensor_metadata=metadata, byte_data=array.tobytes())


def refusal(call: Callable[[], object]) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    """Return status, reason and facts of a call that is refused, each refusal being complete."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    status = rpc_status.from_call(caught.value)
    assert status is not None, caught.value
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "lightkeeper"
    assert info.metadata["next_step"]
    assert caught.value.details() == status.message
    return caught.value.code(), info.reason, dict(info.metadata)


# --- LoadModel, ListModels, DescribeModel, UnLoadModel ---------------------------------------------------------------


def test_a_model_is_loaded_described_listed_and_unloaded(application: Application, doubled_package: Path) -> None:
    """The whole life of a model, as a first program does it."""
    pb = application.pb
    loaded = load(application, doubled_package, "my-model")
    assert (loaded.name, loaded.url) == ("my-model", str(doubled_package))
    assert loaded.input_tensor_metadatas[0] == pb.TensorMetadata(name=b"x", data_type=pb.FLOAT32, shape=[1, 4])
    assert loaded.output_tensor_metadatas[0] == pb.TensorMetadata(name=b"y", data_type=pb.FLOAT32, shape=[1, 4])
    assert application.DescribeModel(pb.DescribeModelRequest(name="my-model")).model == loaded
    assert list(application.ListModels(pb.ListModelsRequest()).models) == [loaded]
    application.UnLoadModel(pb.UnLoadModelRequest(name="my-model"))
    assert not application.ListModels(pb.ListModelsRequest()).models


def test_a_package_may_be_an_archive_a_folder_or_a_file_url(
    application: Application, doubled_package: Path, tmp_path: Path
) -> None:
    """Percent-encoding in the URL included."""
    folder = tmp_path / "my models"
    shutil.unpack_archive(doubled_package, folder, filter="data")
    for number, url in enumerate([doubled_package, doubled_package.as_uri(), folder, folder.as_uri()]):
        assert load(application, url, f"m{number}").url == str(url)
    assert "%20" in folder.as_uri()


def test_one_package_serves_under_many_names(application: Application, doubled_package: Path) -> None:
    """Any number of models at once."""
    names = [f"copy-{number}" for number in range(10)]
    for name in names:
        load(application, doubled_package, name)
    assert [model.name for model in application.ListModels(application.pb.ListModelsRequest()).models] == names
    for name in names:
        (answer,) = predict(application, name, tensor(application, X))
        assert np.array_equal(np.frombuffer(answer.byte_data, "<f4"), 2 * X[0])


@pytest.mark.parametrize("url", ["/nowhere/at/all.tar.gz", "file:///nowhere", "nowhere"])
def test_loading_from_nowhere_is_not_found(application: Application, url: str) -> None:
    """The url is in the facts."""
    code, reason, facts = refusal(lambda: load(application, url, "m"))
    assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "PACKAGE_NOT_FOUND")
    assert any("nowhere" in fact for fact in facts.values())


@pytest.mark.parametrize("url", ["", "https://example.com/model.tar.gz", "s3://bucket/model.tar.gz", "file://host/m"])
def test_a_url_of_another_kind_is_invalid(application: Application, url: str) -> None:
    """The agent fetches nothing."""
    code, reason, _ = refusal(lambda: load(application, url, "m"))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "URL_INVALID")


@pytest.mark.parametrize("name", ["", "-a", "a-", "a_b", "a b", "ä", "a/b", "a" * 64, "a\n", "a" * 100_000])
def test_a_bad_name_is_invalid(application: Application, doubled_package: Path, name: str) -> None:
    """Whatever lies at the url."""
    code, reason, _ = refusal(lambda: load(application, doubled_package, name))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "NAME_INVALID")


@pytest.mark.parametrize("name", ["a", "A1", "a--b", "a" * 63, "0"])
def test_every_name_of_the_pattern_is_taken(application: Application, doubled_package: Path, name: str) -> None:
    """Up to 63 characters."""
    assert load(application, doubled_package, name).name == name


def test_a_name_in_use_already_exists(application: Application, doubled: str, doubled_package: Path) -> None:
    """And the loaded model stays."""
    code, reason, facts = refusal(lambda: load(application, doubled_package, doubled))
    assert (code, reason) == (grpc.StatusCode.ALREADY_EXISTS, "MODEL_ALREADY_LOADED")
    assert facts["model"] == doubled
    assert predict(application, doubled, tensor(application, X))


def test_a_tampered_package_is_a_failed_precondition(
    application: Application, doubled_package: Path, tmp_path: Path
) -> None:
    """The file at fault is in the facts."""
    shutil.unpack_archive(doubled_package, tmp_path, filter="data")
    model = tmp_path / "model.onnx"
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    model.write_bytes(content)
    code, reason, facts = refusal(lambda: load(application, tmp_path, "m"))
    assert (code, reason, facts["file"]) == (grpc.StatusCode.FAILED_PRECONDITION, "FILE_CHANGED", "model.onnx")


def test_an_archive_that_is_none_is_a_failed_precondition(application: Application, tmp_path: Path) -> None:
    """So is a folder without a signature."""
    broken = tmp_path / "broken.tar.gz"
    broken.write_bytes(b"this is no archive")
    code, reason, _ = refusal(lambda: load(application, broken, "m"))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PACKAGE_UNREADABLE")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "model.onnx").write_bytes(models.doubled())
    code, reason, _ = refusal(lambda: load(application, tmp_path / "folder", "m"))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SIGNATURE_MISSING")


@pytest.mark.parametrize("method", ["UnLoadModel", "DescribeModel", "Predict"])
def test_an_unknown_model_is_not_found(application: Application, method: str) -> None:
    """By every method that takes a name."""
    request = getattr(application.pb, f"{method}Request")(name="ghost")
    code, reason, facts = refusal(lambda: getattr(application, method)(request))
    assert (code, reason, facts["model"]) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", "ghost")


# --- Predict ---------------------------------------------------------------------------------------------------------


def test_predict_answers_with_the_outputs_name_type_and_shape(application: Application, doubled: str) -> None:
    """The client sends back what DescribeModel told it."""
    described = application.DescribeModel(application.pb.DescribeModelRequest(name=doubled)).model
    metadata = described.input_tensor_metadatas[0]
    request = application.pb.Tensor(tensor_metadata=metadata, byte_data=X.tobytes())
    (answer,) = predict(application, doubled, request)
    assert answer.tensor_metadata == described.output_tensor_metadatas[0]
    assert np.array_equal(np.frombuffer(answer.byte_data, "<f4"), 2 * X[0])


def test_metadata_may_be_absent_or_carry_a_name_alone(application: Application, doubled: str) -> None:
    """The model's own type and shape then count."""
    pb = application.pb
    bare = pb.Tensor(byte_data=X.tobytes())
    named = pb.Tensor(tensor_metadata=pb.TensorMetadata(name=b"x"), byte_data=X.tobytes())
    for request in (bare, named):
        (answer,) = predict(application, doubled, request)
        assert np.array_equal(np.frombuffer(answer.byte_data, "<f4"), 2 * X[0])


def test_a_dynamic_shape_may_be_sent_back_as_described(application: Application, make_package: PackageFactory) -> None:
    """-1 in a request is worked out from the bytes."""
    loaded = load(application, make_package(models.doubled(("batch", 4))), "dynamic")
    assert list(loaded.input_tensor_metadatas[0].shape) == [-1, 4]
    data = np.arange(12, dtype="<f4")
    request = application.pb.Tensor(tensor_metadata=loaded.input_tensor_metadatas[0], byte_data=data.tobytes())
    (answer,) = predict(application, "dynamic", request)
    assert list(answer.tensor_metadata.shape) == [3, 4]
    assert np.array_equal(np.frombuffer(answer.byte_data, "<f4"), 2 * data)


@pytest.mark.parametrize("reverse", [False, True])
def test_several_inputs_and_outputs_keep_their_names(
    application: Application, make_package: PackageFactory, reverse: bool
) -> None:
    """Names decide, not the order in the request; outputs come in the model's order."""
    load(application, make_package(models.sum_and_difference()), "two")
    a, b = np.array([5, 7], "<f4"), np.array([1, 2], "<f4")
    tensors = [tensor(application, a, b"a"), tensor(application, b, b"b")]
    answers = predict(application, "two", *(reversed(tensors) if reverse else tensors))
    assert [answer.tensor_metadata.name for answer in answers] == [b"sum", b"difference"]
    assert [np.frombuffer(answer.byte_data, "<f4").tolist() for answer in answers] == [[6, 9], [4, 5]]


@pytest.mark.parametrize(
    ("number", "element", "dtype"),
    [
        (0, TensorProto.UINT8, "<u1"),
        (1, TensorProto.INT16, "<i2"),
        (2, TensorProto.INT32, "<i4"),
        (3, TensorProto.INT64, "<i8"),
        (4, TensorProto.FLOAT16, "<f2"),
        (5, TensorProto.FLOAT, "<f4"),
        (6, TensorProto.DOUBLE, "<f8"),
    ],
)
@pytest.mark.parametrize("shape", [(), (3,), (0,), (2, 0, 3), (2, 1, 2)])
def test_every_type_and_shape_comes_back_as_it_went(
    application: Application,
    make_package: PackageFactory,
    number: int,
    element: int,
    dtype: str,
    shape: tuple[int, ...],
) -> None:
    """Scalars and empty tensors included."""
    load(application, make_package(models.identity(element, shape)), "same")
    array = np.arange(np.prod(shape, dtype=int)).astype(dtype).reshape(shape) + np.array(1, dtype)
    (answer,) = predict(application, "same", tensor(application, array, data_type=number))
    assert answer.tensor_metadata.data_type == number
    assert tuple(answer.tensor_metadata.shape) == shape
    assert answer.byte_data == array.tobytes()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda message: setattr(message.tensor_metadata, "name", b"z"), "TENSOR_UNKNOWN"),
        (lambda message: setattr(message.tensor_metadata, "name", b"\xff\xfe"), "TENSOR_UNKNOWN"),
        (lambda message: setattr(message.tensor_metadata, "data_type", 6), "TENSOR_TYPE_MISMATCH"),
        (lambda message: setattr(message.tensor_metadata, "data_type", 77), "TENSOR_TYPE_MISMATCH"),
        (lambda message: message.tensor_metadata.shape.append(1), "TENSOR_SHAPE_MISMATCH"),
        (lambda message: message.tensor_metadata.shape.__setitem__(0, -7), "TENSOR_SHAPE_MISMATCH"),
        (lambda message: message.tensor_metadata.shape.__setitem__(0, 2**31 - 1), "TENSOR_SHAPE_MISMATCH"),
        (lambda message: setattr(message, "byte_data", b"123"), "TENSOR_SIZE_MISMATCH"),
        (lambda message: setattr(message, "byte_data", b""), "TENSOR_SIZE_MISMATCH"),
        (lambda message: message.ClearField("byte_data"), "TENSOR_DATA_MISSING"),
    ],
)
def test_a_tensor_that_does_not_fit_is_invalid(
    application: Application, doubled: str, change: Callable[[Any], None], reason: str
) -> None:
    """Name, type, shape and byte count, lies included; the model goes on working."""
    message = tensor(application, X)
    change(message)
    code, given_reason, facts = refusal(lambda: predict(application, doubled, message))
    assert (code, given_reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert "tensor" in facts
    assert predict(application, doubled, tensor(application, X))


def test_too_few_and_too_many_tensors_are_invalid(application: Application, doubled: str) -> None:
    """Each says which."""
    assert refusal(lambda: predict(application, doubled))[1] == "TENSOR_MISSING"
    twice = [tensor(application, X), tensor(application, X)]
    assert refusal(lambda: predict(application, doubled, *twice))[1] == "TENSOR_DUPLICATE"


def test_a_model_that_fails_on_an_input_says_so(application: Application, make_package: PackageFactory) -> None:
    """An index past the table is found by the model alone, while it runs; it lives on."""
    load(application, make_package(models.gather()), "table")
    code, reason, _ = refusal(
        lambda: predict(application, "table", tensor(application, np.array([9]), b"index", data_type=3))
    )
    assert (code, reason) in {
        (grpc.StatusCode.INVALID_ARGUMENT, "INPUT_REJECTED"),
        (grpc.StatusCode.INTERNAL, "MODEL_RUN_FAILED"),
    }
    (answer,) = predict(application, "table", tensor(application, np.array([2]), b"index", data_type=3))
    assert np.frombuffer(answer.byte_data, "<f4").tolist() == [2]


def test_garbage_is_a_malformed_message(agent: AgentProcess) -> None:
    """By every method: bytes that are no protobuf at all."""
    with grpc.insecure_channel(agent.address) as channel:
        for method in ("Predict", "LoadModel", "UnLoadModel", "ListModels", "DescribeModel", "CaptureData"):
            call = channel.unary_unary(f"/AWS.SageMaker.Edge.Agent/{method}")
            code, reason, _ = refusal(lambda call=call: call(b"\xff\xff\xff\xff"))
            assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_MALFORMED"), method


def test_an_unknown_method_is_unimplemented(agent: AgentProcess) -> None:
    """With a reason of its own."""
    with grpc.insecure_channel(agent.address) as channel:
        call = channel.unary_unary("/AWS.SageMaker.Edge.Agent/Explode")
        assert refusal(lambda: call(b""))[:2] == (grpc.StatusCode.UNIMPLEMENTED, "METHOD_UNKNOWN")


def test_a_message_of_1_gib_is_refused_and_the_agent_lives_on(
    agent: AgentProcess, application: Application, doubled: str
) -> None:
    """The limit is 64 MiB: the server stops reading there, and its memory does not follow."""
    before = agent.resident_bytes()
    with grpc.insecure_channel(agent.address, [("grpc.max_send_message_length", -1)]) as channel:
        call = channel.unary_unary("/AWS.SageMaker.Edge.Agent/Predict")
        with pytest.raises(grpc.RpcError) as caught:
            call(bytes(1024**3))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert agent.resident_bytes() - before < 128 * 1024**2
    assert predict(application, doubled, tensor(application, X))


# --- shared memory ---------------------------------------------------------------------------------------------------


@pytest.fixture
def segment() -> Iterator[sysv_ipc.SharedMemory]:
    """A segment that holds X twice, filled and sealed as the C++ client in the field does it."""
    made = sysv_ipc.SharedMemory(None, sysv_ipc.IPC_CREX, mode=0o600, size=2 * X.nbytes)
    made.write(X.tobytes() + (10 * X).tobytes())
    made.mode = 0o400
    yield made
    made.detach()
    made.remove()


@pytest.mark.parametrize("size", [0, X.nbytes])
@pytest.mark.parametrize("described", [True, False])
def test_an_input_may_lie_in_shared_memory(
    application: Application, doubled: str, segment: sysv_ipc.SharedMemory, size: int, described: bool
) -> None:
    """A size of 0 is what type and shape say, the message's or the model's; the answer comes as bytes."""
    pb = application.pb
    for offset, factor in ((0, 1), (X.nbytes, 10)):
        message = tensor(application, X) if described else pb.Tensor()
        handle = pb.SharedMemoryHandle(segment_id=segment.id, size=size, offset=offset)
        message.shared_memory_handle.CopyFrom(handle)
        (answer,) = predict(application, doubled, message)
        assert np.array_equal(np.frombuffer(answer.byte_data, "<f4"), 2 * factor * X[0])
    assert segment.number_attached == 1


@pytest.mark.parametrize(
    ("mode", "offset", "size", "reason"),
    [
        (0o600, 0, 0, "SHARED_MEMORY_WRITABLE"),
        (0o666, 0, 0, "SHARED_MEMORY_WRITABLE"),
        (0o500, 0, 0, "SHARED_MEMORY_WRITABLE"),
        (0o400, 0, 33, "SHARED_MEMORY_OUT_OF_BOUNDS"),
        (0o400, 40, 0, "SHARED_MEMORY_OUT_OF_BOUNDS"),
        (0o400, 2**64 - 8, 16, "SHARED_MEMORY_OUT_OF_BOUNDS"),
        (0o400, 20, 0, "TENSOR_SIZE_MISMATCH"),
        (0o400, 0, 8, "TENSOR_SIZE_MISMATCH"),
    ],
)
def test_a_segment_that_cannot_be_honoured_is_invalid(
    application: Application,
    doubled: str,
    segment: sysv_ipc.SharedMemory,
    mode: int,
    offset: int,
    size: int,
    reason: str,
) -> None:
    """Its mode, its bounds, its size."""
    segment.mode = mode
    message = tensor(application, X)
    message.shared_memory_handle.CopyFrom(
        application.pb.SharedMemoryHandle(segment_id=segment.id, size=size, offset=offset)
    )
    code, given_reason, _ = refusal(lambda: predict(application, doubled, message))
    assert (code, given_reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert segment.number_attached == 1


def test_a_segment_that_is_not_there_is_invalid(application: Application, doubled: str) -> None:
    """The id is in the facts."""
    message = tensor(application, X)
    message.shared_memory_handle.segment_id = 2**31 - 1
    code, reason, facts = refusal(lambda: predict(application, doubled, message))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "SHARED_MEMORY_NOT_FOUND")
    assert facts["segment_id"] == str(2**31 - 1)


# --- many at once ----------------------------------------------------------------------------------------------------


def test_a_slow_model_a_load_and_failed_loads_hold_up_nobody(
    application: Application, doubled: str, make_package: PackageFactory, tmp_path: Path
) -> None:
    """Quick predictions go on while a slow one runs, and while models are loaded and refused."""
    pb = application.pb
    load(application, make_package(models.slow()), "slow")
    broken = tmp_path / "broken.tar.gz"
    broken.write_bytes(b"x" * 1000)
    big = make_package(models.doubled((1, 4)))
    turns = pb.Tensor(tensor_metadata=pb.TensorMetadata(name=b"turns"), byte_data=np.int64(1_000_000).tobytes())
    x = pb.Tensor(tensor_metadata=pb.TensorMetadata(name=b"x"), byte_data=np.float32(1).tobytes())
    finished: list[float] = []

    def slow_call() -> None:
        predict(application, "slow", turns, x)
        finished.append(time.monotonic())

    def loads() -> None:
        for number in range(5):
            load(application, big, f"extra-{number}")
            refusal(lambda: load(application, broken, "broken"))

    threads = [threading.Thread(target=slow_call), threading.Thread(target=loads)]
    for thread in threads:
        thread.start()
    answered = 0
    while not finished:
        (answer,) = predict(application, doubled, tensor(application, X))
        assert np.array_equal(np.frombuffer(answer.byte_data, "<f4"), 2 * X[0])
        answered += 1
    for thread in threads:
        thread.join()
    assert answered > 20


def test_unloading_waits_for_the_call_in_flight(application: Application, make_package: PackageFactory) -> None:
    """The call under way gets its answer; the name is gone for new ones at once."""
    pb = application.pb
    load(application, make_package(models.slow()), "slow")
    turns = pb.Tensor(tensor_metadata=pb.TensorMetadata(name=b"turns"), byte_data=np.int64(500_000).tobytes())
    x = pb.Tensor(tensor_metadata=pb.TensorMetadata(name=b"x"), byte_data=np.float32(0).tobytes())
    call = application.Predict.future(pb.PredictRequest(name="slow", tensors=[turns, x]))
    time.sleep(0.2)
    assert not call.done()
    application.UnLoadModel(pb.UnLoadModelRequest(name="slow"))
    assert np.frombuffer(call.result(timeout=5).tensors[0].byte_data, "<f4")[0] == 500_000


def test_many_clients_with_their_own_connections_get_their_own_answers(
    agent: AgentProcess, application: Application, doubled: str, stubs: tuple[ModuleType, ModuleType]
) -> None:
    """One thread a sensor, each with its channel."""
    pb, pb_grpc = stubs
    wrong: list[int] = []

    def sensor(number: int) -> None:
        with grpc.insecure_channel(agent.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = pb_grpc.AgentStub(channel)
            for turn in range(100):
                value = np.full((1, 4), 1000 * number + turn, "<f4")
                request = pb.PredictRequest(name=doubled, tensors=[pb.Tensor(byte_data=value.tobytes())])
                answer = np.frombuffer(stub.Predict(request).tensors[0].byte_data, "<f4")
                if not np.array_equal(answer, 2 * value[0]):
                    wrong.append(number)

    sensors = [threading.Thread(target=sensor, args=(number,)) for number in range(8)]
    for thread in sensors:
        thread.start()
    for thread in sensors:
        thread.join()
    assert wrong == []
