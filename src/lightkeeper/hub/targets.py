"""What the API calls a target, and the devices that a package for it runs on (`modelpackage.target`).

A compiled model is plain ONNX. So the operating system and the processor of a target are kept, which tells one
customer's gateways from another's cameras, and its accelerator is not: the same model runs with and without one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightkeeper.errors import JobUnsupported
from lightkeeper.modelpackage.target import ANY, Target

_X86_64, _ARM64, _ARM32 = Target("linux", "x86_64"), Target("linux", "aarch64"), Target("linux", "armv7l")
_ANDROID_ARM64 = Target("android", "aarch64")
_LINUX = Target("linux", ANY)
"""A board whose system comes in 32 and in 64 bits."""

DEVICES: Mapping[str, Target] = {
    **dict.fromkeys(("lambda", "ml_m4", "ml_m5", "ml_c4", "ml_c5", "ml_p2", "ml_p3", "ml_g4dn"), _X86_64),
    **dict.fromkeys(("ml_m6g", "ml_c6g"), _ARM64),
    **dict.fromkeys(("jetson_tx1", "jetson_tx2", "jetson_nano", "jetson_xavier"), _ARM64),
    **dict.fromkeys(("imx8qm", "imx8mplus", "rk3399", "aisage", "jacinto_tda4vm"), _ARM64),
    **dict.fromkeys(("rasp3b", "rasp4b"), _LINUX),
    **dict.fromkeys(("rk3288", "sitara_am57x"), _ARM32),
    **dict.fromkeys(("deeplens", "sbe_c"), _X86_64),
    **dict.fromkeys(("qcs603", "qcs605"), _ANDROID_ARM64),
    "x86_win32": Target("windows", "x86"),
    "x86_win64": Target("windows", "x86_64"),
}
"""The API's devices that ONNX models run on; the others need their maker's own compiler."""

_SYSTEMS = {"LINUX": "linux", "ANDROID": "android"}
_PROCESSORS = {"X86_64": "x86_64", "X86": "x86", "ARM64": "aarch64", "ARM_EABI": "armv7l", "ARM_EABIHF": "armv7l"}


def target(output_config: Mapping[str, Any]) -> Target:
    """Return the target of an OutputConfig. Raises `JobUnsupported`."""
    device, platform = output_config.get("TargetDevice"), output_config.get("TargetPlatform")
    if (device is None) == (platform is None):
        raise JobUnsupported("OutputConfig must have either TargetDevice or TargetPlatform")
    if platform is not None:
        return Target(_SYSTEMS[platform["Os"]], _PROCESSORS[platform["Arch"]])
    found = DEVICES.get(str(device))
    if found is None:
        raise JobUnsupported(
            f"TargetDevice {device} needs its maker's compiler; this hub makes portable ONNX for any TargetPlatform "
            f"and for {', '.join(DEVICES)}",
            target=device,
        )
    return found


def word(output_config: Mapping[str, Any]) -> str:
    """Return how the service names a target in the name of a compiled model: `ml_c5`, `LINUX_ARM64_NVIDIA`."""
    platform = output_config.get("TargetPlatform")
    if platform is None:
        return str(output_config["TargetDevice"])
    return "_".join(platform[part] for part in ("Os", "Arch", "Accelerator") if part in platform)
