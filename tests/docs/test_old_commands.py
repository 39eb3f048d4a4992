"""docs/from-other-tools.md: every command of the framework with a config.yaml runs as the page says, and its settings
arrive. The framework's own file; a tiny Qwen3 that reads bytes in place of the real one; four short rows of data."""

from __future__ import annotations

import io
import json
import math
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from command_line import Outcome
from language_models import USERS_TRAIN, save_language_model, write_rows
from lorafy import api, cli
from lorafy.config import load_config
from lorafy.config.schema import GenerationSection
from lorafy.inference import chat as chatting
from lorafy.run_directory import RunDirectory

ROOT = Path(__file__).parents[2]
PAGE, CHINESE_PAGE = ROOT / "docs" / "from-other-tools.md", ROOT / "docs" / "from-other-tools.zh-CN.md"

OPTIONS = {
    "--config", "--task", "--model_name_or_path", "--output_dir", "--num_train_epochs", "--per_device_train_batch_size",
    "--learning_rate", "--lora_r", "--lora_alpha", "--lora_model_path", "--use_original_model", "--max_new_tokens",
    "--temperature", "--top_p", "--repetition_penalty",
}  # fmt: skip
"""What the framework's main.py knew."""
NUM_ROWS = 4


def rows_below(heading: str) -> list[list[str]]:
    """The cells of the table below a heading, without its first two lines; a command without its marks."""
    section = PAGE.read_text(encoding="utf-8").partition(f"\n{heading}\n")[2].partition("\n#")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines[2:]]


OLD_AND_NEW = [(old, new) for old, new in rows_below("## The LoRA framework with a config.yaml")]
TALKS = [(old, new) for old, new in OLD_AND_NEW if "--task inference" in old]
TRAININGS = [(old, new) for old, new in OLD_AND_NEW if "--task train" in old]
EVALUATIONS = [(old, new) for old, new in OLD_AND_NEW if "--task evaluate" in old]
PRESETS = [row[-1] for row in rows_below("### Presets for talking")]
HARDWARE = [row[-1] for row in rows_below("### Presets for hardware")]


def options(command: str) -> dict[str, str]:
    """`--name value`, with "" for a name without one."""
    return {name: value for name, value in re.findall(r"(--\w+)(?: (?!--)(\S+))?", command)}


def run(command: str, folder: Path, stdin: str = "") -> Outcome:
    """A command line in this process, cut as a shell cuts it, in this folder."""
    stdout, stderr = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", shlex.split(command))
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8"))
        patch.setattr(sys, "stdout", stdout)
        patch.setattr(sys, "stderr", stderr)
        with pytest.raises(SystemExit) as stop:
            cli.main()
    shown = []
    for stream in (stdout, stderr):
        stream.seek(0)
        shown.append(stream.read())
    assert stop.value.code == 0, f"{command}\n{shown[0]}\n{shown[1]}"
    return Outcome(0, *shown)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user of the framework has, before any training. Copy it."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "config.yaml").write_text(USERS_TRAIN, encoding="utf-8")
    for name in ("Qwen3-1.7B", "Qwen3-0.6B"):
        save_language_model("qwen3", folder / name)
    (folder / "data").mkdir()
    advice = {"怎样早睡？": "关灯。", "菜太咸怎么办？": "加点水。", "怎样省钱？": "先记账。", "何时浇花？": "土干了。"}
    rows = [{"text": question, "target": answer} for question, answer in advice.items()]
    assert len(rows) == NUM_ROWS
    write_rows(folder / "data" / "train.json", rows)
    write_rows(folder / "data" / "validation.json", [{"text": "怎样早起？", "target": "早点睡。"}])
    return folder


@pytest.fixture(scope="module")
def trained(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project after the table's first command."""
    folder = tmp_path_factory.mktemp("trained") / "project"
    shutil.copytree(project, folder)
    _, command = TRAININGS[0]
    run(command, folder)
    return folder


@pytest.fixture
def evaluated_before(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spares each training its evaluation, which the first one has had."""
    results = (trained / "output" / "eval_results.json").read_text(encoding="utf-8")

    def evaluate(verb: str, path: Path, what: str, settings: Sequence[str], *, even_failed: bool) -> dict[str, Any]:
        assert verb == "evaluate" and even_failed
        RunDirectory(path).eval_results.write_text(results, encoding="utf-8")
        return json.loads(results)

    monkeypatch.setattr(api, "run_verb", evaluate)


@pytest.fixture
def asked_with(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[GenerationSection]]:
    """The settings of each answer in a talk."""
    seen: list[GenerationSection] = []
    generate = chatting.generate

    def record(
        model: Any, encoder: Any, conversations: Any, settings: GenerationSection, *rest: Any, **named: Any
    ) -> Any:
        seen.append(settings)
        return generate(model, encoder, conversations, settings, *rest, **named)

    monkeypatch.setattr(chatting, "generate", record)
    yield seen


def assert_trained_so(folder: Path, given: dict[str, str]) -> None:
    """The run that this command line made says what it was told, and the framework's file the rest."""
    told = yaml.safe_load(USERS_TRAIN) | {name.removeprefix("--"): value for name, value in given.items()}
    run = RunDirectory(folder / told["output_dir"])
    assert run.is_finished
    adapter = json.loads((run.adapter / "adapter_config.json").read_text(encoding="utf-8"))
    summary = json.loads(run.summary.read_text(encoding="utf-8"))
    config = load_config(run.config)
    assert Path(adapter["base_model_name_or_path"]) == (folder / told["model_name_or_path"]).resolve()
    assert (adapter["r"], adapter["lora_alpha"]) == (int(told["lora_r"]), int(told["lora_alpha"]))
    assert sorted(adapter["target_modules"]) == ["q_proj", "v_proj"]
    assert summary["learning_rate"] == float(told["learning_rate"])
    at_a_time = int(told["per_device_train_batch_size"])
    batch = at_a_time * int(told.get("gradient_accumulation_steps", 1))
    assert (config.train.micro_batch_size, config.train.batch_size) == (at_a_time, batch)
    assert summary["num_steps"] == int(told["num_train_epochs"]) * math.ceil(NUM_ROWS / batch)
    assert config.model.dtype == told["torch_dtype"] and summary["dtype"] == "float32"


def test_the_table_maps_every_option_to_its_verb() -> None:
    assert {name for old, _ in OLD_AND_NEW for name in options(old)} == OPTIONS
    verbs = {"train": "train", "evaluate": "evaluate", "inference": "chat"}
    for old, new in OLD_AND_NEW:
        given = options(old)
        assert shlex.split(new)[:2] == ["lorafy", verbs[given.pop("--task")]]
        assert given.pop("--config") == "config.yaml"
        kept = {name: value for name, value in given.items() if value and value not in shlex.split(new)[2:3]}
        assert kept == {name: value for name, value in options(new).items() if value}, "options keep their names"
    assert len(TRAININGS) + len(EVALUATIONS) + len(TALKS) == len(OLD_AND_NEW)


def test_the_plain_training(trained: Path) -> None:
    assert_trained_so(trained, {})
    results = json.loads((trained / "output" / "eval_results.json").read_text(encoding="utf-8"))
    assert results["verification"]["passed"] and results["num_examples"] == 1


@pytest.mark.parametrize("command", [new for _, new in TRAININGS[1:]] + HARDWARE)
def test_a_training(command: str, project: Path, tmp_path: Path, evaluated_before: None) -> None:
    folder = tmp_path / "project"
    shutil.copytree(project, folder)
    run(command, folder)
    assert_trained_so(folder, options(command))


@pytest.mark.parametrize("command", dict.fromkeys(new for _, new in EVALUATIONS))
def test_an_evaluation(command: str, trained: Path) -> None:
    results = trained / "output" / "eval_results.json"
    results.unlink()
    shown = run(command, trained).stdout
    assert "perplexity" in shown and "base" in shown, "the original model stands beside"
    assert json.loads(results.read_text(encoding="utf-8"))["base"]["loss"] > 0


@pytest.mark.parametrize("command", dict.fromkeys([new for _, new in TALKS] + PRESETS))
def test_a_talk(command: str, trained: Path, asked_with: list[GenerationSection]) -> None:
    shown = run(command, trained, stdin="怎样早睡？\nexit\n").stdout
    model = shlex.split(command)[2]
    is_original = "--base" in command or "Qwen3" in model
    assert f"the {'original' if is_original else 'trained'} model of {model}" in shown
    (settings,) = asked_with
    given = {name.removeprefix("--"): float(value) for name, value in options(command).items() if value}
    assert {name: getattr(settings, name) for name in given} == given


def test_every_recipe_and_verb_on_the_page_is_there() -> None:
    text = PAGE.read_text(encoding="utf-8")
    recipes = set(re.findall(r"recipes/[\w/]+\.yaml", text))
    assert recipes and all((ROOT / recipe).is_file() for recipe in recipes)
    known = {command.callback.__name__ for command in cli.app.registered_commands if command.callback}
    assert set(re.findall(r"`lorafy (\w+)", text)) <= known


def test_both_languages_show_the_same_commands() -> None:
    english, chinese = (
        [re.findall(r"`[^`]+`", line) for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
        for page in (PAGE, CHINESE_PAGE)
    )
    assert english == chinese
