"""`lightkeeper package` builds and signs a model package; `lightkeeper verify` says whether one can be trusted."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightkeeper import resources
from lightkeeper.cli import output

if TYPE_CHECKING:
    from lightkeeper.modelpackage.golden import GoldenArrays
    from lightkeeper.runtimes.base import Session

SWAP_LIMITS = ("latency_ratio", "absolute_difference", "relative_difference", "argmax_disagreement", "failure_share")


def add_to(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `package` and `verify`."""
    _add_package(commands)
    verify = commands.add_parser(
        "verify",
        help="say whether a package can be trusted",
        description="Verify a package as a device does, but for its target. Exit code 0 says that it can be trusted.",
    )
    verify.add_argument("package", metavar="PACKAGE", help="a folder, a .tar.gz archive, or the file:// URL of either")
    verify.add_argument("--root-certs", metavar="DIR", type=Path, required=True, help="folder of root certificates")
    output.add_json_flag(verify)
    verify.set_defaults(command=_verify)


def _add_package(commands: argparse._SubParsersAction[Any]) -> None:
    package = commands.add_parser(
        "package",
        help="build and sign a model package",
        description="Write OUT/N-V.tar.gz. The inputs and outputs are read from the model itself. With a golden input "
        "the package keeps that input and the output it gives (here, or as given), and a device that does not "
        "reproduce the output refuses the package.",
    )
    package.add_argument("model", metavar="MODEL", type=Path, help="an .onnx file, or a folder that has one")
    package.add_argument("--main", metavar="FILE", help="the main file, where a folder has several .onnx files")
    package.add_argument("--name", required=True, metavar="N", help="the model's name")
    package.add_argument("--version", required=True, metavar="V", help="the model's version, such as 1.0")
    package.add_argument("--signer", required=True, metavar="DIR", type=Path, help="has signer.key and signer.pem")
    package.add_argument("--output", required=True, metavar="OUT", type=Path, help="folder for the package")
    target = package.add_argument_group("target", "which devices may run it; `any` where left out")
    target.add_argument("--target-os", default="any", metavar="OS", help="linux, windows or darwin")
    target.add_argument("--target-arch", default="any", metavar="ARCH", help="x86_64, aarch64, …")
    target.add_argument("--accelerator", default="any", metavar="ACC", help="cpu, cuda, …")
    target.add_argument("--minimum-agent-version", default="1", metavar="VERSION", help="such as 1.0.0")
    golden = package.add_argument_group("golden input and output")
    golden.add_argument("--golden-input", metavar="X.npz", type=Path, help="one array an input, by the input's name")
    golden.add_argument("--golden-output", metavar="Y.npz", type=Path, help="by the output's name; run here if absent")
    golden.add_argument("--rtol", type=_tolerance, default=1e-3, help="relative tolerance (%(default)s)")
    golden.add_argument("--atol", type=_tolerance, default=1e-5, help="absolute tolerance (%(default)s)")
    package.add_argument(
        "--swap-limit",
        dest="swap_limits",
        metavar="NAME=VALUE",
        type=_swap_limit,
        action="append",
        default=[],
        help="how much this version may differ from the one it replaces on a device: latency_ratio, "
        "absolute_difference, relative_difference, argmax_disagreement or failure_share; may be repeated",
    )
    output.add_json_flag(package)
    package.set_defaults(command=_package)


def _package(args: argparse.Namespace) -> None:
    from lightkeeper import authoring
    from lightkeeper.modelpackage import build, source
    from lightkeeper.modelpackage.manifest import SwapLimits
    from lightkeeper.modelpackage.signature import Signer
    from lightkeeper.modelpackage.target import Target, architecture

    target = Target(args.target_os.lower(), architecture(args.target_arch), args.accelerator.lower())
    limits = SwapLimits(**dict(args.swap_limits))
    label = authoring.Label(args.name, args.version, target, args.minimum_agent_version, limits)
    label.check()
    build.output_path(args.output, args.name, args.version)
    signer = Signer.load(args.signer)
    found = source.find(args.model, args.main)
    draft = authoring.draft(
        found, label, threads=resources.usable_cpus(), golden=lambda session: _golden(args, session)
    )
    size_bytes = 2 * sum(file.stat().st_size for file in found.files.values())  # each is hashed, and then packed
    with output.progress("packaging", size_bytes, size_bytes) as advance:
        path = build.build(draft, signer, args.output, advance)
    if args.json:
        output.document({"package": str(path), "size_bytes": path.stat().st_size, "files": sorted(found.files)})
    else:
        print(path)


def _golden(args: argparse.Namespace, session: Session) -> GoldenArrays | None:
    """Return the golden arrays that the arguments ask for; the output is made here where it was not given."""
    from lightkeeper.errors import SourceUnusable
    from lightkeeper.modelpackage import golden

    if args.golden_input is None:
        if args.golden_output is not None:
            raise SourceUnusable("--golden-output needs --golden-input", file=args.golden_output)
        return None
    inputs = golden.load_npz(args.golden_input, session.inputs, every=True)
    if args.golden_output is not None:
        outputs = golden.load_npz(args.golden_output, session.outputs, every=False)
    else:
        names = [tensor.name for tensor in session.outputs]
        outputs = dict(zip(names, session.run(inputs), strict=True))
    return golden.GoldenArrays(inputs, outputs, args.rtol, args.atol)


def _verify(args: argparse.Namespace) -> None:
    from lightkeeper.modelpackage.package import PackageStore, local_path
    from lightkeeper.modelpackage.trustrecord import TrustRecord

    logging.getLogger("lightkeeper").addHandler(logging.NullHandler())  # warnings are printed below
    path = local_path(args.package)
    with tempfile.TemporaryDirectory(prefix="lightkeeper-verify-") as folder:
        store = PackageStore(root_certs=args.root_certs, staging=Path(folder), record=TrustRecord(None), host=None)
        with output.progress("verifying", *_sizes_bytes(path)) as advance, store.open(args.package, advance) as package:
            facts = {
                "name": package.manifest.name,
                "version": package.manifest.version,
                "format": package.manifest.format,
                "digest": package.digest,
                "signer": {
                    "subject": package.signer.subject,
                    "root": package.signer.root,
                    "not_before": package.signer.not_before.isoformat(),
                    "not_after": package.signer.not_after.isoformat(),
                },
                "target": asdict(package.manifest.target),
                "minimum_agent_version": package.manifest.minimum_agent_version,
                "golden": package.golden() is not None,
                "files": {name: asdict(file) for name, file in sorted(package.files.items())},
                "warnings": list(package.warnings),
            }
            signer = package.signer
            target = package.manifest.target
            manifest = package.manifest
            files = sorted(package.files.items())
    for warning in package.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if args.json:
        output.document(facts)
        return
    print(f"{manifest.name} {manifest.version}: signature and files are good")
    print(f"  signed by   {signer.subject}")
    print(f"  trusted as  {signer.root}")
    print(f"  valid       {signer.not_before:%Y-%m-%d} to {signer.not_after:%Y-%m-%d} (UTC)")
    print(f"  for         os {target.os}, architecture {target.architecture}, accelerator {target.accelerator}")
    print(f"  agent       {manifest.minimum_agent_version} or later")
    print(f"  digest      {package.digest}")
    for name, file in files:
        print(f"  {file.sha256}  {file.size_bytes:>12}  {name}")


def _sizes_bytes(path: Path) -> tuple[int, int | None]:
    """Return how much there is to verify at least, and in all, which nobody knows of an archive."""
    try:
        if path.is_file():
            return path.stat().st_size, None
        total_bytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    except OSError:  # opening the package says what is wrong with it
        return 0, None
    return total_bytes, total_bytes


def _swap_limit(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    if name not in SWAP_LIMITS:
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(SWAP_LIMITS)}")
    return name, _tolerance(value)


def _tolerance(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError("a tolerance is finite and not negative")
    return value
