"""Samples of processor, memory and GPU while a run trains, in their own thread, to hardware.jsonl."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import psutil

SAMPLES_PER_INTERVAL = 2_000
"""After so many samples the interval doubles: a day at 0.5 s is about 14,000 lines, not 170,000."""

SHORTEST_SECONDS = 0.1
"""Over less time than this a share of processor time is noise: the kernel counts in ticks of 0.01 s."""


class HardwareSampler:
    """Appends a line to `path` every `interval_seconds` while its `with` block runs.

    cpu_percent and memory_bytes are this process's (100 is one core; the resident set), gpu_* the whole
    device's. `gpu_index` is torch's index of the CUDA device, None on a CPU. `start_seconds` continues a
    resumed run's time axis. A file that cannot be written ends the sampling, never the training: see `error`.
    """

    def __init__(
        self,
        path: Path,
        interval_seconds: float = 0.5,
        start_seconds: float = 0.0,
        gpu_index: int | None = None,
    ):
        self.path = path
        self.error: OSError | None = None
        self._interval_seconds = interval_seconds
        self._start_seconds = start_seconds
        self._gpu_index = gpu_index
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lorafy-hardware", daemon=True)

    def __enter__(self) -> HardwareSampler:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            drop_cut_line(self.path)
            with (
                self.path.open("a", encoding="utf-8", newline="\n") as file,
                _GpuReader(self._gpu_index) as gpu,
            ):
                self._sample(file, gpu)
        except OSError as error:
            self.error = error

    def _sample(self, file: TextIO, gpu: _GpuReader) -> None:
        process = psutil.Process()
        process.cpu_percent()  # the first call only starts its clock
        started = last = time.perf_counter()
        interval, samples, stopping = self._interval_seconds, 0, False
        while not stopping:
            stopping = self._stop.wait(interval)
            now = time.perf_counter()
            if stopping and now - last < SHORTEST_SECONDS:
                break
            last = now
            record = {
                "seconds": round(self._start_seconds + now - started, 2),
                "cpu_percent": process.cpu_percent(),
                "memory_bytes": process.memory_info().rss,
                **gpu.read(),
            }
            file.write(json.dumps(record) + "\n")
            file.flush()  # whole lines, so that a kill leaves none cut
            samples += 1
            if samples == SAMPLES_PER_INTERVAL:
                interval, samples = interval * 2, 0


class _GpuReader:
    """The device's NVML numbers, less those that its driver does not offer: without NVML, none."""

    def __init__(self, gpu_index: int | None):
        self._gpu_index = gpu_index
        self._handle: Any = None
        self._opened = False

    def __enter__(self) -> _GpuReader:
        if self._gpu_index is None:
            return self
        import pynvml

        try:
            pynvml.nvmlInit()
            self._opened = True
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{_gpu_uuid(self._gpu_index)}")
        except pynvml.NVMLError:
            self._handle = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._opened:
            import pynvml

            pynvml.nvmlShutdown()

    def read(self) -> dict[str, int]:
        if self._handle is None:
            return {}
        import pynvml

        sources: dict[str, Callable[[], int]] = {
            "gpu_percent": lambda: pynvml.nvmlDeviceGetUtilizationRates(self._handle).gpu,
            "gpu_memory_bytes": lambda: pynvml.nvmlDeviceGetMemoryInfo(self._handle).used,
            "gpu_temperature_celsius": lambda: pynvml.nvmlDeviceGetTemperature(
                self._handle, pynvml.NVML_TEMPERATURE_GPU
            ),
        }
        values = {}
        for name, source in sources.items():
            try:
                values[name] = int(source())
            except pynvml.NVMLError:  # a virtual GPU has no temperature
                continue
        return values


def _gpu_uuid(gpu_index: int) -> str:
    """CUDA_VISIBLE_DEVICES renumbers torch's devices but not NVML's; the UUID is the same for both."""
    import torch

    return str(torch.cuda.get_device_properties(gpu_index).uuid)


def drop_cut_line(path: Path) -> None:
    """Removes what a full disk left after the last complete line, so that the next line stands alone."""
    if not path.is_file():
        return
    with path.open("rb+") as file:
        content = file.read()
        if not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)


def current_memory_bytes() -> int:
    """Resident set of this process."""
    return psutil.Process().memory_info().rss


def peak_memory_bytes() -> int:
    """Largest resident set that this process has had."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    if sys.platform == "linux" and (peak := _proc_peak_bytes()) is not None:
        return peak
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _proc_peak_bytes() -> int | None:
    """VmHWM. Linux's ru_maxrss starts at the size of the process that started this one (it survives exec)."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None
