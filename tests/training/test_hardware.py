import json
import sys
import time
from pathlib import Path

import pynvml
import pytest

from lorafy.run_directory import read_jsonl
from lorafy.training import hardware
from lorafy.training.hardware import HardwareSampler, current_memory_bytes, peak_memory_bytes


def test_every_line_is_a_sample_and_the_thread_ends(tmp_path: Path):
    path = tmp_path / "hardware.jsonl"
    with HardwareSampler(path, interval_seconds=0.02) as sampler:
        time.sleep(0.3)
    stopped = path.read_bytes()
    samples = [json.loads(line) for line in stopped.decode("utf-8").splitlines()]
    time.sleep(0.1)
    assert path.read_bytes() == stopped
    assert sampler.error is None
    assert len(samples) >= 3
    assert all(set(sample) == {"seconds", "cpu_percent", "memory_bytes"} for sample in samples)
    seconds = [sample["seconds"] for sample in samples]
    assert seconds == sorted(seconds) and seconds[0] > 0
    assert all(2**20 < sample["memory_bytes"] < 2 * peak_memory_bytes() for sample in samples)


def test_leaving_does_not_wait_for_the_interval(tmp_path: Path):
    started = time.perf_counter()
    with HardwareSampler(tmp_path / "hardware.jsonl", interval_seconds=60):
        time.sleep(0.15)
    assert time.perf_counter() - started < 10
    assert len(read_jsonl(tmp_path / "hardware.jsonl")) == 1, "a short run has one sample, its last"


def test_an_error_in_the_block_comes_through(tmp_path: Path):
    with pytest.raises(KeyError), HardwareSampler(tmp_path / "hardware.jsonl"):
        raise KeyError("training failed")


def test_a_resumed_run_continues_the_file_and_its_time(tmp_path: Path):
    path = tmp_path / "hardware.jsonl"
    path.write_text('{"seconds": 99.5, "cpu_percent": 1.0, "memory_bytes": 7}\n{"seconds": 100', encoding="utf-8")
    with HardwareSampler(path, interval_seconds=0.05, start_seconds=100.0):
        time.sleep(0.2)
    samples = read_jsonl(path)  # the line that a kill cut short is gone, and no line is broken by it
    assert samples[0]["seconds"] == 99.5
    assert len(samples) >= 2
    assert all(100 < sample["seconds"] < 160 for sample in samples[1:])


def test_the_interval_doubles_so_that_the_file_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hardware, "SAMPLES_PER_INTERVAL", 2)
    with HardwareSampler(tmp_path / "hardware.jsonl", interval_seconds=0.02) as sampler:
        time.sleep(0.7)
    assert sampler.error is None
    # two samples each at 0.02, 0.04, 0.08 and 0.16 s take 0.6 s; at a constant interval it would be 35
    assert 2 <= len(read_jsonl(tmp_path / "hardware.jsonl")) <= 10


def test_a_file_that_cannot_be_opened_is_reported_and_harms_nothing(tmp_path: Path):
    (tmp_path / "a_file").write_text("", encoding="utf-8")
    with HardwareSampler(tmp_path / "a_file" / "hardware.jsonl", interval_seconds=0.01) as sampler:
        time.sleep(0.05)
    assert isinstance(sampler.error, OSError)


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_a_full_disk_ends_the_sampling_only():
    with HardwareSampler(Path("/dev/full"), interval_seconds=0.01) as sampler:
        time.sleep(0.1)
    assert isinstance(sampler.error, OSError) and "No space left" in str(sampler.error)


def fake_nvml(monkeypatch: pytest.MonkeyPatch, temperature: int | None) -> list[str]:
    class Memory:
        used = 3 * 2**30

    class Utilization:
        gpu = 87

    def read_temperature(handle: str, sensor: int) -> int:
        if temperature is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return temperature

    def handle_of(uuid: str) -> str:
        calls.append(uuid)
        return "handle"

    calls: list[str] = []
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: calls.append("init"))
    monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: calls.append("shutdown"))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", handle_of)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", lambda handle: Utilization)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lambda handle: Memory)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTemperature", read_temperature)
    monkeypatch.setattr(hardware, "_gpu_uuid", lambda index: f"uuid-of-{index}")
    return calls


@pytest.mark.parametrize("temperature", [61, None])
def test_a_gpu_is_sampled_by_its_uuid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, temperature: int | None):
    calls = fake_nvml(monkeypatch, temperature)
    with HardwareSampler(tmp_path / "hardware.jsonl", interval_seconds=0.02, gpu_index=1):
        time.sleep(0.1)
    expected = {"gpu_percent": 87, "gpu_memory_bytes": 3 * 2**30}
    if temperature is not None:
        expected["gpu_temperature_celsius"] = temperature
    sample = read_jsonl(tmp_path / "hardware.jsonl")[0]
    assert {name: value for name, value in sample.items() if name.startswith("gpu")} == expected
    assert calls == ["init", "GPU-uuid-of-1", "shutdown"]


def test_no_driver_is_a_normal_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def no_driver() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", no_driver)
    with HardwareSampler(tmp_path / "hardware.jsonl", interval_seconds=0.02, gpu_index=0) as sampler:
        time.sleep(0.1)
    assert sampler.error is None
    assert "gpu_percent" not in read_jsonl(tmp_path / "hardware.jsonl")[0]


def test_the_peak_stays_when_memory_is_freed():
    before = current_memory_bytes()
    block = b"x" * (128 * 2**20)
    del block
    assert peak_memory_bytes() > before + 100 * 2**20
