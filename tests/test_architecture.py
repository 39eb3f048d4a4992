"""The house keeps its floors: imports go down or sideways within one room, files fit in one reading."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lorafy
from lorafy.config import RunConfig
from lorafy.plugins import plugin_names

SOURCE = Path(lorafy.__file__).parent

FLOORS = {
    "types": 0, "contracts": 0, "adapter_contract": 0, "plugins": 0,
    "config": 1, "run_directory": 1, "machine": 1, "metrics": 1, "pictures": 1,
    "formats": 2, "objectives": 2, "encoding": 2, "trackers": 2, "kernels": 2,
    "models": 3, "data": 3, "engine": 3,
    "training": 4, "evaluation": 4, "inference": 4, "report": 4, "preflight": 4, "adapters": 4,
    "tasks": 5,
    "workflows": 6,
}  # fmt: skip
"""docs/architecture.md, "The rooms". What is not named here calls the workflows: floor 7."""

TOP = 7
APART = {2, 3, 4}
"""On these floors a room imports no neighbour."""

ONLY_TYPING = {("contracts", "config"), ("contracts", "metrics"), ("adapter_contract", "config")}
"""The seams name sections of the tree in their signatures, and import them for the type checker alone."""

ALONE = "scratch"
"""The course's LoRA, an oracle for ours: it imports torch and the standard library, and nothing of ours imports it."""

MOST_LINES = 400


def files() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def room_of(module: str) -> str:
    """`lorafy.data.splits` stands in the room `data`; `lorafy` itself in ``."""
    return module.split(".")[1] if "." in module else ""


def module_of(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of every module of ours that a file imports, inside functions and for types too."""
    yield from ((line, name) for line, name in all_imports(path) if name.split(".")[0] == "lorafy")


def all_imports(path: Path) -> Iterator[tuple[int, str]]:
    package = module_of(path) if path.name == "__init__.py" else module_of(path).rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found = [f"{base}.{alias.name}" if base == "lorafy" else base for alias in node.names]
        else:
            continue
        yield from ((node.lineno, name) for name in found)


def test_imports_go_down_or_stay_in_the_room() -> None:
    wrong = []
    for path in files():
        here = room_of(module_of(path))
        for line, name in imports(path):
            there = room_of(name)
            if here == there or (here, there) in ONLY_TYPING:
                continue
            up, down = FLOORS.get(here, TOP), FLOORS.get(there, TOP)
            if down > up or (down == up and up in APART):
                wrong.append(f"{path.relative_to(SOURCE)}:{line}: {here} (floor {up}) imports {there} (floor {down})")
    assert wrong == []


def test_scratch_stands_apart() -> None:
    allowed = {"torch", *sys.stdlib_module_names}
    wrong = []
    for path in files():
        inside = room_of(module_of(path)) == ALONE
        for line, name in all_imports(path):
            if inside and name.split(".")[0] not in allowed and not name.startswith(f"lorafy.{ALONE}"):
                wrong.append(f"{path.relative_to(SOURCE)}:{line}: {ALONE} imports {name}")
            if not inside and room_of(name) == ALONE and name.startswith("lorafy."):
                wrong.append(f"{path.relative_to(SOURCE)}:{line}: imports {name}")
    assert (SOURCE / ALONE).is_dir()
    assert wrong == []


def test_what_is_imported_for_types_only_stays_so() -> None:
    for name, modules in (("contracts", ["types"]), ("adapter_contract", [])):
        tree = ast.parse((SOURCE / f"{name}.py").read_text(encoding="utf-8"))
        at_run_time = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.level]
        assert [node.module for node in at_run_time] == modules


def test_every_floor_names_a_room_that_is_there() -> None:
    rooms = {path.stem if path.is_file() else path.name for path in SOURCE.iterdir()}
    assert set(FLOORS) <= rooms


def test_a_file_fits_in_one_reading() -> None:
    lengths = {str(path.relative_to(SOURCE)): len(path.read_text(encoding="utf-8").splitlines()) for path in files()}
    assert {name: length for name, length in lengths.items() if length > MOST_LINES} == {}


def test_text_files_are_opened_as_utf8() -> None:
    """Windows opens them in the user's code page otherwise."""
    wrong = []
    for path in files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and _opens_text(node) and not _names_encoding(node):
                wrong.append(f"{path.relative_to(SOURCE)}:{node.lineno}: {ast.unparse(node)}")
    assert wrong == []


def _opens_text(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name in ("read_text", "write_text"):
        # run_directory.write_text is ours: it writes UTF-8, and takes no encoding.
        return isinstance(call.func, ast.Attribute)
    if ast.unparse(call.func) == "Image.open":
        return False  # Pillow's reads bytes
    modes = [value for value in [*call.args, *(k.value for k in call.keywords)] if isinstance(value, ast.Constant)]
    return name == "open" and not any(isinstance(mode.value, str) and "b" in mode.value for mode in modes)


def _names_encoding(call: ast.Call) -> bool:
    return any(keyword.arg == "encoding" for keyword in call.keywords)


PUBLIC = {
    "Adapters", "Answer", "Classifier", "ConfigError", "DataError", "Interrupted", "LanguageModel", "ModelError",
    "MultiLabelClassifier", "MultiLabelPrediction", "NonFiniteLoss", "Prediction", "Regressor", "Run", "RunError",
    "UserError", "ValuePrediction", "__version__", "combine", "compare", "evaluate", "load", "merge",
    "train", "train_all", "verify",
}  # fmt: skip


def test_public_names() -> None:
    assert set(lorafy.__all__) == PUBLIC == set(dir(lorafy))
    for name in PUBLIC - {"__version__"}:
        assert getattr(lorafy, name).__name__ == name
    assert lorafy.__version__ == importlib.metadata.version("lorafy")
    assert (SOURCE / "py.typed").is_file()
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        lorafy.trian  # noqa: B018


TASK_NAMES = re.compile(r"causal_lm|CausalLM|isinstance\(.*(Classification|CausalLM)")
METHOD_NAMES = re.compile(r'"(lora|adalora|dora|pissa|olora|loftq|full|none)"')
KNOWS_TASKS = ("tasks/", "engine/families/", "config/")
KNOWS_METHODS = ("adapters/", "config/schema.py")


@pytest.mark.parametrize(("names", "homes"), [(TASK_NAMES, KNOWS_TASKS), (METHOD_NAMES, KNOWS_METHODS)])
def test_nobody_else_knows_a_task_or_a_method_by_name(names: re.Pattern[str], homes: tuple[str, ...]) -> None:
    wrong = []
    for path in files():
        place = path.relative_to(SOURCE).as_posix()
        lines = enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        wrong += [f"{place}:{number}: {line.strip()}" for number, line in lines if names.search(line)]
    assert [line for line in wrong if not line.startswith(homes)] == []


@pytest.mark.parametrize("seam", ["tasks", "adapters"])
def test_a_plug_in_is_named_in_no_other_room(seam: str) -> None:
    """Not by import either: the rooms below are handed what they need. The public face names what `load` gives."""
    homes = {seam, ""}
    wrong = []
    for path in files():
        here = room_of(module_of(path))
        for line, name in imports(path):
            if here not in homes and name.startswith(f"lorafy.{seam}."):
                wrong.append(f"{path.relative_to(SOURCE)}:{line}: imports {name}")
    assert wrong == []


@pytest.mark.parametrize("seam", ["tasks", "adapters", "formats", "trackers"])
def test_the_schema_names_every_plug_in(seam: str) -> None:
    """So that the reference, editors and the refusal of a misspelt name know it."""
    schema = json.dumps(RunConfig.model_json_schema())
    assert [name for name in plugin_names(seam) if f'"{name}"' not in schema] == []


@pytest.mark.parametrize("arguments", [None, ["--help"], ["train", "--help"], ["config", "no-such.yaml"]], ids=str)
def test_import_help_and_a_refused_recipe_load_nothing_heavy(arguments: list[str] | None, tmp_path: Path) -> None:
    run = "import lorafy" if arguments is None else f"sys.argv[1:] = {arguments}\nfrom lorafy.cli import main\nmain()"
    heavy = {"torch", "transformers", "peft", "datasets", "accelerate", "matplotlib", "sklearn"}
    if arguments is None or "--help" in arguments:
        heavy.add("rich")  # half of the time of a help
    code = f"import sys\ntry:\n    exec({run!r})\nfinally:\n    print('heavy:', sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", timeout=120, cwd=tmp_path, check=False
    )
    assert "heavy: []" in done.stdout, done.stdout + done.stderr
