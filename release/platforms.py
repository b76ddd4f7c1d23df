"""The platforms that releases are built for, and what each part of the build calls them."""

from __future__ import annotations

from dataclasses import dataclass

GLIBC_FLOOR = (2, 28)
"""The newest glibc that any file of an archive may ask for: what ONNX Runtime's own wheels ask."""


@dataclass(frozen=True, slots=True)
class Platform:
    """One platform: `name` as in the store's folder, `runtime` in the runtime's module, `machine` as Python says it.

    `processor` is what any processor must have at least, and `oldest` one of these, as qemu names it, on which
    `make test-release` tries the archive.
    """

    name: str
    runtime: str
    machine: str
    processor: str
    oldest: str
    windows: bool = False

    @property
    def wheel_tags(self) -> tuple[str, ...]:
        """The platform tags of wheels that run there, the most demanding first."""
        if self.windows:
            return ("win_amd64",)
        newest = [f"manylinux_2_{minor}_{self.machine}" for minor in range(GLIBC_FLOOR[1], 16, -1)]
        older = ("manylinux2014", "manylinux_2_12", "manylinux2010")
        return (*newest, *(f"{tag}_{self.machine}" for tag in older))

    @property
    def compiler_target(self) -> str:
        """What the C compiler builds for: an older glibc than the rest needs."""
        return "x86_64-windows-gnu" if self.windows else f"{self.machine}-linux-gnu.2.17"

    @property
    def library_folder(self) -> str:
        """The folder of shared libraries in Debian's packages."""
        return f"{self.machine}-linux-gnu"


PLATFORMS = {
    platform.name: platform
    for platform in (
        Platform("linux-x64", "linux-amd64", "x86_64", "x86-64-v2: SSE4.2 and POPCNT", "Nehalem"),
        Platform("linux-armv8", "linux-arm64", "aarch64", "ARMv8.0-A with NEON", "cortex-a53"),
        Platform("windows-x64", "windows-amd64", "AMD64", "x86-64-v2: SSE4.2 and POPCNT", "Nehalem", windows=True),
    )
}

SUPPORTED = tuple(name for name, platform in PLATFORMS.items() if not platform.windows)
"""What is built where no platform is named; the archive for Windows is for development (docs/windows.md)."""
