"""Recipes and overrides: what is read, and that each mistake is told with its key, its value and what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lorafy.config import RunConfig, load_config, parse_config, to_yaml
from lorafy.types import ConfigError
from lorafy.workflows.prepare import Prepared

GOOD: dict[str, Any] = {"model": {"path": "minilm"}, "data": {"train": "sms.csv"}}


def mistakes(tree: dict[str, Any], overrides: tuple[str, ...] = ()) -> list[tuple[str, str, str]]:
    with pytest.raises(ConfigError) as caught:
        parse_config(tree, "recipe.yaml", overrides=overrides)
    return [(problem.where, problem.message, problem.fix or "") for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("section", "where", "message", "fix"),
    [
        # Misspelt, and known by another name or in another section.
        ({"train": {"learning_rat": 1}}, "train.learning_rat", "unknown key", "train.learning_rate?"),
        ({"learning_rte": 1}, "learning_rte", "unknown key", "did you mean learning_rate?"),  # a flat name (flat.py)
        ({"adapter": {"learning_rate": 1}}, "adapter.learning_rate", "unknown key", "train.learning_rate?"),
        ({"adapter": {"lora_r": 8}}, "adapter.lora_r", "unknown key", "adapter.r?"),
        ({"train": {"seed": 8}}, "train.seed", "unknown key", "run.seed?"),
        ({"trian": {"batch_size": 8}}, "trian", "unknown key", "did you mean train?"),
        ({"data": {"train": "a.csv", "columns": {"texts": "a"}}}, "data.columns.texts", "unknown", "columns.text?"),
        ({"zzz": 1}, "zzz", "unknown key", "run, model, task, data, adapter, train, generation, adapters, trackers"),
        # Wrong types.
        ({"train": {"batch_size": "many"}}, "train.batch_size", "a valid integer, but it is 'many'", ""),
        ({"train": {"batch_size": 3.5}}, "train.batch_size", "fractional part, but it is 3.5", ""),
        ({"train": {"num_epochs": True}}, "train.num_epochs", "should be a number, but it is True", ""),
        ({"run": {"seed": True}}, "run.seed", "should be a number, but it is True", ""),
        ({"train": {"learning_rate": [1]}}, "train.learning_rate", "a valid number, but it is [1]", ""),
        ({"train": {"learning_rate": float("nan")}}, "train.learning_rate", "finite number, but it is nan", ""),
        ({"run": {"name": 5}}, "run.name", "a valid string, but it is 5", 'in quotes, "5"'),
        ({"data": {"train": "a.csv", "labels": ["no", True]}}, "data.labels.1", "it is True", 'quotes, "yes"'),
        ({"adapter": {"target_modules": "query,value"}}, "adapter.target_modules", "'auto' or", "[query, value]"),
        ({"adapter": {"target_modules": [1]}}, "adapter.target_modules.0", "but it is 1", 'in quotes, "1"'),
        ({"trackers": "jsonl"}, "trackers", "a valid list", "[jsonl]"),
        ({"trackers": ["wandb"]}, "trackers.0", "'jsonl' or 'tensorboard', but it is 'wandb'", ""),
        ({"train": {"evaluate_every": "epochs"}}, "train.evaluate_every", "integer or 'epoch', but it is 'epochs'", ""),
        # Out of range.
        ({"adapter": {"r": 0}}, "adapter.r", "greater than or equal to 1, but it is 0", ""),
        ({"train": {"learning_rate": -1}}, "train.learning_rate", "greater than 0, but it is -1", ""),
        ({"train": {"batch_size": -8}}, "train.batch_size", "greater than or equal to 1, but it is -8", ""),
        ({"adapter": {"dropout": 1}}, "adapter.dropout", "less than 1, but it is 1", ""),
        ({"adapter": {"method": "lorra"}}, "adapter.method", "'loftq', 'full' or 'none', but it is 'lorra'", ""),
        ({"adapter": {"target_modules": []}}, "adapter.target_modules", "the list is empty", "use auto"),
        ({"run": {"name": "a/b"}}, "run.name", "letters, digits, dots, - and _", ""),
        ({"model": {"path": ""}}, "model.path", "should not be empty", ""),
        ({"data": {"train": "a.csv", "labels": ["a"]}}, "data.labels", "at least 2 items, but it is ['a']", ""),
        ({"data": {"train": "a.csv", "labels": ["a", "a"]}}, "data.labels", "a stands there more than once", ""),
        ({"data": {"train": "a.csv", "split": [0.5, 0.5]}}, "data.split", "three shares", ""),
        ({"data": {"train": "a.csv", "split": "80/10/10"}}, "data.split", "three shares", ""),
        ({"data": {"train": "a.csv", "split": [0.8, 0.3, -0.1]}}, "data.split", "add up to 1", ""),
        # No effect.
        ({"adapter": {"method": "full", "r": 8}}, "adapter.r", "no effect with method: full", "remove it"),
        ({"train": {"early_stopping": 2, "evaluate_every": None}}, "train.early_stopping", "no effect", "give one"),
        ({"train": {"max_steps": 9, "num_epochs": 1}}, "train.max_steps", "num_epochs is given too", "one of them"),
        (
            {"data": {"train": "a.csv", "validation": "b.csv", "split": [0.8, 0.1, 0.1]}},
            "data.split",
            "no effect while data.validation is given",
            "remove it",
        ),
        ({"model": {"path": "minilm", "revision": "main"}}, "model.revision", "no effect on the built-in", "remove it"),
        # A value, or nothing, where a section belongs.
        ({"model": "minilm"}, "model", "a section with keys below it, but it is 'minilm'", "model: {path: minilm}"),
        ({"data": "a.csv"}, "data", "a section with keys below it, but it is 'a.csv'", "data: {train: a.csv}"),
        ({"adapter": "full"}, "adapter", "a section with keys", "adapter: {method: full}"),
        ({"train": None}, "train", "an empty section", "remove the line"),
        ({"data": None}, "data", "an empty section", "data: {train: FILE}"),
        ({"train": [1]}, "train", "a section with keys below it, but it is [1]", ""),
        ({"model": {}}, "model.path", "missing in recipe.yaml", "path: minilm"),
    ],
    ids=str,
)  # fmt: skip
def test_a_mistake_is_told_once_with_key_value_and_fix(
    section: dict[str, Any], where: str, message: str, fix: str
) -> None:
    found = mistakes(GOOD | section)
    assert len(found) == 1, found
    assert found[0][0] == where
    assert message in found[0][1]
    assert fix in found[0][2]


def test_all_mistakes_are_told_at_once_those_between_keys_too() -> None:
    tree = {
        "model": {"pth": "minilm"},
        "data": {"validation": "b.csv", "split": [0.8, 0.1, 0.1], "max_rows": 0},
        "adapter": {"method": "none", "r": 0, "alpha": 3, "lora_dropout": 0.1},
        "train": {"batch_size": "x", "early_stopping": 1, "evaluate_every": None, "max_steps": 1, "num_epochs": 2},
        "lr": 1,
    }
    assert sorted(where for where, _, _ in mistakes(tree)) == [
        "adapter.alpha", "adapter.lora_dropout", "adapter.r", "data.max_rows", "data.split", "data.train", "lr",
        "model.path", "model.pth", "train.batch_size", "train.early_stopping", "train.max_steps",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("train.learning_rate=1e-3", "train.learning_rate", 0.001),
        ("train.learning_rate=5e-4", "train.learning_rate", 0.0005),
        (" train.batch_size = 8 ", "train.batch_size", 8),
        ("adapter.target_modules=[query, value]", "adapter.target_modules", ["query", "value"]),
        ("data.split=[0.8, 0.1, 0.1]", "data.split", (0.8, 0.1, 0.1)),
        ("data.columns.label=0", "data.columns.label", 0),
        ("train.save_every=null", "train.save_every", None),
        ("train.save_every=epoch", "train.save_every", "epoch"),
        ("data.encoding=gb18030", "data.encoding", "gb18030"),
        ("run.name=a=b", None, "run.name"),
    ],
)
def test_an_override_has_the_type_of_its_key(
    recipe: Callable[..., Path], override: str, key: str | None, value: Any
) -> None:
    if key is None:  # all behind the first = is the value
        with pytest.raises(ConfigError, match=r"run\.name: should be letters.*but it is 'a=b' in the override"):
            load_config(recipe(GOOD), [override])
        return
    node: Any = load_config(recipe(GOOD), [override])
    for part in key.split("."):
        node = getattr(node, part)
    assert node == value
    assert type(node) is type(value)


@pytest.mark.parametrize(
    ("override", "where", "message", "fix"),
    [
        ("a.b", "a.b", "an override is written section.key=value", "train.num_epochs=1"),
        ("=3", "=3", "an override is written", ""),
        ("train..x=1", "train..x=1", "an override is written", ""),
        ("a.b=1", "a", "unknown key in the override a.b=1", "known here"),
        ("train.learning_rte=1", "train.learning_rte", "unknown key in the override", "train.learning_rate?"),
        ("learning_rte=1", "learning_rte", "unknown key in the override", "did you mean learning_rate?"),
        ("train.batch_size=x", "train.batch_size", "but it is 'x' in the override train.batch_size=x", ""),
        ("data.train.x=1", "data.train.x=1", "train holds a value, not a section", ""),
        ("data.train=", "data.train", "but it is None in the override", ""),
        ("model=minilm", "model", "but it is 'minilm' in the override", "model: {path: minilm}"),
    ],
)
def test_a_wrong_override_is_named(
    recipe: Callable[..., Path], override: str, where: str, message: str, fix: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(recipe(GOOD), [override])
    (problem,) = caught.value.problems
    assert problem.where == where
    assert message in problem.message
    assert fix in (problem.fix or "")


def test_mistakes_in_file_and_overrides_come_together(recipe: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(recipe(GOOD | {"adapter": {"r": 0}}), ["a.b", "train.batch_size=0"])
    assert [problem.where for problem in caught.value.problems] == ["a.b", "adapter.r", "train.batch_size"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {path: minilm}\ndata: {train: a\ntrain:\n", "recipe.yaml, line 3: not valid YAML"),
        ("model:\n\tpath: minilm\n", "recipe.yaml, line 2: not valid YAML: found character '\\t'"),
        ("train: {batch_size: 1}\ndata: {train: a}\ntrain: {r: 2}\n", "line 3: not valid YAML: 'train' stands there"),
        ("adapter:\n  r: 4\n  r: 8\n", "line 3: not valid YAML: 'r' stands there twice"),
        ("a: !!python/object:os.system {}\n", "line 1: not valid YAML"),
        ("[" * 5000, "not valid YAML"),
        ("", "recipe.yaml: should hold sections such as model: and data:"),
        ("- model\n- data\n", "recipe.yaml: should hold sections"),
        ("just text\n", "recipe.yaml: should hold sections"),
        ("1: a\nmodel: {path: minilm}\ndata: {train: a.csv}\n", "1: "),
    ],
)
def test_yaml_that_is_no_recipe(recipe: Callable[..., Path], text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(recipe(text))
    assert message in str(caught.value)


def test_a_recipe_that_is_not_there_or_not_utf8(recipe: Callable[..., Path], tmp_path: Path) -> None:
    recipe(GOOD, "sms.yaml")
    with pytest.raises(ConfigError, match=r"smss\.yaml: no such recipe\n.*did you mean .*sms\.yaml"):
        load_config(tmp_path / "smss.yaml")
    (tmp_path / "zh.yaml").write_bytes("run: {name: 体育}\n".encode("gb18030"))
    with pytest.raises(ConfigError, match=r"zh\.yaml: not UTF-8\n.*save the recipe as UTF-8"):
        load_config(tmp_path / "zh.yaml")


def test_paths_are_relative_to_the_recipe_and_those_of_overrides_to_here(
    recipe: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    tree = {"model": {"path": "./base"}, "data": {"train": "a.csv", "validation": "org/set"}}
    config = load_config(recipe(tree), ["data.test=t.csv"])
    assert Path(config.model.path) == tmp_path / "base"
    assert Path(config.data.train) == tmp_path / "a.csv"
    assert config.data.validation == "org/set"  # a hub name stays as it is
    assert config.data.test is not None
    assert Path(config.data.test) == here / "t.csv"
    assert Path(config.run.output_dir) == Path("runs")


@pytest.mark.parametrize("path", ["~nobody-of-this-name/a.csv", "x" * 5000, "a\0b.csv"], ids=["home", "long", "zero"])
def test_a_path_that_no_system_can_have_is_left_for_the_reader_to_refuse(
    recipe: Callable[..., Path], path: str
) -> None:
    assert load_config(recipe({"model": {"path": "minilm"}, "data": {"train": path}})).data.train == path


@pytest.mark.parametrize(
    "section",
    [
        {},
        {"data": {"train": "/a.csv", "validation": "/b.csv", "labels": ["否", "是"]}},
        {"adapter": {"method": "full"}, "train": {"max_steps": 3, "early_stopping": 2, "evaluate_every": 5}},
        {"data": {"train": "/a.csv", "columns": {"text": 1, "label": "x.y"}, "split": [0.9, 0.1, 0]}},
    ],
)
def test_the_written_tree_reads_back_as_the_same_tree(recipe: Callable[..., Path], section: dict[str, Any]) -> None:
    config = parse_config(GOOD | section, "recipe.yaml")
    text = to_yaml(config)
    again = parse_config(yaml.safe_load(text), "config.yaml")
    assert again == config
    assert to_yaml(again) == text


def test_a_number_in_yaml_may_look_like_a_string(recipe: Callable[..., Path]) -> None:
    """PyYAML reads 1e-5 as text; the key's type decides."""
    config = load_config(recipe("model: {path: minilm}\ndata: {train: a.csv}\ntrain: {learning_rate: 1e-5}\n"))
    assert config.train.learning_rate == 1e-5


def test_the_learning_rate_follows_the_method() -> None:
    def learning_rate(tree: dict[str, Any]) -> float:
        nothing: Any = None
        return Prepared(RunConfig.model_validate(GOOD | tree), nothing, nothing, {}, []).learning_rate

    rates = {method: learning_rate({"adapter": {"method": method}}) for method in ("lora", "full", "none")}
    assert rates["lora"] == 10 * rates["full"]
    assert learning_rate({"train": {"learning_rate": 0.25}}) == 0.25
