"""Facts about this machine: for environment.json, for doctor, and to choose a precision.

Importing this file imports no torch, and a torch that cannot be imported is a fact like the others.
"""

from __future__ import annotations

import importlib.metadata
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

PACKAGES = ("lorafy", "torch", "transformers", "peft", "accelerate", "datasets")

CPUINFO_NAMES = {  # the kernel's flag -> torch's name, for the features that lorafy asks about
    "avx2": "avx2",
    "avx512f": "avx512_f",
    "avx512_bf16": "avx512_bf16",
    "avx512_vnni": "avx512_vnni",
    "amx_tile": "amx_tile",
    "amx_bf16": "amx_bf16",
}


@dataclass(frozen=True, slots=True)
class Gpu:
    name: str
    memory_bytes: int
    compute_capability: tuple[int, int]


@dataclass(frozen=True, slots=True)
class NvidiaFacts:
    """What the NVIDIA driver says. `cuda_version` is the newest CUDA that the driver supports."""

    driver_version: str
    cuda_version: tuple[int, int]
    gpus: tuple[Gpu, ...]


@dataclass(frozen=True, slots=True)
class TorchFacts:
    """What torch says. `cuda_build` is torch.version.cuda (None in a CPU build), `hip_build` the same for AMD."""

    version: str
    num_threads: int
    cuda_build: str | None
    hip_build: str | None
    cuda_available: bool


def describe_environment() -> dict[str, Any]:
    """What environment.json holds. Costs the import of torch and one call of git."""
    import psutil

    nvidia = nvidia_facts()
    torch_found = torch_facts()
    return {
        "command": [without_secrets(word) for word in sys.argv],
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: package_version(name) for name in PACKAGES},
        "processor": processor_name(),
        "cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "cpu_features": sorted(set(CPUINFO_NAMES.values()) & cpu_features()),
        "fast_bfloat16": cpu_has_fast_bfloat16(),
        "torch": {"error": torch_found} if isinstance(torch_found, str) else asdict(torch_found),
        "nvidia": None if nvidia is None else asdict(nvidia),
    }


SECRETS = re.compile(
    r"\b(?:hf|api_org|ghp|gho|ghs|github_pat|sk|glpat|xox[abp])[_-][\w-]{16,}|\bAKIA[A-Z0-9]{12,}"  # well-known tokens
    r"|(?<=://)[^/@\s]+(?=@)"  # the user and password of an address
    r"|(?<=token=)[^&\s]+|(?<=password=)[^&\s]+|(?<=secret=)[^&\s]+|(?<=api_key=)[^&\s]+|(?<=apikey=)[^&\s]+"
    r"|(?<=signature=)[^&\s]+",
    re.IGNORECASE,
)


def without_secrets(text: str) -> str:
    """The text with *** for what looks like a token or a password: it goes into files that people pass on."""
    return SECRETS.sub("***", text)


def package_version(name: str) -> str | None:
    """The installed version, or None. Imports nothing of the package."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def torch_facts() -> TorchFacts | str:
    """What this torch is, or the error that its import ended with (a missing DLL is an OSError)."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return TorchFacts(
        version=torch.__version__,
        num_threads=torch.get_num_threads(),
        cuda_build=torch.version.cuda,
        hip_build=torch.version.hip,
        cuda_available=torch.cuda.is_available(),
    )


def cpu_has_fast_bfloat16() -> bool:
    """Whether bfloat16 products run in hardware. Elsewhere they are emulated and slower than float32.

    False on ARM: some have the instructions, but torch does not promise to use them.
    """
    return bool({"avx512_bf16", "amx_bf16"} & cpu_features())


@cache
def cpu_features() -> frozenset[str]:
    """The processor's features under torch's names; empty where nobody can tell."""
    if isinstance(torch_facts(), str):
        return cpuinfo_features()
    import torch.cpu

    if "get_capabilities" in torch.cpu.__all__:  # public in recent versions only; the one place that asks
        return frozenset(name for name, value in torch.cpu.get_capabilities().items() if value is True)
    return cpuinfo_features()


def cpuinfo_features(path: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    flags = set(_cpuinfo(path, "flags").split())
    return frozenset(name for flag, name in CPUINFO_NAMES.items() if flag in flags)


def processor_name(path: Path = Path("/proc/cpuinfo")) -> str:
    return _cpuinfo(path, "model name") or platform.processor() or platform.machine()


def processor_facts(path: Path = Path("/proc/cpuinfo")) -> list[str]:
    """What machine code may depend on: architecture, name, instruction sets."""
    return [platform.machine(), processor_name(path), _cpuinfo(path, "flags") or _cpuinfo(path, "Features")]


def _cpuinfo(path: Path, key: str) -> str:
    """The value of the first processor's line `key`, "" where there is none (Windows, macOS, ARM)."""
    if not path.is_file():
        return ""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""


def nvidia_facts() -> NvidiaFacts | None:
    """What NVML says, without starting CUDA; None where there is no NVIDIA driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        cuda = pynvml.nvmlSystemGetCudaDriverVersion_v2()  # 13020 is 13.2
        gpus = tuple(_gpu(index) for index in range(pynvml.nvmlDeviceGetCount()))
        return NvidiaFacts(pynvml.nvmlSystemGetDriverVersion(), (cuda // 1000, cuda % 1000 // 10), gpus)
    except pynvml.NVMLError:  # a driver that is just being replaced, a GPU that fell off its bus
        return None
    finally:
        pynvml.nvmlShutdown()


def _gpu(index: int) -> Gpu:
    import pynvml

    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    return Gpu(
        name=pynvml.nvmlDeviceGetName(handle),
        memory_bytes=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
        compute_capability=pynvml.nvmlDeviceGetCudaComputeCapability(handle),
    )


def git_commit(folder: Path | None = None) -> str | None:
    """The commit of `folder` (the working directory); None without git or outside of a repository."""
    git = shutil.which("git")
    if git is None or Path(git).resolve().parent == Path.cwd():  # Windows looks into the current folder first
        return None
    command = [git, "rev-parse", "--verify", "HEAD"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("ascii", errors="replace").strip() if done.returncode == 0 else None
