"""Adapters of one task made into one: the sum that was asked for, in peft's format, the same from disk."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import lorafy
from lorafy.api import combine, evaluate, merge, verify
from lorafy.run_directory import RunDirectory
from lorafy.types import UserError
from several import alone, config_of, folder_of, news_csv
from tolerances import FLOAT32_ROUNDING

TEXTS = ["win a free phone , call now", "see you at lunch tomorrow", "ok"]
KINDS: dict[str, dict[str, Any]] = {
    "one": {"r": 4},
    "two": {"r": 4, "use_rslora": True, "alpha": 3},
    "other-rank": {"r": 6, "rank_pattern": {"query": 2}, "alpha_pattern": {"query": 5}},
    "few-layers": {"r": 4, "target_modules": ["query"]},
    "dora": {"method": "dora", "r": 4},
    "adalora": {"method": "adalora", "r": 4},
    "head": {"method": "none"},
    "pissa": {"method": "pissa", "r": 2},
}


@pytest.fixture(scope="module")
def runs(tiny_bert: Path, sms_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunDirectory]:
    folder = tmp_path_factory.mktemp("parts")
    configs = {
        name: config_of(tiny_bert, sms_csv, folder, name, adapter=adapter, run={"seed": seed})
        for seed, (name, adapter) in enumerate(KINDS.items())
    }
    return {name: alone(config, folder) for name, config in configs.items()}


def recipe(runs: dict[str, RunDirectory], *names: str, **sections: Any) -> dict[str, Any]:
    return {"adapters": {name: str(runs[name].path) for name in names}, **sections}


def deltas(folder: Path, base: Path) -> dict[str, torch.Tensor]:
    """W' - W of each linear weight and the head's tensors themselves, by plain peft on the untouched base, float64."""

    def model() -> Any:
        torch.manual_seed(0)
        return AutoModelForSequenceClassification.from_pretrained(base).double()

    before = model().state_dict()
    after = PeftModel.from_pretrained(model(), folder).double().merge_and_unload().state_dict()
    return {name: after[name] - (0 if "classifier" in name else before[name]) for name in before}


@pytest.mark.parametrize(
    ("names", "method"),
    [
        (("one", "two"), "cat"),
        (("one", "other-rank", "few-layers"), "cat"),
        (("one", "pissa"), "cat"),
        (("one", "two"), "svd"),
        (("other-rank", "two"), "svd"),
    ],
)
def test_the_sum_is_the_sum(
    runs: dict[str, RunDirectory], tiny_bert: Path, tmp_path: Path, names: tuple[str, ...], method: str
) -> None:
    """Of what each adds to the base's weights, in scale too, whatever the ranks; the heads are averaged."""
    weights = dict(zip(names, (0.5, 0.9, -0.3), strict=False))
    rank = None if method == "cat" else 12
    combine(recipe(runs, *names), weights, tmp_path / "sum", method=method, rank=rank)
    found = deltas(tmp_path / "sum", tiny_bert)
    parts = {name: deltas(folder_of(runs[name]), tiny_bert) for name in names}
    for name, tensor in found.items():
        expected = torch.stack([weight * parts[part][name] for part, weight in weights.items()]).sum(0)
        if "classifier" in name:
            expected /= sum(weights.values())
        torch.testing.assert_close(tensor, expected, rtol=FLOAT32_ROUNDING, atol=FLOAT32_ROUNDING)
    assert any(tensor.abs().max() > 1e-3 for name, tensor in found.items() if "classifier" not in name)


@pytest.mark.parametrize("method", ["linear", "ties", "dare_linear", "dare_ties", "magnitude_prune", "dare_ties_svd"])
def test_every_way_loads_in_plain_peft_and_in_every_verb(
    runs: dict[str, RunDirectory], tiny_bert: Path, sms_csv: Path, tmp_path: Path, method: str
) -> None:
    folder = tmp_path / "sum"
    data = {"test": str(sms_csv)}
    result = combine(recipe(runs, "one", "two", data=data), "one=1,two=0.5", folder, method=method)
    assert result["verification"]["passed"] and verify(folder)["passed"]
    assert list(result["evaluation"]) == ["one", "two", "= combined"]
    scored = result["evaluation"]["= combined"]
    again = evaluate(folder, [f"data.test={sms_csv}"])
    assert scored["metrics"] == again["metrics"] and scored["num_examples"] == 80
    model = PeftModel.from_pretrained(AutoModelForSequenceClassification.from_pretrained(tiny_bert), folder).eval()
    inputs = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = model(**inputs).logits.softmax(-1)
    found = torch.tensor([list(p.probabilities.values()) for p in lorafy.load(folder).predict(TEXTS)])
    torch.testing.assert_close(found, expected, rtol=FLOAT32_ROUNDING, atol=FLOAT32_ROUNDING)
    assert merge(folder, tmp_path / "merged")["verification"]["passed"]
    assert lorafy.load({"adapters": {"sum": str(folder), "one": str(runs["one"].path)}}).names == ["sum", "one"]


def test_what_dare_draws_depends_on_the_seed_alone(runs: dict[str, RunDirectory], tmp_path: Path) -> None:
    def sha256(name: str, seed: int) -> str:
        torch.manual_seed(len(name))
        tree = recipe(runs, "one", "two")
        combine(tree, "one=1,two=1", tmp_path / name, method="dare_linear", overrides=[f"run.seed={seed}"])
        return hashlib.sha256((tmp_path / name / "adapter_model.safetensors").read_bytes()).hexdigest()

    assert sha256("a", 1) == sha256("same", 1) != sha256("other", 2)


def test_language_models_and_their_trained_rows(stories: Path, tmp_path: Path) -> None:
    """Rows of the table are averaged as a head is; both models end their answers by them."""
    lines = "".join(f"Tell of {name}||Once {name} went home.\n" for name in ("Tom", "Lily", "Ben", "Sue", "Max") * 6)
    (tmp_path / "tales.txt").write_text(lines, encoding="utf-8")
    configs = [
        config_of(stories, tmp_path / "tales.txt", tmp_path, name, run={"seed": seed})
        for seed, name in enumerate(("a", "b"))
    ]
    runs = {str(config.run.name): alone(config, tmp_path) for config in configs}
    result = combine(recipe(runs, "a", "b"), {"a": 0.5, "b": 1.5}, tmp_path / "sum")
    assert result["verification"]["passed"] and result["evaluation"] is None
    assert result["head"] == ["model.embed_tokens"]
    name = "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"
    files = [load_file(folder / "adapter_model.safetensors")
             for folder in (folder_of(runs["a"]), folder_of(runs["b"]), tmp_path / "sum")]  # fmt: skip
    a, b, both = (file[name] for file in files)
    torch.testing.assert_close(both, 0.25 * a + 0.75 * b, rtol=FLOAT32_ROUNDING, atol=FLOAT32_ROUNDING)
    assert lorafy.load(tmp_path / "sum").generate(["Tell of Ben"], max_new_tokens=4)


@pytest.mark.parametrize(
    ("names", "weights", "settings", "said"),
    [
        (("one", "two"), "one=1", {}, ["a sum needs two"]),
        (("one", "two"), "one=1,tow=1,one=2,two=x", {}, ["did you mean two?", "more than once", "no NAME=NUMBER"]),
        (("one", "two"), "one=1,two=1", {"method": "tie"}, ["did you mean ties?"]),
        (("one", "two"), "one=1,two=1", {"method": "ties", "density": -0.5}, ["between 0 and 1, not -0.5"]),
        (("one", "two"), "one=1,two=1", {"density": 0.5, "rank": 3}, ["--density: no effect", "--rank: no effect"]),
        (("one", "two"), "one=1,two=-1", {}, ["their sum is not above 0"]),
        (("one", "other-rank"), "one=1,other-rank=1", {"method": "linear"}, ["has rank", "--method cat or svd"]),
        (("one", "dora"), "one=1,dora=1", {}, ["adapters.dora: DoRA divides"]),
        (("one", "adalora"), "one=1,adalora=1", {}, ["adapters.adalora: it is of peft's ADALORA"]),
        (("head", "one"), "one=1,head=1", {}, ["adapters.head: it is no adapter but a trained head"]),
    ],
)
def test_what_has_no_sum_is_refused_and_nothing_written(
    runs: dict[str, RunDirectory],
    tmp_path: Path,
    names: tuple[str, ...],
    weights: str,
    settings: dict[str, Any],
    said: list[str],
) -> None:
    with pytest.raises(UserError) as caught:
        combine(recipe(runs, *names), weights, tmp_path / "sum", **settings)
    assert [part for part in said if part not in str(caught.value)] == []
    assert list(tmp_path.iterdir()) == []


def test_other_labels_other_data_and_a_folder_that_is_there(
    runs: dict[str, RunDirectory], tiny_bert: Path, tmp_path: Path
) -> None:
    news = news_csv(tmp_path / "news.csv")
    topic = alone(config_of(tiny_bert, news, tmp_path, "topic"), tmp_path)
    with pytest.raises(UserError, match=r"adapters\.topic: it was trained for other answers than one: labels"):
        combine(recipe({**runs, "topic": topic}, "one", "topic"), "one=1,topic=1", tmp_path / "sum")
    with pytest.raises(UserError, match="labels that this model does not know"):
        combine(recipe(runs, "one", "two", data={"test": str(news)}), "one=1,two=1", tmp_path / "sum")
    assert not (tmp_path / "sum").exists()
    with pytest.raises(UserError, match="is there already"):
        combine(recipe(runs, "one", "two"), "one=1,two=1", topic.path)


def test_another_tool_s_adapters_are_added_up_too(
    runs: dict[str, RunDirectory], tiny_bert: Path, tmp_path: Path
) -> None:
    """Without lorafy's own files beside them."""
    folders = {}
    for name in ("one", "two"):
        folders[name] = tmp_path / name
        folders[name].mkdir()
        for file in folder_of(runs[name]).iterdir():
            if file.name not in ("lorafy.json", "probe.safetensors"):
                (folders[name] / file.name).write_bytes(file.read_bytes())
    tree = {"adapters": {name: str(folder) for name, folder in folders.items()}}
    result = combine(tree, "one=0.5,two=0.5", tmp_path / "sum")
    assert result["verification"]["passed"]
    assert json.loads((tmp_path / "sum" / "lorafy.json").read_text(encoding="utf-8"))["task"] == "classification"
