"""Settings on the command line: `--name value` in its spellings, beside a verb's own options."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lorafy.cli import app
from lorafy.config import load_config
from lorafy.config.load import normalise_overrides
from lorafy.types import ConfigError

GOOD: dict[str, Any] = {"model": {"path": "minilm"}, "data": {"train": "sms.csv"}}


def problems_of(action: Callable[[], Any]) -> list[tuple[str, str, str]]:
    with pytest.raises(ConfigError) as caught:
        action()
    return [(problem.where, problem.message, problem.fix or "") for problem in caught.value.problems]


def run(*words: str | Path) -> str:
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False).stdout


@pytest.mark.parametrize(
    ("words", "normal"),
    [
        (["--num_train_epochs", "3"], ["num_train_epochs=3"]),
        (["--num_train_epochs=3"], ["num_train_epochs=3"]),
        (["--num-train-epochs", "3"], ["num_train_epochs=3"]),
        (["--num-train-epochs=3"], ["num_train_epochs=3"]),
        (["--train.num_epochs", "3"], ["train.num_epochs=3"]),
        (["--train.num-epochs=3"], ["train.num_epochs=3"]),
        (["--task", "causal_lm"], ["task=causal_lm"]),
        (["a.b=c", " train.batch_size = 8 "], ["a.b=c", " train.batch_size = 8 "]),
        (["lora_r=8", "--seed", "-1", "adapter.alpha=4"], ["lora_r=8", "seed=-1", "adapter.alpha=4"]),
        (["--output_dir=a=b", "--output_dir", "a=b"], ["output_dir=a=b", "output_dir=a=b"]),
        (["--target_modules", "[q_proj, v-proj]"], ["target_modules=[q_proj, v-proj]"]),
        (["--train_file", "my-data/a.json"], ["train_file=my-data/a.json"]),
        (["--seed="], ["seed="]),
        (["stray"], ["stray"]),
        ([], []),
    ],
)
def test_the_command_lines_spelling(words: list[str], normal: list[str]) -> None:
    assert normalise_overrides(words) == normal
    assert normalise_overrides(normal) == normal


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--seed"], [("--seed", "has no value", "write --seed VALUE, or seed=VALUE")]),
        (["--seed", "--lora-r"], [("--seed", "has no value", ""), ("--lora-r", "has no value", "lora_r=VALUE")]),
        (["--resum"], [("--resum", "is neither an option nor a setting", "did you mean --resume?")]),
        (["--resum", "lora_r=8"], [("--resum", "neither", "--resume?")]),
        (["-json"], [("-json", "neither", "--json?")]),
        (["--lora_rr", "8", "--seed=1"], [("--lora_rr", "neither", "did you mean --lora_r?")]),
        (["--lr=8"], [("--lr", "neither", "did you mean --train.learning_rate?")]),
        (["--qqqqq", "8"], [("--qqqqq", "neither", "docs/config.md")]),
    ],
)
def test_a_word_without_value_or_meaning(words: list[str], expected: list[tuple[str, str, str]]) -> None:
    found = problems_of(lambda: normalise_overrides(words, ["--resume", "--json"]))
    assert [where for where, _, _ in found] == [where for where, _, _ in expected]
    for (_, message, fix), (_, in_message, in_fix) in zip(found, expected, strict=True):
        assert in_message in message
        assert in_fix in fix


def test_load_config_takes_the_command_lines_spelling(recipe: Callable[..., Path]) -> None:
    config = load_config(recipe(GOOD), ["--num-train-epochs", "3", "--adapter.r=4", "lora_alpha=8"])
    assert (config.train.num_epochs, config.adapter.r, config.adapter.alpha) == (3, 4, 8)


def test_settings_stand_among_a_verbs_own_options(recipe: Callable[..., Path]) -> None:
    shown = json.loads(run("config", recipe(GOOD), "--num_train_epochs", "3", "--json", "--lora-r=4", "--seed", "7"))
    assert (shown["train"]["num_epochs"], shown["adapter"]["r"], shown["run"]["seed"]) == (3, 4, 7)


@pytest.mark.parametrize("verb", ["train", "prepare", "plan", "compare", "config", "evaluate", "demo"])
def test_every_verb_with_settings_names_its_own_option_for_a_misspelt_one(
    verb: str, recipe: Callable[..., Path]
) -> None:
    target = [] if verb == "demo" else [recipe(GOOD)]
    expected = [("--jsn", "is neither an option nor a setting", "did you mean --json?")]
    assert problems_of(lambda: run(verb, *target, "--jsn")) == expected
    if target:
        assert problems_of(lambda: run(verb, "--jsn", *target)) == expected
        before = [("--seed", "a setting stands behind the recipe or model", "move it to the end")]
        assert problems_of(lambda: run(verb, "--seed", "1", *target)) == before
    assert "Usage" in run(verb, "-h")


def test_resume_is_an_option_still(recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    called: dict[str, Any] = {}

    class Stop(Exception):
        pass

    def train(path: Path, overrides: list[str], *, resume: bool, console: Any) -> None:
        called.update(overrides=overrides, resume=resume)
        raise Stop

    monkeypatch.setattr("lorafy.api.train", train)
    with pytest.raises(Stop):
        run("train", recipe(GOOD), "--num_train_epochs", "3", "--resume", "adapter.r=4")
    assert called == {"overrides": ["num_train_epochs=3", "adapter.r=4"], "resume": True}
