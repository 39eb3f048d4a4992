import json
import os
import subprocess
import sys
from pathlib import Path

import pynvml
import pytest

from lorafy.machine import environment
from lorafy.machine.cuda_wheels import WHEELS, markdown_table, parse_cuda, version_text, wheel_for, wheel_of_build

ROOT = Path(__file__).parent.parent

CPUINFO = """processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Platinum 8480+
flags\t\t: fpu sse2 avx avx2 avx512f avx512_vnni avx512_bf16 amx_bf16 amx_tile

processor\t: 1
model name\t: something else
"""


def test_the_description_is_json_and_names_what_a_report_needs():
    facts = json.loads(json.dumps(environment.describe_environment(), allow_nan=False))
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert set(facts["packages"]) == set(environment.PACKAGES)
    assert facts["torch"]["version"].startswith(facts["packages"]["torch"].split("+")[0])
    assert facts["processor"] and facts["logical_cores"] >= 1 and facts["memory_bytes"] > 2**28
    assert facts["command"] == sys.argv


def test_nothing_is_imported_with_the_module():
    modules = "lorafy.machine.environment, lorafy.workflows.doctor, lorafy.cli.doctor"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_features_from_cpuinfo_carry_torchs_names(tmp_path: Path):
    path = tmp_path / "cpuinfo"
    path.write_text(CPUINFO, encoding="utf-8")
    names = {"avx2", "avx512_f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_tile"}
    assert environment.cpuinfo_features(path) == names
    assert environment.processor_name(path) == "Intel(R) Xeon(R) Platinum 8480+"


def test_without_cpuinfo_nothing_is_claimed(tmp_path: Path):
    assert environment.cpuinfo_features(tmp_path / "missing") == frozenset()
    assert environment.processor_name(tmp_path / "missing")


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/cpuinfo is Linux's")
def test_torch_and_the_kernel_see_the_same_features():
    known = set(environment.CPUINFO_NAMES.values())
    assert environment.cpu_features() & known == environment.cpuinfo_features()


@pytest.mark.parametrize(
    ("features", "fast"),
    [
        ({"avx2"}, False),
        ({"avx512_f"}, False),
        ({"avx512_f", "avx512_bf16"}, True),
        ({"amx_bf16"}, True),
        (set(), False),
    ],
)
def test_bfloat16_is_fast_where_it_is_in_hardware(monkeypatch: pytest.MonkeyPatch, features: set[str], fast: bool):
    monkeypatch.setattr(environment, "cpu_features", lambda: frozenset(features))
    assert environment.cpu_has_fast_bfloat16() is fast


def test_git_commit_is_the_commit_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert environment.git_commit(tmp_path) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.git_commit(tmp_path) is None, "no git"


def test_nvidia_facts_from_nvml(monkeypatch: pytest.MonkeyPatch):
    class Memory:
        total = 24 * 2**30

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlSystemGetCudaDriverVersion_v2", lambda: 12080)
    monkeypatch.setattr(pynvml, "nvmlSystemGetDriverVersion", lambda: "572.61")
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 1)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: index)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetName", lambda handle: "NVIDIA GeForce RTX 4090")
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lambda handle: Memory)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCudaComputeCapability", lambda handle: (8, 9))
    gpu = environment.Gpu("NVIDIA GeForce RTX 4090", 24 * 2**30, (8, 9))
    assert environment.nvidia_facts() == environment.NvidiaFacts("572.61", (12, 8), (gpu,))


@pytest.mark.parametrize(
    ("driver_cuda", "capability", "name"),
    [
        ((13, 0), (8, 9), "cu130"),  # RTX 40xx
        ((13, 2), (12, 0), "cu130"),  # RTX 50xx
        ((13, 0), (6, 1), "cu126"),  # GTX 10xx: left out of CUDA 13
        ((12, 8), (9, 0), "cu126"),  # H100
        ((12, 0), (7, 5), "cu126"),
        ((12, 8), (12, 0), "cu128"),  # RTX 50xx with the first driver for it
        ((12, 4), None, "cu126"),
        ((11, 8), (8, 0), None),  # the driver is too old
        ((13, 0), (3, 5), None),  # the GPU is too old
    ],
)
def test_wheel_for(driver_cuda: tuple[int, int], capability: tuple[int, int] | None, name: str | None):
    wheel = wheel_for(driver_cuda, capability)
    assert (None if wheel is None else wheel.name) == name


def test_the_table_of_wheels_is_consistent():
    for wheel in WHEELS:
        assert wheel.name == f"cu{wheel.cuda[0]}{wheel.cuda[1]}"
        assert wheel.driver_cuda[0] == wheel.cuda[0] and wheel.driver_cuda <= wheel.cuda
        assert wheel_of_build(version_text(wheel.cuda)) is wheel
        assert parse_cuda(version_text(wheel.cuda)) == wheel.cuda


def test_the_install_page_shows_this_table():
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    assert markdown_table() in page
    first = next(wheel for wheel in WHEELS)
    assert first.install in page
