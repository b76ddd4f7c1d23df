"""`sagemaker_edge_agent_client_example`: the commands, arguments and words of the old agent's example client.

It reads a bitmap of 24 bits a pixel as the old one did: red, green and blue of each pixel after another, in the order
of the file's rows, as FLOAT32 values from 0 to 255, sent with the shape [1, c, w, h]. A failed call ends with exit code
1; the old client ended with 0 whatever happened.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightkeeper.cli.address import VARIABLE
from lightkeeper.errors import InputFileUnreadable

if TYPE_CHECKING:
    from lightkeeper.client import Client

ADDRESS = "unix:///tmp/sagemaker_edge_agent_example.sock"
"""Where the old client looks for the agent, unless LIGHTKEEPER_ADDRESS says otherwise."""

_IMAGE = ("model_name", "input_bmp_image", "input_name", "w", "h", "c")
COMMANDS: dict[str, tuple[str, ...]] = {
    "ListModels": (),
    "LoadModel": ("model_path", "model_name"),
    "UnloadModel": ("model_name",),
    "DescribeModel": ("model_name",),
    "Predict": _IMAGE,
    "PredictSHM": _IMAGE,
    "PredictAndCapture": _IMAGE,
    "PredictSHMAndCapture": _IMAGE,
}
"""Each command and its arguments."""

_HEADER_BYTES = 54
_BITS, _CHANNELS = 24, 3


def usage() -> str:
    """Return the list of commands."""
    lines = [f"\t {name}{''.join(f' [{argument}]' for argument in COMMANDS[name])}" for name in COMMANDS]
    return "\n".join(["Usage: ./client [command_name]", "Commands:", *lines])


def understood(arguments: Sequence[str]) -> bool:
    """Whether the words are a command with its arguments; where not, that is explained."""
    command, *rest = arguments or [""]
    if command not in COMMANDS:
        print(f"command {command} not valid\n{usage()}" if command else usage())
    elif len(rest) < len(COMMANDS[command]):
        words = "".join(f" [{argument}]" for argument in COMMANDS[command])
        print(f"Usage:\n\t ./client {command}{words}")
    else:
        return True
    return False


def run(arguments: Sequence[str]) -> None:
    """Run one command that is understood."""
    from lightkeeper.client import Client

    command, *rest = arguments
    shared_memory_above_bytes = 0 if "SHM" in command else None
    address = os.environ.get(VARIABLE, ADDRESS)
    with Client(address, shared_memory_above_bytes=shared_memory_above_bytes) as client:
        _command(client, command, rest)


def _command(client: Client, command: str, arguments: Sequence[str]) -> None:
    match command:
        case "ListModels":
            models = client.list_models()
            print(f"There are {len(models)} models")
            for index, model in enumerate(models):
                print(f"Model {index}  {model.name}")
        case "LoadModel":
            path, name = str(Path(arguments[0]).absolute()), arguments[1]
            client.load_model(path, name)
            print(f"Model {name} located at  {path} loaded")
        case "UnloadModel":
            client.unload_model(arguments[0])
            print(f"Model {arguments[0]} has been unloaded")
        case "DescribeModel":
            _describe(client, arguments[0])
        case _:
            _predict(client, arguments, capture=command.endswith("AndCapture"))
            return
    print(f"{command.replace('UnloadModel', 'UnLoadModel')} succeeded")


def _describe(client: Client, name: str) -> None:
    model = client.describe_model(name)
    print(f"Model {model.name} located at  {model.url}")
    for kind, tensors in (("Input", model.inputs), ("Output", model.outputs)):
        for tensor in tensors:
            print(f"{kind} {tensor.name} {tensor.data_type.name} {list(tensor.shape)}")


def _predict(client: Client, arguments: Sequence[str], *, capture: bool) -> None:
    model, file, input_name = arguments[:3]
    width, height, channels = (_number(text) for text in arguments[3:6])
    pixels = read_bitmap(Path(file))
    print("Done reading the image")
    if pixels.size != width * height * channels:
        raise InputFileUnreadable(
            f"{file} has {pixels.size} values, not {width} x {height} x {channels}", file=file, given=pixels.size
        )
    inputs = {input_name: pixels.reshape(1, channels, width, height)}
    outputs = client.predict(model, inputs)
    print("Predict succeeded")
    if capture:
        client.capture_data(model, inputs=inputs, outputs=outputs)
        print("CaptureData succeeded")
    for index, output in enumerate(outputs.values(), 1):
        print(f"Flattened RAW Output Tensor:{index}")
        print(*(f"{value:g}" for value in output.ravel()))


def read_bitmap(path: Path) -> Any:
    """Return a bitmap's values as FLOAT32[n]. Raises `InputFileUnreadable`."""
    import numpy as np

    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputFileUnreadable(f"{path} cannot be read: {error.strerror}", file=path) from error
    header = data[:_HEADER_BYTES]
    if len(header) < _HEADER_BYTES or header[:2] != b"BM" or int.from_bytes(header[28:30], "little") != _BITS:
        raise InputFileUnreadable(f"{path} is no bitmap of {_BITS} bits a pixel", file=path)
    width, height = (int.from_bytes(header[at : at + 4], "little", signed=True) for at in (18, 22))
    values = np.frombuffer(data, np.uint8, offset=_HEADER_BYTES)[: _CHANNELS * abs(width * height)]
    if values.size % _CHANNELS:
        raise InputFileUnreadable(f"{path} ends too early", file=path)
    return values.reshape(-1, _CHANNELS)[:, ::-1].astype(np.float32).ravel()


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise InputFileUnreadable(f"{text!r} is no whole number", given=text) from error
