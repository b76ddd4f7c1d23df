"""`lightkeeper models load|unload|list|describe|swap|rollback|status`: the models of a running agent."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from lightkeeper.cli import output, versions
from lightkeeper.cli.address import add_address_flag, connect, package_url

if TYPE_CHECKING:
    from lightkeeper.model import ModelDescription
    from lightkeeper.tensor import TensorMetadata


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `models`."""
    parser = commands.add_parser("models", help="load, unload, list, describe and swap an agent's models")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    load = verbs.add_parser("load", help="verify a model package and load it")
    load.add_argument("package", help="path or file:// URL of a package folder or .tar.gz, as the agent sees it")
    load.add_argument("--name", required=True, help="the name to load it under")
    load.set_defaults(command=_load)

    unload = verbs.add_parser("unload", help="finish a model's calls and drop it")
    unload.add_argument("name")
    unload.set_defaults(command=_unload)

    listing = verbs.add_parser("list", help="list the loaded models")
    listing.set_defaults(command=_list)

    describe = verbs.add_parser("describe", help="show a model's inputs and outputs")
    describe.add_argument("name")
    describe.set_defaults(command=_describe)

    for verb in (load, unload, listing, describe, *versions.add_to(verbs)):
        add_address_flag(verb)
        output.add_json_flag(verb)


def _load(args: argparse.Namespace) -> None:
    with connect(args) as client, output.working(f"loading {args.name}"):
        model = client.load_model(package_url(args.package), args.name)
    _show(model, as_json=args.json)


def _unload(args: argparse.Namespace) -> None:
    with connect(args) as client, output.working(f"unloading {args.name}"):
        client.unload_model(args.name)
    if args.json:
        output.document({"unloaded": args.name})
    else:
        print(f"unloaded {args.name}")


def _list(args: argparse.Namespace) -> None:
    with connect(args) as client:
        models = client.list_models()
    if args.json:
        output.document({"models": [_as_json(model) for model in models]})
        return
    rows = [
        [model.name, ", ".join(map(str, model.inputs)), ", ".join(map(str, model.outputs)), model.url]
        for model in models
    ]
    output.table(["name", "inputs", "outputs", "url"], rows, empty="no model is loaded")


def _describe(args: argparse.Namespace) -> None:
    with connect(args) as client:
        model = client.describe_model(args.name)
    _show(model, as_json=args.json)


def _show(model: ModelDescription, *, as_json: bool) -> None:
    if as_json:
        output.document(_as_json(model))
        return
    print(f"{model.name}  (from {model.url})")
    rows = [
        [direction, metadata.name, metadata.data_type.name, str(list(metadata.shape))]
        for direction, metadatas in (("input", model.inputs), ("output", model.outputs))
        for metadata in metadatas
    ]
    output.table(["", "name", "type", "shape"], rows)


def _as_json(model: ModelDescription) -> dict[str, Any]:
    def tensors(metadatas: tuple[TensorMetadata, ...]) -> list[dict[str, Any]]:
        return [
            {"name": metadata.name, "data_type": metadata.data_type.name, "shape": list(metadata.shape)}
            for metadata in metadatas
        ]

    return {
        "name": model.name,
        "url": model.url,
        "inputs": tensors(model.inputs),
        "outputs": tensors(model.outputs),
    }
