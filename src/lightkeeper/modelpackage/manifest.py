"""`manifest.json`: what a package says of its model. `docs/spec/model-package.md`, clause 2, has every field.

A manifest is only read after its package's signature has been verified. It is read strictly all the same: whatever
is not understood is refused, with the field's name, since a package that is half understood does half of what its
builder meant.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass

from lightkeeper.errors import AgentTooOld, ManifestInvalid, NameInvalid, VersionInvalid
from lightkeeper.modelpackage import member
from lightkeeper.modelpackage.document import DocumentInvalid, Node
from lightkeeper.modelpackage.target import ANY_TARGET, Target, is_minimum_version, is_target_word
from lightkeeper.names import check_model_name, check_model_version
from lightkeeper.tensor import DYNAMIC, DataType, TensorMetadata

FILE_NAME = "manifest.json"
FORMAT_VERSION = 2
"""The latest version of the manifest itself; a reader refuses a later one, a writer takes the earliest that will do."""
SWAP_SINCE = 2
"""The format version that brought `swap`."""

DIMENSION_MAXIMUM = 2**31 - 1
"""The local API carries dimensions as int32."""
RANK_MAXIMUM = 32
"""The most dimensions of a tensor."""

_FORMAT = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


@dataclass(frozen=True, slots=True)
class GoldenTensor:
    """One array that is kept in the package: the tensor it is for, and the `.npy` file it lies in."""

    name: str
    file: str


@dataclass(frozen=True, slots=True)
class Golden:
    """An input and the output it must give here: each element within `absolute + relative * |expected|`."""

    inputs: tuple[GoldenTensor, ...]
    outputs: tuple[GoldenTensor, ...]
    relative_tolerance: float = 1e-3
    absolute_tolerance: float = 1e-5


@dataclass(frozen=True, slots=True)
class SwapLimits:
    """How much a new version may differ from the one it replaces; None stands for no limit.

    The differences are judged for each output over all compared inputs, before the new version takes over.
    """

    latency_ratio: float | None = None
    """The new version's time / the old one's."""
    absolute_difference: float | None = None
    """The largest difference of two elements."""
    relative_difference: float | None = None
    """The same, as a part of the largest magnitude in the old version's output."""
    argmax_disagreement: float | None = None
    """The share of rows (of an output's last axis) whose largest element is another one."""
    failure_share: float | None = None
    """While the new version is watched: the share of calls that fail, beyond the old one's."""

    def over(self, others: SwapLimits) -> SwapLimits:
        """Return these limits, and others' where these say nothing."""
        mine, theirs = asdict(self), asdict(others)
        return SwapLimits(**{name: theirs[name] if mine[name] is None else mine[name] for name in mine})


NO_LIMITS = SwapLimits()


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a package says of its model. `model` is the name of the main file, `inputs` are those a call must give."""

    name: str
    version: str
    format: str
    model: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]
    target: Target = ANY_TARGET
    minimum_agent_version: str = "1"
    golden: Golden | None = None
    swap: SwapLimits = NO_LIMITS

    @property
    def files(self) -> tuple[str, ...]:
        """The files that the manifest refers to."""
        golden = (*self.golden.inputs, *self.golden.outputs) if self.golden else ()
        return (self.model, *(tensor.file for tensor in golden))

    @classmethod
    def parse(cls, data: bytes) -> Manifest:
        """Read a manifest; raise `ManifestInvalid` naming the field, or `AgentTooOld` for a later format version."""
        try:
            document = Node.parse(data)
            # First of all: a later format may have other fields, and the plain reason is then its version.
            version = document["format_version"].integer(least=1, most=2**31)
            if version > FORMAT_VERSION:
                raise AgentTooOld(
                    f"the manifest has format version {version}, this agent reads {FORMAT_VERSION}",
                    expected=version,
                    given=FORMAT_VERSION,
                )
            if version < SWAP_SINCE and document.get("swap") is not None:
                raise document["swap"].wrong(f"needs format_version {SWAP_SINCE}")
            return _manifest(document)
        except DocumentInvalid as error:
            raise ManifestInvalid(
                f"{FILE_NAME}: {error}", file=FILE_NAME, field=error.path, problem=error.problem
            ) from error

    def to_json(self) -> bytes:
        """Return the manifest as a document that `parse` reads back to an equal one."""
        limits = {name: limit for name, limit in asdict(self.swap).items() if limit is not None}
        document = {"format_version": SWAP_SINCE if limits else 1, **asdict(self)}
        for key in ("inputs", "outputs"):
            tensors: tuple[TensorMetadata, ...] = getattr(self, key)
            document[key] = [
                {"name": tensor.name, "data_type": tensor.data_type.name, "shape": list(tensor.shape)}
                for tensor in tensors
            ]
        if self.golden is None:
            del document["golden"]
        document["swap"] = limits
        if not limits:
            del document["swap"]
        return json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"


def _manifest(document: Node) -> Manifest:
    document.only("format_version", *Manifest.__dataclass_fields__)
    inputs = _tensors(document["inputs"])
    outputs = _tensors(document["outputs"])
    if not outputs:
        raise document["outputs"].wrong("must list at least one tensor")
    target = document.get("target")
    minimum = document.get("minimum_agent_version")
    golden = document.get("golden")
    swap = document.get("swap")
    return Manifest(
        name=_checked_name(document["name"]),
        version=_checked_version(document["version"]),
        format=_matching(document["format"], _FORMAT),
        model=_file(document["model"]),
        inputs=inputs,
        outputs=outputs,
        target=_target(target) if target else ANY_TARGET,
        minimum_agent_version=_minimum_version(minimum) if minimum else "1",
        golden=_golden(golden, inputs, outputs) if golden else None,
        swap=_swap_limits(swap) if swap else NO_LIMITS,
    )


def _checked_name(node: Node) -> str:
    name = node.text()
    try:
        check_model_name(name)
    except NameInvalid as error:
        raise node.wrong(error.message) from error
    return name


def _checked_version(node: Node) -> str:
    version = node.text()
    try:
        check_model_version(version)
    except VersionInvalid as error:
        raise node.wrong(error.message) from error
    return version


def _minimum_version(node: Node) -> str:
    version = node.text()
    if not is_minimum_version(version):
        raise node.wrong("must be one to three numbers, such as 1.0.0")
    return version


def _matching(node: Node, pattern: re.Pattern[str]) -> str:
    text = node.text()
    if not pattern.fullmatch(text):
        raise node.wrong(f"must match {pattern.pattern}")
    return text


def _file(node: Node) -> str:
    name = node.text()
    fault = member.fault(name)
    if fault is not None:
        raise node.wrong(f"{name!r} {fault}")
    return name


def _tensors(node: Node) -> tuple[TensorMetadata, ...]:
    tensors: dict[str, TensorMetadata] = {}
    for item in node.items():
        item.only("name", "data_type", "shape")
        name = item["name"].text()
        if name in tensors:
            raise item["name"].wrong(f"{name!r} is there twice")
        data_type = item["data_type"]
        if data_type.text() not in DataType.__members__:
            raise data_type.wrong(f"must be one of {', '.join(DataType.__members__)}")
        shape = tuple(size.integer(least=DYNAMIC, most=DIMENSION_MAXIMUM) for size in item["shape"].items())
        if len(shape) > RANK_MAXIMUM:
            raise item["shape"].wrong(f"must have at most {RANK_MAXIMUM} dimensions")
        tensors[name] = TensorMetadata(name, DataType[data_type.text()], shape)
    return tuple(tensors.values())


def _target(node: Node) -> Target:
    node.only(*Target.__dataclass_fields__)
    words = {}
    for aspect in Target.__dataclass_fields__:
        field = node.get(aspect)
        if field is None:
            continue
        words[aspect] = field.text()
        if not is_target_word(words[aspect]):
            raise field.wrong("must be a lower-case word, such as linux, x86_64, aarch64, cpu or any")
    return Target(**words)


def _swap_limits(node: Node) -> SwapLimits:
    names = SwapLimits.__dataclass_fields__
    node.only(*names)
    return SwapLimits(**{name: limit.number() for name in names if (limit := node.get(name)) is not None})


def _golden(node: Node, inputs: tuple[TensorMetadata, ...], outputs: tuple[TensorMetadata, ...]) -> Golden:
    node.only(*Golden.__dataclass_fields__)
    golden_inputs = _golden_tensors(node["inputs"], inputs)
    golden_outputs = _golden_tensors(node["outputs"], outputs)
    missing = {tensor.name for tensor in inputs} - {tensor.name for tensor in golden_inputs}
    if missing:
        raise node["inputs"].wrong(f"has no array for {min(missing)!r}")
    if not golden_outputs:
        raise node["outputs"].wrong("must list at least one tensor")
    return Golden(
        golden_inputs, golden_outputs, node["relative_tolerance"].number(), node["absolute_tolerance"].number()
    )


def _golden_tensors(node: Node, known: tuple[TensorMetadata, ...]) -> tuple[GoldenTensor, ...]:
    names = {tensor.name for tensor in known}
    tensors: dict[str, GoldenTensor] = {}
    for item in node.items():
        item.only("name", "file")
        name = item["name"].text()
        if name not in names or name in tensors:
            raise item["name"].wrong(f"{name!r} is {'there twice' if name in tensors else 'no tensor of this model'}")
        tensors[name] = GoldenTensor(name, _file(item["file"]))
    return tuple(tensors.values())
