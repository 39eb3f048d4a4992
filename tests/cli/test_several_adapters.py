"""Several adapters on one base, as a user calls the verbs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from command_line import Outcome
from several import alone, config_of, news_csv

Verb = Callable[..., Outcome]


@pytest.fixture(scope="module")
def runs(tiny_bert: Path, sms_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs spam, spam-too (another seed) and topic. Read them only."""
    folder = tmp_path_factory.mktemp("runs")
    news = news_csv(folder / "news.csv")
    for name, file, seed in (("spam", sms_csv, 1), ("spam-too", sms_csv, 2), ("topic", news, 3)):
        alone(config_of(tiny_bert, file, folder, name, run={"seed": seed}), folder)
    return folder


@pytest.fixture
def both(runs: Path, tmp_path: Path) -> Path:
    return write(tmp_path / "both.yaml", {"adapters": {"spam": str(runs / "spam"), "topic": str(runs / "topic")}})


def write(path: Path, tree: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


def test_predict_says_what_the_adapter_alone_says(lorafy: Verb, both: Path, runs: Path) -> None:
    for name in ("spam", "topic"):
        texts = ("win a phone now", "the bank in item 3")
        here = lorafy("predict", both, *texts, "--adapter", name, "--json")
        assert here.code == 0, here.stderr
        assert here.stdout == lorafy("predict", runs / name, *texts, "--json").stdout


def test_evaluate_scores_all_or_one(lorafy: Verb, both: Path, runs: Path, sms_csv: Path) -> None:
    done = lorafy("evaluate", both)
    assert done.code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split()[:2] == ["adapter", "accuracy"]
    assert [line.split()[0] for line in lines[1:]] == ["spam", "topic"]
    found = json.loads(lorafy("evaluate", both, "--json").stdout)["adapters"]
    one = json.loads(lorafy("evaluate", both, "--adapter", "topic", "--json").stdout)
    assert one["metrics"] == found["topic"]["metrics"]
    assert one["metrics"] == json.loads((runs / "topic" / "eval_results.json").read_text(encoding="utf-8"))["metrics"]
    other = lorafy("evaluate", both, "--adapter", "spam", f"data.test={sms_csv}", "--json")
    assert json.loads(other.stdout)["num_examples"] == 80


def test_generate_and_chat_take_one(lorafy: Verb, tmp_path: Path, parrot: Path) -> None:
    path = write(tmp_path / "talk.yaml", {"adapters": {"parrot": str(parrot)}})
    done = lorafy("generate", path, "--adapter", "parrot", "--prompt", "Who?", "generation.temperature=0")
    assert done.code == 0 and done.stdout.strip() == "Tuned!", done.stderr
    done = lorafy("generate", path, "--adapter", "parrot", "--prompt", "Who?", "--base", "--temperature", "0")
    assert done.stdout.strip() == "Base."
    talk = lorafy("chat", path, "--adapter", "parrot", "--temperature", "0", stdin=b"Who?\nexit\n")
    assert talk.code == 0 and "adapter parrot" in talk.stdout and "Tuned!" in talk.stdout


def test_combine_tells_how_it_was_made(lorafy: Verb, runs: Path, sms_csv: Path, tmp_path: Path) -> None:
    tree = {"adapters": {"one": str(runs / "spam"), "two": str(runs / "spam-too")}}
    path = write(tmp_path / "two.yaml", tree)
    done = lorafy("combine", path, "--weights", "one=0.5,two=0.5", "--output", tmp_path / "sum")
    assert done.code == 0, done.stderr
    assert "0.5 one + 0.5 two by cat." in done.stdout
    assert "Averaged by the weights, for it was trained whole: classifier." in done.stdout
    assert "Not evaluated: the recipe has no data." in done.stdout
    done = lorafy(
        "combine", path, "--weights", "one=1,two=1", "--method", "ties", "--density", "0.3", f"data.test={sms_csv}",
        "--output", tmp_path / "ties", "--json",
    )  # fmt: skip
    assert done.code == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["method"], answer["density"], answer["seed"]) == ("ties", 0.3, None)
    assert list(answer["evaluation"]) == ["one", "two", "= combined"]
    assert "= combined" in done.stderr


def test_train_takes_several_recipes(
    lorafy: Verb, tiny_bert: Path, sms_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tree = {"model": {"path": str(tiny_bert)}, "data": {"train": str(sms_csv)}, "trackers": ["jsonl"]}
    paths = [write(tmp_path / f"{name}.yaml", tree | {"run": {"seed": seed}}) for seed, name in enumerate(("a", "b"))]
    done = lorafy("train", *paths, "train.max_steps=2", "--lora_r", "2", "--json")
    assert done.code == 0, done.stderr
    answers = json.loads(done.stdout)["runs"]
    assert [Path(answer["run"]).name for answer in answers] == ["a-1", "b-1"]
    assert all(answer["summary"]["num_steps"] == 2 for answer in answers)
    assert "2 recipes over one base" in done.stderr and "loaded once" in done.stderr
    refused = lorafy("train", *paths, "--resume")
    assert refused.code == 2 and "--resume: continues one run, and these are 2 recipes" in refused.stderr
    refused = lorafy("train", *paths, "run.name=same")
    assert refused.code == 2 and "would train in the same folder" in refused.stderr
    assert not (tmp_path / "runs" / "same").exists()


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        (("predict", "{both}", "text"), "its adapters: spam, topic"),
        (("predict", "{both}", "text", "--adapter", "spm"), "has no adapter 'spm'"),
        (("predict", "{run}", "text", "--adapter", "spam"), "is no recipe that names adapters"),
        (("generate", "{both}", "--prompt", "x", "--adapter", "spam"), "adapters.spam: this is a classifier"),
        (("train", "{both}"), "names adapters that are trained already"),
        (("plan", "{both}"), "names adapters that are trained already"),
        (("merge", "{both}", "--output", "x"), "this verb takes one model"),
        (("verify", "{both}"), "this verb takes one model"),
        (("combine", "{run}", "--weights", "a=1,b=1", "--output", "x"), "names no adapters"),
        (("combine", "{both}", "--weights", "spam=1", "--output", "x"), "a sum needs two"),
    ],
)
def test_bad_input(
    lorafy: Verb, both: Path, runs: Path, tmp_path: Path, verb: tuple[str, ...], said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    words = [word.format(both=both, run=runs / "spam") for word in verb]
    done = lorafy(*words)
    assert done.code == 2, done.stderr
    assert said in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == [both]


def test_mistakes_in_the_recipe_are_told_together(lorafy: Verb, runs: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(f"adapters: {{a: {runs}/spam, a: {runs}/topic}}\n", encoding="utf-8")
    assert "'a' stands there twice" in lorafy("predict", path, "x", "--adapter", "a").stderr
    write(path, {"adapters": {"a": "gone", "b": 3}, "modle": {}})
    done = lorafy("predict", path, "x", "--adapter", "a")
    assert done.code == 2 and "adapters.b" in done.stderr and "modle" in done.stderr
    write(path, {"adapters": {"c d": str(runs / "spam")}})
    assert "adapters.c d: a name is letters" in lorafy("predict", path, "x", "--adapter", "c d").stderr
    write(path, {"adapters": {"a": str(runs / "spam")}, "train": {"max_steps": 3}})
    done = lorafy("evaluate", path, "adapter.r=8")
    assert done.code == 2 and "train: no effect" in done.stderr and "adapter: no effect" in done.stderr
    write(path, {"adapters": {"a": "gone", "b": "gone-too"}})
    done = lorafy("predict", path, "x", "--adapter", "a")
    assert done.code == 2 and "2 problems" in done.stderr


def test_config_shows_what_stands_there(lorafy: Verb, both: Path) -> None:
    done = lorafy("config", both, "--json")
    assert done.code == 0, done.stderr
    assert list(json.loads(done.stdout)["adapters"]) == ["spam", "topic"]
