"""Which CUDA build of torch fits which NVIDIA driver and GPU: data that doctor and docs/install.md share.

Sources, read in 2026. Wheels and their GPUs: pytorch/pytorch RELEASE.md and the support matrices of torch
2.11 (issue 172663), 2.12 (issue 178665), 2.13 (pull request 187075) and 2.14 (issue 190355). Drivers: NVIDIA,
"CUDA Toolkit Release Notes", tables 2 and 3, and "CUDA Compatibility", section "Minor Version Compatibility":
a 12.x build runs on every driver from 525.60.13 (Linux) or 528.33 (Windows), a 13.x build from 580.
"""

from __future__ import annotations

from dataclasses import dataclass

INDEX = "https://download.pytorch.org/whl"


@dataclass(frozen=True, slots=True)
class CudaWheel:
    """One index of torch wheels. `driver_cuda` is the oldest CUDA version that the driver must report.

    `gpus` are the lowest and the highest compute capability with machine code in it (Windows, Linux on x86).
    """

    name: str
    cuda: tuple[int, int]
    driver_cuda: tuple[int, int]
    linux_driver: str
    windows_driver: str
    gpus: tuple[tuple[int, int], tuple[int, int]]
    gpu_names: str
    torch: str

    @property
    def install(self) -> str:
        return f"pip install torch --index-url {INDEX}/{self.name}"

    def supports_driver(self, driver_cuda: tuple[int, int]) -> bool:
        return driver_cuda >= self.driver_cuda

    def supports_gpu(self, capability: tuple[int, int]) -> bool:
        """Whether it has code for this GPU: that runs on later minor versions of its major version, 8.6 on an 8.9."""
        lowest, highest = self.gpus
        return lowest <= capability and capability[0] <= highest[0]


RECENT_GPUS = "GTX 16xx, RTX 20xx to 50xx, T4, A100, H100, B200"

WHEELS = (  # the first that fits is the one to install
    CudaWheel(
        name="cu130",
        cuda=(13, 0),
        driver_cuda=(13, 0),
        linux_driver="580.65.06",
        windows_driver="580",  # CUDA 13 brings no Windows driver of its own; the rule is the branch
        gpus=((7, 5), (12, 0)),
        gpu_names=RECENT_GPUS,
        torch="2.11 and newer",
    ),
    CudaWheel(
        name="cu126",
        cuda=(12, 6),
        driver_cuda=(12, 0),
        linux_driver="525.60.13",
        windows_driver="528.33",
        gpus=((5, 0), (9, 0)),
        gpu_names="GTX 9xx and 10xx, V100, RTX 20xx to 40xx, T4, A100, H100",
        torch="2.11 and newer",
    ),
    CudaWheel(
        name="cu128",
        cuda=(12, 8),
        driver_cuda=(12, 8),
        linux_driver="570.26",
        windows_driver="570.65",
        gpus=((7, 5), (12, 0)),
        gpu_names=RECENT_GPUS,
        torch="2.11 only",
    ),
    CudaWheel(
        name="cu132",
        cuda=(13, 2),
        driver_cuda=(13, 0),
        linux_driver="580.65.06",
        windows_driver="580",
        gpus=((7, 5), (12, 0)),
        gpu_names=RECENT_GPUS,
        torch="2.12 and newer",
    ),
)


def wheel_for(driver_cuda: tuple[int, int], capability: tuple[int, int] | None) -> CudaWheel | None:
    """The wheel to install, or None where the driver (or the GPU) is too old for every one of them."""
    for wheel in WHEELS:
        if wheel.supports_driver(driver_cuda) and (capability is None or wheel.supports_gpu(capability)):
            return wheel
    return None


def wheel_of_build(cuda_build: str) -> CudaWheel | None:
    """The wheel that a torch.version.cuda such as "13.0" came from; None where the table lacks it."""
    return next((wheel for wheel in WHEELS if version_text(wheel.cuda) == cuda_build), None)


def parse_cuda(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)


def version_text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def markdown_table() -> str:
    """The table of docs/install.md."""
    rows = [
        "| Wheel | Driver on Linux | Driver on Windows | GPUs (compute capability) | torch |",
        "|---|---|---|---|---|",
    ]
    for wheel in WHEELS:
        lowest, highest = (version_text(capability) for capability in wheel.gpus)
        drivers = f"{wheel.linux_driver} or newer | {wheel.windows_driver} or newer"
        rows.append(f"| `{wheel.name}` | {drivers} | {wheel.gpu_names} ({lowest} to {highest}) | {wheel.torch} |")
    return "\n".join(rows) + "\n"
