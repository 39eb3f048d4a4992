"""Python code that a model carries runs where the person who runs the verb says so, and nowhere else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from strangers import change_json, model_with_code

import lorafy
from command_line import Outcome
from language_models import save_language_model
from lorafy.config.schema import ModelSection
from lorafy.models.load import open_source
from lorafy.types import ConfigError, ModelError
from lorafy.workflows.load import load_trained
from tiny_models import make_config
from trained_runs import train

YES = "model.trust_remote_code=true"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def stranger(home: Path, tiny_bert: Path, own_modules: None) -> Path:
    return model_with_code(tiny_bert, home / "stranger", home / "ran")


@pytest.fixture
def ran(home: Path) -> Path:
    """The file that the stranger's code writes."""
    (home / "ran").unlink(missing_ok=True)
    return home / "ran"


def recipe_tree(base: Path, data: Path, folder: Path, trust: bool) -> dict[str, Any]:
    return {
        "run": {"name": "first", "output_dir": str(folder / "runs")},
        "model": {"path": str(base), "trust_remote_code": trust},
        "data": {"train": str(data)},
        "train": {"max_steps": 2, "batch_size": 8},
        "trackers": ["jsonl"],
    }


@pytest.fixture(scope="module")
def run(stranger: Path, sms_csv: Path, home: Path) -> Path:
    """A finished run over the model with code, whose recipe allowed it; its lorafy.json and config.yaml say true. That
    it is finished shows that training hands the recipe's wish on to the process that evaluates. Read it only."""
    path = lorafy.train(recipe_tree(stranger, sms_csv, home, True), console=Console(quiet=True)).path
    assert json.loads((path / "eval_results.json").read_text(encoding="utf-8"))["verification"]["passed"]
    assert json.loads((path / "adapter" / "lorafy.json").read_text(encoding="utf-8"))["model"]["trust_remote_code"]
    assert (home / "ran").exists()
    return path


def refused(done: Outcome, ran: Path) -> None:
    assert done.code == 2, done.stdout + done.stderr
    assert "model.trust_remote_code" in done.stderr and "nobody here said that it may" in done.stderr
    assert not ran.exists()


def test_no_verb_takes_a_runs_own_word(told, run: Path, ran: Path, tmp_path: Path) -> None:
    for model in (run, run / "adapter", run / "config.yaml"):
        refused(told("predict", model, "a text"), ran)
    refused(told("evaluate", run), ran)
    refused(told("verify", run), ran)
    refused(told("merge", run, "--output", tmp_path / "merged"), ran)
    refused(told("generate", run, "--prompt", "a question"), ran)
    refused(told("chat", run), ran)
    with pytest.raises(ModelError, match="nobody here said"):
        lorafy.load(run)
    assert not ran.exists()


def test_every_verb_takes_the_word_of_who_runs_it(told, run: Path, ran: Path, tmp_path: Path) -> None:
    given: list[tuple[str | Path, ...]] = [
        ("predict", run, "a text", "--trust-remote-code"),
        ("evaluate", run, YES),
        ("verify", run, YES),
        ("merge", run, "--output", tmp_path / "merged", YES),
        ("predict", tmp_path / "merged", "a text", "--trust-remote-code"),
    ]
    for words in given:
        done = told(*words)
        assert done.code == 0, done.stderr
        assert ran.exists(), words
        ran.unlink()
    wrong_kind = told("generate", run, YES, "--prompt", "a question")
    assert "this is a classifier" in wrong_kind.stderr and ran.exists(), (
        "loaded, and then found to be no language model"
    )
    assert lorafy.load(run, [YES]).predict(["a text"])
    assert "should be true or false" in told("verify", run, "model.trust_remote_code=perhaps").stderr


def test_a_text_is_no_word_for_it(told, run: Path, ran: Path) -> None:
    refused(told("predict", run, YES), ran)


def test_a_recipe_speaks_for_its_author_and_a_runs_folder_for_nobody(
    told, run: Path, ran: Path, tmp_path: Path, stranger: Path, sms_csv: Path
) -> None:
    asked = told("train", run, "--resume")
    assert asked.code == 2 and YES in asked.stderr and not ran.exists()
    for verb in ("prepare", "plan", "compare"):
        assert told(verb, run).code == 2 and not ran.exists()
    assert told("train", run, "--resume", YES).code == 0
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump(recipe_tree(stranger, sms_csv, run.parents[1], True)), encoding="utf-8")
    assert told("prepare", own).code == 0 and ran.exists()
    ran.unlink()
    done = told("predict", own, "a text")
    assert done.code == 0 and ran.exists(), done.stderr
    ran.unlink()
    with pytest.raises(ConfigError, match="a run has no say"):
        lorafy.train(run)
    refused(told("prepare", own, "model.trust_remote_code=false"), ran)


def test_a_base_inside_an_adapter_runs_nothing_and_is_named(told, run: Path, ran: Path, stranger: Path, tmp_path: Path):
    """The adapter that started this: its base in its own folder, and its own word that the code may run."""
    gift = tmp_path / "gift"
    shutil.copytree(run / "adapter", gift)
    shutil.copytree(stranger, gift / "base")
    model = json.loads((gift / "lorafy.json").read_text(encoding="utf-8"))["model"]
    change_json(gift / "lorafy.json", model=model | {"path": str(gift / "base"), "trust_remote_code": True})
    done = told("predict", gift, "a text")
    refused(done, ran)
    assert f"says: the folder {gift / 'base'}" in done.stderr
    (gift / "lorafy.json").unlink()  # as another tool would have written it
    change_json(gift / "adapter_config.json", base_model_name_or_path=str(gift / "base"), trust_remote_code=True)
    refused(told("predict", gift, "a text"), ran)


def test_a_tokenizer_with_code_runs_nothing(told, tmp_path: Path, tiny_bert: Path, sms_csv: Path, ran: Path) -> None:
    run = train(make_config(tiny_bert, sms_csv, train={"max_steps": 1}), tmp_path / "run").path
    (run / "adapter" / "tokens.py").write_text(f"open({str(ran)!r}, 'w').close()\n", encoding="utf-8")
    code = {"AutoTokenizer": ["tokens.Own", "tokens.Own"]}
    change_json(run / "adapter" / "tokenizer_config.json", tokenizer_class="Own", auto_map=code)
    refused(told("predict", run, "a text"), ran)


def test_generation_code_runs_nothing(told, tmp_path: Path) -> None:
    """transformers puts a model's custom_generate/generate.py in the place of its own generate."""
    base, mark = save_language_model("gpt2", tmp_path / "base"), tmp_path / "mark"
    (base / "custom_generate").mkdir()
    code = f"open({str(mark)!r}, 'w').close()\ndef generate(model, **more): raise SystemExit\n"
    (base / "custom_generate" / "generate.py").write_text(code, encoding="utf-8")
    done = told("generate", base, "--prompt", "Hi", "generation.max_new_tokens=2")
    assert done.code == 0 and not mark.exists(), done.stderr


def test_attention_from_the_hub_is_refused(tmp_path: Path, tiny_bert: Path) -> None:
    """transformers fetches and runs what config.json names like a repository."""
    base = tmp_path / "base"
    shutil.copytree(tiny_bert, base)
    change_json(base / "config.json", attn_implementation="stranger/fast-attention")
    with pytest.raises(ModelError, match="attention code from the hub: stranger/fast-attention"):
        open_source(ModelSection(path=str(base)))


@pytest.mark.parametrize(
    "more",
    [
        {"megatron_config": {"a": 1}, "megatron_core": "os.path"},
        {"shadow_model": "stranger/model"},
        {"adapters": {"1": "stranger/adapter"}},
    ],
    ids=lambda more: str(next(iter(more))),
)
def test_an_adapter_names_no_further_models_or_packages(
    tmp_path: Path, tiny_bert: Path, sms_csv: Path, more: dict[str, Any]
) -> None:
    run = train(make_config(tiny_bert, sms_csv, train={"max_steps": 1}), tmp_path / "run").path
    change_json(run / "adapter" / "adapter_config.json", **more)
    with pytest.raises(ModelError, match="more than this folder"):
        load_trained(run)


@pytest.mark.parametrize("key", ["task", "method"])
@pytest.mark.parametrize("name", ["../cli/chat", "/tmp/stranger", "os.path"])
def test_a_plug_in_is_no_path(tmp_path: Path, key: str, name: str) -> None:
    manifest: dict[str, Any] = dict.fromkeys(("lorafy_version", "task", "method", "base_fingerprint"), "lora") | {
        "labels": ["a"]
    }
    manifest |= {"model": {"path": "minilm"}, "max_length": 8, "seed": 0, "head": [], key: name}
    (tmp_path / "lorafy.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(ConfigError, match="is not one of"):
        load_trained(tmp_path)
