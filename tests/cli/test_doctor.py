import json
import tomllib
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import lorafy.workflows.doctor as checks
from lorafy.cli.doctor import doctor, verdict
from lorafy.machine.environment import Gpu, NvidiaFacts, TorchFacts
from lorafy.workflows.doctor import Check, HubFacts

GIB = 2**30
RTX_4090 = Gpu("NVIDIA GeForce RTX 4090", 24 * GIB, (8, 9))
RTX_5090 = Gpu("NVIDIA GeForce RTX 5090", 32 * GIB, (12, 0))
CPU_TORCH = TorchFacts("2.13.0+cpu", 8, None, None, False)
CU130_TORCH = TorchFacts("2.13.0+cu130", 8, "13.0", None, True)
CU126_TORCH = TorchFacts("2.13.0+cu126", 8, "12.6", None, True)
NEW_DRIVER = NvidiaFacts("581.29", (13, 0), (RTX_4090,))
OLD_DRIVER = NvidiaFacts("560.94", (12, 6), (RTX_4090,))
ANCIENT_DRIVER = NvidiaFacts("472.12", (11, 4), (RTX_4090,))


def unavailable(torch: TorchFacts) -> TorchFacts:
    return TorchFacts(torch.version, torch.num_threads, torch.cuda_build, torch.hip_build, False)


def test_without_a_compiler_training_is_slower():
    assert checks.check_kernels(None).status == "ok"
    check = checks.check_kernels("no C++ compiler is here")
    assert check.status == "warning" and check.found == "no C++ compiler is here" and "plain path" in str(check.fix)


def test_the_fast_path_on_a_gpu():
    assert checks.check_gpu_kernels(None, None).status == "ok"
    check = checks.check_gpu_kernels(None, "Triton is not installed")
    assert check.status == "warning" and "Triton is not installed" in check.found and "slower" in str(check.fix)
    check = checks.check_gpu_kernels("this GPU is too old", None)
    assert check.status == "warning" and check.found == "this GPU is too old" and "plain path" in str(check.fix)


def test_no_gpu_is_fine():
    assert checks.check_gpu(CPU_TORCH, None).status == "ok"
    assert checks.check_gpu(unavailable(CU130_TORCH), None).status == "ok"


def test_a_gpu_that_torch_can_use_is_fine():
    check = checks.check_gpu(CU130_TORCH, NEW_DRIVER)
    assert check.status == "ok" and check.fix is None
    assert "RTX 4090" in check.found and "581.29" in check.found
    assert checks.check_gpu(CU126_TORCH, NvidiaFacts("530.41", (12, 1), (RTX_4090,))).status == "ok", "12.x on 12.x"


@pytest.mark.parametrize(("nvidia", "name"), [(NEW_DRIVER, "cu130"), (OLD_DRIVER, "cu126")])
def test_a_driver_with_a_cpu_build_of_torch(nvidia: NvidiaFacts, name: str):
    check = checks.check_gpu(CPU_TORCH, nvidia)
    assert check.status == "error" and "CPU build" in check.found
    commands = [
        "pip uninstall -y torch",
        f"pip install torch --index-url https://download.pytorch.org/whl/{name}",
    ]
    assert check.fix is not None and check.fix.split("\n") == commands


def test_a_driver_too_old_for_torchs_cuda():
    check = checks.check_gpu(unavailable(CU130_TORCH), OLD_DRIVER)
    assert check.status == "error"
    assert "560.94 (CUDA 12.6)" in check.found and "CUDA 13.0" in check.found
    assert check.fix is not None and "580.65.06 (Linux) / 580 (Windows)" in check.fix and "/whl/cu126" in check.fix


def test_a_driver_too_old_for_every_wheel():
    check = checks.check_gpu(CPU_TORCH, ANCIENT_DRIVER)
    assert check.status == "error"
    assert check.fix is not None and check.fix.startswith("update the driver") and "/whl/cu130" in check.fix


def test_a_gpu_that_the_build_has_no_code_for():
    check = checks.check_gpu(CU126_TORCH, NvidiaFacts("581.29", (13, 0), (RTX_5090,)))
    assert check.status == "error" and "no code" in check.found
    assert check.fix is not None and "/whl/cu130" in check.fix


def test_a_gpu_that_no_build_has_code_for():
    check = checks.check_gpu(CPU_TORCH, NvidiaFacts("470.1", (11, 4), (Gpu("Tesla K80", 12 * GIB, (3, 7)),)))
    assert check.fix == "no current torch supports this GPU (compute capability 3.7): train on the CPU"


def test_a_build_newer_than_the_table_is_trusted():
    torch = TorchFacts("2.20.0+cu134", 8, "13.4", None, True)
    assert checks.check_gpu(torch, NEW_DRIVER).status == "ok"


def test_a_hidden_gpu_is_a_warning_and_a_broken_one_an_error():
    assert checks.check_gpu(unavailable(CU130_TORCH), NEW_DRIVER, "").status == "warning"
    assert checks.check_gpu(unavailable(CU130_TORCH), NEW_DRIVER, None).status == "error"


def test_python_versions_are_those_of_the_package():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    oldest, newest = checks.OLDEST_PYTHON, checks.NEWEST_PYTHON
    assert project["requires-python"] == f">={oldest[0]}.{oldest[1]},<{newest[0]}.{newest[1] + 1}"
    assert checks.check_python((3, 11, 0), 64).status == "ok"
    assert checks.check_python((3, 13, 9), 64).status == "ok"
    assert checks.check_python((3, 14, 0), 64).status == "error"
    assert checks.check_python((3, 10, 9), 64).status == "error"
    assert checks.check_python((3, 12, 1), 32).status == "error"


def test_packages_are_held_against_the_ranges():
    requirements = ["torch>=2.11", "peft>=0.18,<1", "pytest>=8; extra == 'dev'"]
    assert checks.check_packages(requirements, {"torch": "2.13.0+cpu", "peft": "0.21.2"}).status == "ok"
    check = checks.check_packages(requirements, {"torch": "2.9.1", "peft": None})
    assert check.status == "error"
    assert check.found == "torch 2.9.1 (needs >=2.11); peft is missing (needs <1,>=0.18)"
    assert check.fix == 'pip install "torch>=2.11" "peft<1,>=0.18"'
    assert checks.check_packages(None, {}).status == "warning"


def test_torch_that_cannot_be_imported_or_computes_wrong():
    assert checks.check_torch("OSError: [WinError 126] c10.dll", {}).status == "error"
    assert "Visual C++" in (checks.check_torch("OSError: [WinError 126] c10.dll", {}).fix or "")
    assert checks.check_torch(CU130_TORCH, {"cpu": None, "cuda": "no kernel image"}).status == "error"
    assert checks.check_torch(CPU_TORCH, {"cpu": checks.try_torch("cpu")}).status == "ok"


@pytest.mark.parametrize(
    ("omp_num_threads", "status"),
    [
        (None, "ok"),
        ("4", "ok"),
        ("8", "ok"),
        ("1", "warning"),
        ("9", "warning"),
        ("0", "warning"),
        ("all", "warning"),
    ],
)
def test_threads(omp_num_threads: str | None, status: str):
    assert checks.check_threads(4, 8, 4, omp_num_threads).status == status


def test_processor_memory_disk_and_console():
    assert checks.check_processor("old", frozenset({"sse2"}), False, "AMD64").status == "warning"
    assert checks.check_processor("Apple M3", frozenset({"neon"}), False, "arm64").status == "ok"
    assert checks.check_memory(8 * GIB, GIB).status == "warning"
    assert checks.check_memory(8 * GIB, 4 * GIB).status == "ok"
    sizes = {GIB // 4: "error", 2 * GIB: "warning", 50 * GIB: "ok"}
    assert {free: checks.check_disk("disk", Path("runs"), free).status for free in sizes} == sizes
    assert checks.free_bytes(Path.cwd() / "not" / "yet" / "there") > 0
    assert [checks.check_console(name).status for name in ("utf-8", "UTF8", "cp936", "cp1252")] == ["ok"] * 2 + [
        "warning"
    ] * 2


def test_the_hub_out_of_reach_says_what_works_without_it():
    hub, cache = "https://huggingface.co", Path("cache")
    assert checks.check_hub(HubFacts(hub, False, cache, None, 0.2)).status == "ok"
    assert checks.check_hub(HubFacts(hub, True, cache)).status == "ok"
    check = checks.check_hub(HubFacts(hub, False, cache, "no answer within 3 s"))
    assert check.status == "warning" and check.fix is not None
    assert "minilm" in check.fix and "HF_ENDPOINT=https://hf-mirror.com" in check.fix
    mirror = checks.check_hub(HubFacts("https://hf-mirror.com", False, cache, "no answer within 3 s"))
    assert mirror.fix is not None and "HF_ENDPOINT" not in mirror.fix


def test_reaching_for_nothing_is_an_error_in_words():
    assert "cannot be reached" in (checks.reach("http://127.0.0.1:9", 3)[0] or "")
    assert "cannot be reached" in (checks.reach("not an address", 3)[0] or "")


def run_doctor(monkeypatch: pytest.MonkeyPatch, found: list[Check], *arguments: str):
    monkeypatch.setattr(checks, "run_checks", lambda: found)
    app = typer.Typer()
    app.command()(doctor)
    return CliRunner().invoke(app, list(arguments))


OK, WARNING = Check("python", "ok", "3.12.1"), Check("hub", "warning", "gone", "works without")
ERROR = Check("gpu", "error", "a CPU build", "pip uninstall -y torch\npip install torch")


def test_the_table_and_its_advice(monkeypatch: pytest.MonkeyPatch):
    result = run_doctor(monkeypatch, [OK, WARNING, ERROR])
    assert result.exit_code == 2
    assert "gpu: pip uninstall -y torch\n    pip install torch\n" in result.stdout
    assert result.stdout.isascii(), "a console that is not UTF-8 shows it too"
    assert result.stdout.endswith("Not ready: 1 problem to solve first.\n")


def test_ready(monkeypatch: pytest.MonkeyPatch):
    result = run_doctor(monkeypatch, [OK])
    assert result.exit_code == 0
    assert result.stdout.endswith("Everything is ready: try lorafy demo\n")
    assert verdict([OK, WARNING]).endswith("Ready, with 1 remark: try lorafy demo")


@pytest.mark.parametrize(("found", "exit_code"), [([OK, WARNING], 0), ([OK, ERROR], 2)])
def test_json_is_one_object_on_stdout(monkeypatch: pytest.MonkeyPatch, found: list[Check], exit_code: int):
    result = run_doctor(monkeypatch, found, "--json")
    report = json.loads(result.stdout)
    assert result.exit_code == exit_code
    assert report["ready"] is (exit_code == 0)
    assert [check["name"] for check in report["checks"]] == [check.name for check in found]
    assert report["environment"]["torch"]["version"]
    assert found[-1].found in result.stderr


def test_this_machine_can_be_looked_at(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checks, "reach", lambda url, timeout_seconds: (None, 0.1))
    names = [check.name for check in checks.run_checks()]
    assert names[:4] == ["python", "packages", "torch", "processor"]
    assert len(names) == len(set(names)) == 13
