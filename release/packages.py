"""The Python packages of an archive: locked wheels and this project's own, without what no device needs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from release.platforms import Platform

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
WIRE_WHEELS = ROOT / "dist"

LEFT_OUT = (
    "bin/*",
    "*.dist-info/*",  # the bill of materials and the notices say what they say
    "*/tests/*",
    "*/_tests/*",
    "*.pyi",
    "*/py.typed",
    "*.pxd",
    "*.h",
    "*.a",
    "*.c",
    "*.cmake",
    "*/pkgconfig/*",
    "boto3/data/*",  # boto3's resources, and examples of calls
    "boto3/examples/*",
    "botocore/data/*/examples-1.json*",
    "google/rpc/*",  # all but the messages that refusals travel in
    "google/api/*",
    "google/cloud/*",
    "google/gapic/*",
    "google/logging/*",
    "google/longrunning/*",
    "google/type/*",
    "google/shopping/*",
    "grpc/_cython/_credentials/*",  # of TLS; the socket has none
    "numpy/f2py/*",
    "numpy/distutils/*",
    "numpy/_pyinstaller/*",
    "numpy/_core/*_tests*.so",  # numpy's tests of itself
    "numpy/_core/include/*",
    "numpy/random/*",  # imported by those who ask for it, and the agent does not
    "onnxruntime/capi/libonnxruntime.so*",  # for C programs; Python's module has all of it in itself
    "onnxruntime/backend/*",
    "onnxruntime/datasets/*",
    "onnxruntime/quantization/*",
    "onnxruntime/tools/*",
    "onnxruntime/transformers/*",
    "pydantic/v1/*",  # of models written for an older pydantic
    "pygments/*",  # colours for source code
    "onnxruntime/capi/onnxruntime.dll",
    "numpy/_core/*_tests*.pyd",
    "Scripts/*",  # of msvc-runtime, whose libraries lie beside Python's
    "concrt140.dll",
    "msvc*",
    "vc*140*.dll",
    "pycparser/*",  # cffi's compiler of declarations: used when a package is built
)
"""What is left out, by path below the packages' folder."""

KEPT = (
    "lightkeeper-*.dist-info/METADATA",
    "lightkeeper-*.dist-info/entry_points.txt",  # runtimes and providers are found by it
    "google/rpc/__init__.py",
    "google/rpc/code_pb2.py",
    "google/rpc/error_details_pb2.py",
    "google/rpc/status_pb2.py",
)
"""What is kept all the same."""

CPP_LIBRARIES = ("msvcp140.dll", "msvcp140_1.dll", "vcruntime140.dll", "vcruntime140_1.dll")
"""What wheels for Windows need of Microsoft's C++ library; the runtime's own part of it may be too old for these."""

_ABIS = ("--abi", "cp314", "--abi", "abi3", "--abi", "none")
SERVICES = ("s3", "sagemaker-edge", "sts")
"""The services whose description a device needs of boto3's hundreds."""


def install(platform: Platform, folder: Path, *, wheels: Path, metadata: Path) -> None:
    """Install the locked wheels and the project's own into a folder; each package's metadata goes into another."""
    requirements = REQUIREMENTS / ("release-windows.txt" if platform.windows else "release.txt")
    _pip(
        "install",
        *(word for tag in platform.wheel_tags for word in ("--platform", tag)),
        *(
            "--python-version",
            "3.14",
            "--implementation",
            "cp",
            *_ABIS,
            "--only-binary=:all:",
            "--no-deps",
            "--no-compile",
        ),
        "--ignore-requires-python",  # of the Python that runs pip; the lock was made for the archive's
        *("--require-hashes", "--requirement", str(requirements), "--target", str(folder)),
    )
    for wheel in _own_wheels(platform, wheels):
        shutil.unpack_archive(wheel, folder, "zip")
    for described in folder.glob("*.dist-info"):
        shutil.copytree(described, metadata / described.name)
    for name in CPP_LIBRARIES if platform.windows else ():
        shutil.copyfile(folder / "Scripts" / name, folder.parent.parent / name)
    for path in sorted(_superfluous(folder), reverse=True):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in sorted(folder.rglob("*"), reverse=True):  # what is below a folder comes before it
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _own_wheels(platform: Platform, wheels: Path) -> Iterator[Path]:
    """Build the project's wheel, and yield it and the native wire's, where `make wheels` could make one."""
    _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(ROOT))
    yield from wheels.glob("lightkeeper-*.whl")
    yield from WIRE_WHEELS.glob(f"lightkeeper_wire-*_{platform.machine}.whl")


def _superfluous(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_dir():
            if path.parent == folder / "botocore" / "data" and path.name not in SERVICES:
                yield path
        elif any(fnmatch(name, out) for out in LEFT_OUT) and not any(fnmatch(name, kept) for kept in KEPT):
            yield path


def _pip(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input", *arguments], check=True
    )
