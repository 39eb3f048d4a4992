"""Methods side by side by several seeds: the plan, the words, going on after a stop."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from command_line import Outcome
from lorafy.cli.compare import more_names
from lorafy.config.schema import RunConfig
from lorafy.metrics import ACCURACY, PERPLEXITY
from lorafy.report.compare_plot import compare_title
from lorafy.run_directory import RunDirectory, read_json, write_json
from lorafy.tasks import load_kind
from lorafy.types import ConfigError, Problem, RunError
from lorafy.workflows import compare as workflow
from lorafy.workflows.candidates import default_candidates, named_candidates

CLASSIFIER = load_kind("classification")
WRITER = load_kind("causal_lm")


def config_of(**sections: Mapping[str, Any]) -> RunConfig:
    tree: dict[str, Any] = {"model": {"path": "somewhere"}, "data": {"train": "a.csv"}}
    for name, section in sections.items():
        tree[name] = tree.get(name, {}) | dict(section)
    return RunConfig.model_validate(tree)


def names(candidates: Any) -> list[str]:
    return [candidate.name for candidate in candidates]


def test_without_names_the_methods_that_ask_for_it_are_compared() -> None:
    assert names(default_candidates(CLASSIFIER, config_of())) == ["none", "lora", "full"]
    assert names(default_candidates(WRITER, config_of())) == ["lora", "full"]
    assert names(default_candidates(WRITER, config_of(model={"quantise": "nf4"}))) == ["qlora", "full"]


def test_unknown_names_and_repeated_ones_are_told_together() -> None:
    with pytest.raises(ConfigError) as caught:
        named_candidates(WRITER, ["lora", "dorra", "lora", "none"])
    words = [str(problem) for problem in caught.value.problems]
    assert len(words) == 3
    assert "'lora' stands there more than once" in words[0]
    assert "did you mean dora?" in words[1]
    assert "no head that could be trained alone" in words[2]


def tree_for(name: str, config: RunConfig) -> dict[str, Any]:
    [candidate] = named_candidates(CLASSIFIER, [name])
    return candidate.tree(config, config.train.learning_rate or 5e-4, 7, "a run", Path("there"))


def test_what_the_recipe_says_holds_for_every_method_that_knows_it() -> None:
    config = config_of(adapter={"r": 4, "target_modules": ["query"]}, train={"learning_rate": 1e-3})
    assert tree_for("dora", config)["adapter"] == {"r": 4, "target_modules": ["query"], "method": "dora"}
    assert tree_for("dora", config)["train"]["learning_rate"] == 1e-3
    assert tree_for("full", config)["adapter"] == {"method": "full"}
    assert tree_for("full", config)["train"]["learning_rate"] == 5e-5
    assert tree_for("lora+", config)["adapter"]["lr_ratio"] == 16
    assert tree_for("rslora", config)["adapter"]["use_rslora"] is True
    assert tree_for("lora", config)["run"]["seed"] == 7


def test_the_base_is_quantised_for_those_methods_alone_that_are_about_it() -> None:
    assert tree_for("qlora", config_of())["model"]["quantise"] == "nf4"
    quantised = config_of(model={"quantise": "int8"})
    assert tree_for("qlora", quantised)["model"]["quantise"] == "int8"
    assert tree_for("lora", quantised)["model"]["quantise"] is None
    assert tree_for("full", quantised)["model"]["quantise"] is None


@pytest.mark.parametrize(
    ("methods", "words", "named", "settings"),
    [
        (None, ["train.max_steps=5"], None, ["train.max_steps=5"]),
        (["lora"], ["dora", "full"], ["lora", "dora", "full"], []),
        (["lora,dora"], ["adapter.r=4", "full"], ["lora", "dora", "full"], ["adapter.r=4"]),
        (["lora"], ["dora", "--lora_r", "8"], ["lora", "dora"], ["--lora_r", "8"]),
        (["lora", "dora"], ["--lora_r=8", "full"], ["lora", "dora", "full"], ["--lora_r=8"]),
    ],
)
def test_names_stand_behind_the_option_with_spaces_or_commas(
    methods: list[str] | None, words: list[str], named: list[str] | None, settings: list[str]
) -> None:
    assert more_names(methods, words) == (named, settings)


@pytest.fixture
def recipe_file(tiny_bert: Path, sms_csv: Path, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    tree = {"model": {"path": str(tiny_bert)}, "data": {"train": str(sms_csv)}, "train": {"learning_rate": 0.01}}
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


@pytest.mark.slow
def test_two_methods_by_two_seeds_trained_and_on_again_after_a_stop(
    lorafy: Callable[..., Outcome], recipe_file: Path, tmp_path: Path
) -> None:
    _two_by_two(lorafy, recipe_file, tmp_path)


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that are not trained: each is its recipe, and results that tell method and seed."""

    def run_verb(verb: str, path: Path, what: str, words: Sequence[str] = (), *, quiet: bool) -> dict[str, Any]:
        assert (verb, what, quiet) == ("train", "the training", False)
        recipe = path if path.is_file() else path / "config.yaml"
        tree = yaml.safe_load(recipe.read_text(encoding="utf-8"))
        if tree["train"]["max_steps"] == 1 and tree["adapter"]["method"] == "adalora":
            raise RunError(Problem(str(path), "AdaLoRA needs two steps", "train longer"))
        run = RunDirectory(Path(tree["run"]["output_dir"]) / tree["run"]["name"])
        run.adapter.mkdir(parents=True, exist_ok=True)
        shutil.copy(recipe, run.config) if recipe != run.config else None
        write_json(run.preflight, {})
        share = 0.5 + tree["run"]["seed"] / 1000 + (0.01 if tree["adapter"].get("use_rslora") else 0)
        metrics = {"accuracy": share, "accuracy_interval": [share - 0.1, share + 0.1], "f1_macro": share}
        told = {"task": "classification", "split": "test", "num_examples": 16, "metrics": metrics}
        write_json(run.eval_results, told | {"verification": {"passed": True, "checks": []}})
        facts = ("trainable_parameters", "total_parameters", "peak_memory_bytes", "seconds", "bytes_on_disk")
        write_json(run.summary, dict.fromkeys(facts, 1000) | {"task": "classification", "learning_rate": 0.01})
        return {"run": str(run.path), "summary": read_json(run.summary), "results": read_json(run.eval_results)}

    monkeypatch.setattr(workflow, "run_verb", run_verb)


def test_two_methods_by_two_seeds_and_on_again_after_a_stop(
    lorafy: Callable[..., Outcome], recipe_file: Path, tmp_path: Path, made_up: None
) -> None:
    _two_by_two(lorafy, recipe_file, tmp_path)


def _two_by_two(lorafy: Callable[..., Outcome], recipe_file: Path, tmp_path: Path) -> None:
    short = (f"run.output_dir={tmp_path}", "train.max_steps=3", "adapter.r=4")
    done = lorafy("compare", recipe_file, "--methods", "lora", "rslora", *short, "--seeds", "2", "--json")
    assert done.code == 0, done.stderr
    answer = json.loads(done.stdout)
    folder = Path(answer["directory"])
    assert answer["failed"] == [] and (folder / "plots" / "compare.png").is_file()
    lora, rslora = answer["rows"]
    assert [run["seed"] for run in lora["runs"]] == lora["seeds"] == [42, 43]
    values = [read_json(folder / f"lora-{seed}" / "eval_results.json")["metrics"]["accuracy"] for seed in (42, 43)]
    assert lora["accuracy"] == pytest.approx(sum(values) / 2)
    assert "difference" not in lora and rslora["against"] == "LoRA"
    low, high = rslora["difference"]["accuracy_interval"]
    assert lora["accuracy_interval"][1] <= 1
    assert low <= rslora["difference"]["accuracy"] <= high
    assert "(4 of 4, seed 43, about" in done.stderr
    assert "where its interval holds 0, this is no evidence of any" in done.stderr.replace("\n", " ")
    assert ">against LoRA<" in (folder / "report.html").read_text(encoding="utf-8")

    # As if it had been killed in its third run: the other runs are not trained again.
    untouched = (folder / "lora-42" / "summary.json").stat().st_mtime_ns
    shutil.rmtree(folder / "lora-43")
    (folder / "rslora-43" / "eval_results.json").unlink()
    again = lorafy("compare", folder, "--resume", "--json")
    assert again.code == 0, again.stderr
    rows = json.loads(again.stdout)["rows"]
    assert [row["accuracy"] for row in rows] == [lora["accuracy"], rslora["accuracy"]]
    assert (folder / "lora-42" / "summary.json").stat().st_mtime_ns == untouched

    for words, said in (
        (["--methods", "lora"], "no effect with --resume"),
        (["train.max_steps=5"], "no effect with --resume"),
    ):
        refused = lorafy("compare", folder, "--resume", *words)
        assert refused.code == 2 and said in refused.stderr
    refused = lorafy("compare", tmp_path, "--resume")
    assert refused.code == 2 and "no comparison began in this folder" in refused.stderr


@pytest.mark.slow
def test_a_run_that_fails_in_a_process_stops_no_other_one(
    lorafy: Callable[..., Outcome], recipe_file: Path, tmp_path: Path
) -> None:
    _one_fails(lorafy, recipe_file, tmp_path)


def test_a_run_that_fails_stops_no_other_one(
    lorafy: Callable[..., Outcome], recipe_file: Path, tmp_path: Path, made_up: None
) -> None:
    _one_fails(lorafy, recipe_file, tmp_path)


def _one_fails(lorafy: Callable[..., Outcome], recipe_file: Path, tmp_path: Path) -> None:
    """AdaLoRA needs two steps."""
    short = (f"run.output_dir={tmp_path}", "train.max_steps=1")
    done = lorafy("compare", recipe_file, "--methods", "adalora", "lora", *short, "--json")
    answer = json.loads(done.stdout)
    assert done.code == 2
    assert answer["failed"] == ["adalora"] and [row["method"] for row in answer["rows"]] == ["lora"]
    assert "Not trained: adalora" in done.stderr and "--resume" in done.stderr


def test_what_a_method_cannot_take_is_told_before_anything_is_written(
    lorafy: Callable[..., Outcome], recipe_file: Path, tmp_path: Path
) -> None:
    done = lorafy("compare", recipe_file, "--methods", "lora", "dorra", f"run.output_dir={tmp_path / 'runs'}")
    assert done.code == 2 and "did you mean dora?" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_the_title_names_the_methods_that_differ_seed_by_seed() -> None:
    lora: dict[str, Any] = {"accuracy": 0.84, "accuracy_interval": [0.83, 0.85]}
    dora: dict[str, Any] = {"accuracy": 0.85, "accuracy_interval": [0.83, 0.87], "against": "LoRA"}
    same = dora | {"difference": {"accuracy": 0.01, "accuracy_interval": [-0.01, 0.03]}}
    apart = dora | {"difference": {"accuracy": 0.01, "accuracy_interval": [0.005, 0.015]}}
    said = compare_title([same, lora], ["DoRA", "LoRA"], ACCURACY)
    assert said == "Highest accuracy: DoRA, 85.0 %; seed by seed no method differs from LoRA"
    said = compare_title([apart, lora], ["DoRA", "LoRA"], ACCURACY)
    assert said == "Highest accuracy: DoRA, 85.0 %; seed by seed DoRA differs from LoRA"
    assert ACCURACY.difference(apart["difference"]) == "+1.00 (+0.50 to +1.50) points"
    assert PERPLEXITY.difference({"perplexity": -0.25, "perplexity_interval": [-0.5, 0]}) == "-0.25 (-0.50 to 0.00)"
