"""Every recipe for classifiers trains, evaluates and verifies, with a tiny model and small local data in its places."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import lorafy
from lorafy.config import load_config
from tiny_models import save_distilbert

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
NAMES = ["agnews", "jigsaw", "sms_spam", "sst2_bert", "sst2_distilbert", "stsb", "thucnews"]
TASKS = {"jigsaw": "multi_label", "stsb": "regression"}
TOXIC = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]
TITLES = (
    "股市今日上涨",
    "新楼盘开售",
    "大盘收红",
    "高考时间公布",
    "新手机发布",
    "铁路通车",
    "外长访问",
    "球队夺冠",
    "网游公测",
    "电影上映",
)


def glue_like(folder: Path, rows: list[tuple[str, str]]) -> Path:
    """A saved data set in GLUE's form: sentence and label as class index, a test split without labels."""
    import datasets

    features = datasets.Features(
        {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["negative", "positive"])}
    )

    def split(part: list[tuple[str, str]], labelled: bool) -> datasets.Dataset:
        labels = [(label == "ham") * 1 if labelled else -1 for label, _ in part]
        return datasets.Dataset.from_dict({"sentence": [text for _, text in part], "label": labels}, features=features)

    whole = {"train": split(rows[:60], True), "validation": split(rows[60:], True), "test": split(rows[:5], False)}
    datasets.DatasetDict(whole).save_to_disk(str(folder))
    return folder


def chinese_titles(folder: Path) -> list[str]:
    """The three files of thucnews, ten classes each, no header; as overrides."""
    folder.mkdir()
    overrides = []
    for split, copies in (("train", 6), ("validation", 2), ("test", 2)):
        path = folder / f"{split}.txt"
        lines = [f"{title}{split}{copy}\t{label}\n" for copy in range(copies) for label, title in enumerate(TITLES)]
        path.write_text("".join(lines), encoding="utf-8")
        overrides.append(f"data.{split}={path}")
    return overrides


def jigsaw_like(path: Path, rows: list[tuple[str, str]]) -> Path:
    """A column of 0 and 1 for each label; ham has none of them."""
    lines = [
        f'{index},"{text}",' + ",".join(str(int(label == "spam" and index % place < 2)) for place in range(2, 8)) + "\n"
        for index, (label, text) in enumerate(rows)
    ]
    path.write_text(f"id,comment_text,{','.join(TOXIC)}\n" + "".join(lines), encoding="utf-8")
    return path


def stsb_like(folder: Path, rows: list[tuple[str, str]]) -> Path:
    """Pairs with a number, a test split with -1 everywhere."""
    import datasets

    texts = [text for _, text in rows]
    pairs = [{"sentence1": one, "sentence2": two} for one, two in zip(texts, reversed(texts), strict=True)]
    features = datasets.Features(
        {
            "sentence1": datasets.Value("string"),
            "sentence2": datasets.Value("string"),
            "label": datasets.Value("float32"),
        }
    )

    def split(part: list[dict[str, str]], labelled: bool) -> datasets.Dataset:
        values = [len(set(pair["sentence1"]) & set(pair["sentence2"])) / 4 if labelled else -1.0 for pair in part]
        columns = {name: [pair[name] for pair in part] for name in ("sentence1", "sentence2")}
        return datasets.Dataset.from_dict(columns | {"label": values}, features=features)

    whole = {"train": split(pairs[:60], True), "validation": split(pairs[60:], True), "test": split(pairs[:5], False)}
    datasets.DatasetDict(whole).save_to_disk(str(folder))
    return folder


@pytest.fixture
def replacements(
    tmp_path: Path, tiny_bert: Path, sms_csv: Path, sms_rows: list[tuple[str, str]]
) -> dict[str, list[str]]:
    """Per recipe: what stands in for the hub's model and data."""
    glue = [f"data.train={glue_like(tmp_path / 'glue', sms_rows)}", "data.subset=null"]
    bert = [f"model.path={tiny_bert}"]
    return {
        "agnews": [*bert, f"data.train={sms_csv}"],
        "jigsaw": [*bert, f"data.train={jigsaw_like(tmp_path / 'train.csv', sms_rows)}"],
        "sms_spam": [*bert, f"data.train={sms_csv}"],
        "sst2_bert": [*bert, *glue],
        "sst2_distilbert": [f"model.path={save_distilbert(tmp_path / 'distilbert', tiny_bert)}", *glue],
        "stsb": [*bert, f"data.train={stsb_like(tmp_path / 'stsb', sms_rows)}", "data.subset=null"],
        "thucnews": [*bert, *chinese_titles(tmp_path / "titles")],
    }


@pytest.mark.parametrize("name", NAMES)
def test_recipe_trains(name: str, tmp_path: Path, replacements: dict[str, list[str]]) -> None:
    overrides = [
        *replacements[name],
        "train.num_epochs=2",
        "train.learning_rate=0.01",
        f"run.output_dir={tmp_path / 'runs'}",
    ]
    run = lorafy.train(RECIPES / f"{name}.yaml", overrides)
    assert run.path.name == f"{name}-1" and run.results["task"] == TASKS.get(name, "classification")
    assert run.results["verification"]["passed"], json.dumps(run.results["verification"], indent=2)
    assert run.directory.report.is_file()


def test_every_recipe_has_its_test() -> None:
    language = (Path(__file__).parent / "test_language_recipes.py").read_text(encoding="utf-8")
    tested = {*NAMES, *re.findall(r"^def test_(\w+)\(tmp_path", language, re.MULTILINE)}
    assert tested == {path.stem for path in RECIPES.rglob("*.yaml")}


def test_recipes_say_only_what_differs() -> None:
    """The well-known settings of the two SST-2 recipes, as their users know them."""
    distilbert = load_config(RECIPES / "sst2_distilbert.yaml")
    assert (distilbert.adapter.r, distilbert.adapter.alpha, distilbert.adapter.dropout) == (4, 8, 0.05)
    assert distilbert.adapter.target_modules == ["q_lin", "v_lin"]
    assert (distilbert.train.batch_size, distilbert.train.micro_batch_size) == (32, 16)
    bert = load_config(RECIPES / "sst2_bert.yaml")
    assert (bert.adapter.r, bert.adapter.alpha, bert.train.num_epochs) == (8, 32, 3)
    assert bert.adapter.target_modules == ["query", "value"]
    assert (bert.train.evaluate_every, bert.train.save_every) == ("epoch", "epoch")
