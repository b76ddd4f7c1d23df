"""`lightkeeper predict`: run a loaded model once on files."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightkeeper.cli import output
from lightkeeper.cli.address import add_address_flag, connect

if TYPE_CHECKING:
    import numpy.typing as npt

VALUES_SHOWN = 6


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `predict`."""
    parser = commands.add_parser(
        "predict",
        help="run a loaded model on files",
        description="Run a loaded model once. Inputs are .npy, .npz, .json files or images.",
    )
    parser.add_argument("name", help="the model's name")
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="[INPUT=]FILE",
        help="a file for an input; without a name, for the inputs in their order (.npz and .json objects name them)",
    )
    parser.add_argument(
        "--mean", type=_numbers, default=(0.0,), help="image inputs: subtract this, such as 0.5 or 0.485,0.456,0.406"
    )
    parser.add_argument("--deviation", type=_numbers, default=(1.0,), help="image inputs: divide by this")
    parser.add_argument("--output", type=Path, metavar="FILE.npz", help="write the outputs there")
    add_address_flag(parser)
    output.add_json_flag(parser)
    parser.set_defaults(command=_predict)


def _predict(args: argparse.Namespace) -> None:
    import numpy as np

    from lightkeeper.cli import inputs

    with connect(args) as client:
        model = client.describe_model(args.name)
        arrays = inputs.read(args.inputs, model.inputs, inputs.Normalisation(args.mean, args.deviation))
        started = time.perf_counter()
        outputs = client.predict(args.name, arrays)
        seconds = time.perf_counter() - started
    if args.output:
        np.savez(args.output, **outputs)  # type: ignore[arg-type]  # names of outputs become names of arrays
    if args.json:
        output.document({"outputs": {name: _as_json(array) for name, array in outputs.items()}, "seconds": seconds})
        return
    rows = [[name, array.dtype.name, str(list(array.shape)), _first_values(array)] for name, array in outputs.items()]
    output.table(["output", "type", "shape", "values"], rows)
    output.note(f"answered in {seconds * 1000:.1f} ms" + (f", written to {args.output}" if args.output else ""))


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _first_values(array: npt.NDArray[Any]) -> str:
    flat = array.reshape(-1)
    shown = " ".join(f"{value:.6g}" for value in flat[:VALUES_SHOWN].tolist())
    return shown + (" …" if flat.size > VALUES_SHOWN else "")


def _as_json(array: npt.NDArray[Any]) -> dict[str, Any]:
    """Return an output as JSON can carry it: a number that is not finite becomes null."""
    import numpy as np

    values = array.astype(object)
    if array.dtype.kind == "f":
        values[~np.isfinite(array)] = None
    return {"data_type": array.dtype.name.upper(), "shape": list(array.shape), "data": values.tolist()}
