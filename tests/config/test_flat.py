"""The field's flat names: the table, where the names may stand, what wins over what, and what a mistake is called."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from language_models import USERS_TRAIN
from lorafy.config import RunConfig, load_config, parse_config, to_yaml
from lorafy.config.flat import FLAT_NAMES
from lorafy.config.load import apply_overrides, resolve_paths
from lorafy.config.problems import OTHER_TOOLS, all_keys
from lorafy.types import ConfigError

USERS_INFERENCE = f"""{USERS_TRAIN}lora_model_path: "./output"
gradient_accumulation_steps: 4
"""
GOOD: dict[str, Any] = {"model": {"path": "minilm"}, "data": {"train": "sms.csv"}}


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)


def value_of(config: RunConfig, key: str) -> Any:
    node: Any = config
    for part in key.split("."):
        node = getattr(node, part)
    return node


def problems_of(action: Callable[[], Any]) -> list[tuple[str, str, str]]:
    with pytest.raises(ConfigError) as caught:
        action()
    return [(problem.where, problem.message, problem.fix or "") for problem in caught.value.problems]


def test_the_well_known_recipe_loads_unchanged(recipe: Callable[..., Path], tmp_path: Path) -> None:
    config = load_config(recipe(USERS_TRAIN))
    assert (config.model.path, config.model.dtype) == (str(tmp_path / "Qwen3-1.7B"), "float16")
    assert (config.run.output_dir, config.run.name) == (str(tmp_path), "output")
    assert (config.train.num_epochs, config.train.learning_rate) == (10, 5e-4)
    assert (config.train.batch_size, config.train.micro_batch_size) == (2, 2)
    assert (config.adapter.method, config.adapter.r, config.adapter.alpha, config.adapter.dropout) == (
        "lora", 8, 16, 0.1,
    )  # fmt: skip
    assert config.adapter.target_modules == ["q_proj", "v_proj"]
    assert (config.data.train, config.data.validation) == (str(tmp_path / "data" / "train.json"), None)
    assert (config.task, config.generation.model) == ("auto", None)


def test_the_well_known_recipe_for_inference_loads_unchanged(recipe: Callable[..., Path], tmp_path: Path) -> None:
    config = load_config(recipe(USERS_INFERENCE))
    assert config.generation.model == str(tmp_path / "output")
    assert (config.train.batch_size, config.train.micro_batch_size) == (8, 2)


@pytest.mark.parametrize(
    ("name", "value", "key", "expected"),
    [
        ("model_name_or_path", "minilm", "model.path", "minilm"),
        ("torch_dtype", "auto", "model.dtype", "auto"),
        ("torch_dtype", "fp16", "model.dtype", "float16"),
        ("torch_dtype", "bf16", "model.dtype", "bfloat16"),
        ("torch_dtype", "fp32", "model.dtype", "float32"),
        ("torch_dtype", "torch.float16", "model.dtype", "float16"),
        ("torch_dtype", "torch.bfloat16", "model.dtype", "bfloat16"),
        ("output_dir", "/some/where/first", "run.name", "first"),
        ("seed", 7, "run.seed", 7),
        ("train_file", "/a.json", "data.train", "/a.json"),
        ("validation_file", "/b.json", "data.validation", "/b.json"),
        ("test_file", "/c.json", "data.test", "/c.json"),
        ("max_seq_length", 256, "data.max_length", 256),
        ("cutoff_len", 128, "data.max_length", 128),
        ("quantization_bit", 4, "model.quantise", "nf4"),
        ("quantization_bit", "8", "model.quantise", "int8"),
        ("quantization_bit", None, "model.quantise", None),
        ("lora_r", 4, "adapter.r", 4),
        ("lora_alpha", 8, "adapter.alpha", 8),
        ("lora_dropout", 0.05, "adapter.dropout", 0.05),
        ("target_modules", ["q_proj"], "adapter.target_modules", ["q_proj"]),
        ("target_modules", "all-linear", "adapter.target_modules", "all-linear"),
        ("num_train_epochs", 2.5, "train.num_epochs", 2.5),
        ("max_steps", 100, "train.max_steps", 100),
        ("per_device_train_batch_size", "4", "train.micro_batch_size", 4),
        ("per_device_train_batch_size", 4, "train.batch_size", 4),
        ("gradient_accumulation_steps", 4, "train.batch_size", 32),
        ("gradient_accumulation_steps", 4, "train.micro_batch_size", None),
        ("learning_rate", "2e-5", "train.learning_rate", 2e-5),
        ("lr_scheduler_type", "cosine", "train.schedule", "cosine"),
        ("warmup_steps", 20, "train.warmup", 20),
        ("warmup_ratio", "1e-1", "train.warmup", 0.1),
        ("weight_decay", 0.01, "train.weight_decay", 0.01),
        ("max_grad_norm", None, "train.max_grad_norm", None),
        ("logging_steps", 5, "train.log_every", 5),
        ("eval_steps", 50, "train.evaluate_every", 50),
        ("save_steps", 60, "train.save_every", 60),
        ("save_total_limit", 2, "train.keep_checkpoints", 2),
        ("lora_model_path", "/adapter", "generation.model", "/adapter"),
        ("max_new_tokens", 64, "generation.max_new_tokens", 64),
        ("temperature", 0, "generation.temperature", 0),
        ("top_p", 0.9, "generation.top_p", 0.9),
        ("repetition_penalty", 1.1, "generation.repetition_penalty", 1.1),
    ],
)  # fmt: skip
def test_a_name_sets_its_key_in_a_recipe_and_as_an_override(
    recipe: Callable[..., Path], name: str, value: Any, key: str, expected: Any
) -> None:
    base = {"model_name_or_path": "minilm", "data": {"train": "/a.json"}}
    rest = {other: given for other, given in base.items() if (name, other) != ("train_file", "data")}
    written = load_config(recipe(rest | {name: value}))
    overridden = load_config(recipe(base), [f"{name}={json.dumps(value)}"])
    for config in (written, overridden):
        found = value_of(config, key)
        assert found == (str(Path(expected).resolve()) if isinstance(expected, str) and "/" in expected else expected)


def test_the_table_has_every_name_once_and_only_keys_of_the_tree() -> None:
    keys = set(all_keys())
    assert all(key in keys for flat in FLAT_NAMES.values() for key in flat.keys)
    assert not set(FLAT_NAMES) & set(OTHER_TOOLS)
    assert not set(FLAT_NAMES) & set(RunConfig.model_fields)


def test_each_process_has_a_batch_of_its_own(recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    config = load_config(recipe(USERS_INFERENCE))
    assert (config.train.batch_size, config.train.micro_batch_size) == (24, 2)
    assert load_config(recipe(GOOD)).train.batch_size == 32  # the tree's name counts over all processes


def test_default_data_stand_beside_a_flat_recipe(recipe: Callable[..., Path], tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "validation.json").write_text("[]", encoding="utf-8")
    both = load_config(recipe("model_name_or_path: minilm\n")).data
    assert (both.train, both.validation) == (str(data / "train.json"), str(data / "validation.json"))
    named = load_config(recipe("model_name_or_path: minilm\ntrain_file: a.json\nvalidation_file: b.json\n")).data
    assert (named.train, named.validation) == (str(tmp_path / "a.json"), str(tmp_path / "b.json"))
    cut = load_config(recipe("model_name_or_path: minilm\ndata: {split: [0.8, 0.2, 0]}\n")).data
    assert (cut.train, cut.validation) == (str(data / "train.json"), None)
    given = load_config(recipe("model_name_or_path: minilm\n"), ["train_file=/a.json", "data.validation=null"]).data
    assert (given.train, given.validation) == (str(Path("/a.json").resolve()), None)
    assert load_config(recipe(GOOD)).data.validation is None  # no flat recipe
    tree = {"model": {"path": "minilm"}}
    assert [where for where, _, _ in problems_of(lambda: load_config(recipe(tree)))] == ["data"]


def test_flat_names_and_sections_stand_in_one_recipe(recipe: Callable[..., Path], tmp_path: Path) -> None:
    tree = {"model_name_or_path": "./base", "model": {"dtype": "float32"}, "data": {"train": "a.csv"}, "lora_r": 4}
    config = load_config(recipe(tree))
    assert (config.model.path, config.model.dtype) == (str(tmp_path / "base"), "float32")
    assert (config.data.train, config.adapter.r) == (str(tmp_path / "a.csv"), 4)


@pytest.mark.parametrize(
    ("tree", "one", "other"),
    [
        ({"learning_rate": 1, "train": {"learning_rate": 1}}, "learning_rate", "train.learning_rate"),
        ({"model_name_or_path": "minilm"}, "model_name_or_path", "model.path"),
        ({"train_file": "b.csv"}, "train_file", "data.train"),
        ({"max_seq_length": 8, "cutoff_len": 8}, "max_seq_length", "cutoff_len"),
        ({"warmup_steps": 8, "warmup_ratio": 0.1}, "warmup_steps", "warmup_ratio"),
        ({"output_dir": "x", "run": {"name": "x"}}, "output_dir", "run.name"),
        ({"per_device_train_batch_size": 2, "train": {"batch_size": 2}},
         "per_device_train_batch_size", "train.batch_size"),
        ({"gradient_accumulation_steps": 2, "train": {"micro_batch_size": 2}},
         "gradient_accumulation_steps", "train.micro_batch_size"),
    ],
)  # fmt: skip
def test_one_setting_under_two_names_is_a_mistake(
    recipe: Callable[..., Path], tree: dict[str, Any], one: str, other: str
) -> None:
    expected = [(one, f"{one} and {other} are the same setting: give one", "")]
    assert problems_of(lambda: load_config(recipe(GOOD | tree))) == expected
    assert problems_of(lambda: parse_config(GOOD | tree, "the recipe")) == expected
    # An override of the same setting does not hide that the recipe has it twice.
    assert expected[0] in problems_of(lambda: load_config(recipe(GOOD | tree), [f"{other}=1"]))


@pytest.mark.parametrize(
    ("overrides", "one", "other"),
    [
        (["train.learning_rate=1", "learning_rate=1"], "learning_rate", "train.learning_rate"),
        (["cutoff_len=8", "max_seq_length=8"], "cutoff_len", "max_seq_length"),
        (["--lora-r", "2", "--adapter.r", "2"], "lora_r", "adapter.r"),
        (["run.name=a", "output_dir=b"], "output_dir", "run.name"),
    ],
)
def test_two_overrides_of_one_setting_in_two_spellings_are_a_mistake(
    recipe: Callable[..., Path], overrides: list[str], one: str, other: str
) -> None:
    assert problems_of(lambda: load_config(recipe(GOOD), overrides)) == [
        (one, f"{one} and {other} are the same setting: give one", "")
    ]


@pytest.mark.parametrize(
    ("tree", "overrides", "expected"),
    [
        ({"lora_r": 8}, ["adapter.r=4"], {"adapter.r": 4}),
        ({"adapter": {"r": 8}}, ["lora_r=4"], {"adapter.r": 4}),
        ({"lora_r": 8}, ["lora_r=4"], {"adapter.r": 4}),
        ({"lora_r": 8}, ["lora_r=2", "lora_r=4"], {"adapter.r": 4}),
        ({"lora_r": 8, "lora_alpha": 8}, ["adapter={dropout: 0.5}"], {"adapter.r": 16, "adapter.dropout": 0.5}),
        ({"max_seq_length": 8}, ["cutoff_len=16"], {"data.max_length": 16}),
        ({"warmup_steps": 8}, ["warmup_ratio=0.25"], {"train.warmup": 0.25}),
        ({"warmup_ratio": 8}, ["train.warmup=0.25"], {"train.warmup": 0.25}),  # the wrong value is gone
        ({"output_dir": "/x/first"}, ["run.name=second"], {"run.output_dir": "/x", "run.name": "second"}),
        ({"output_dir": "/x/first"}, ["run.output_dir=/y"], {"run.output_dir": "/y", "run.name": "first"}),
        ({"run": {"name": "first"}}, ["output_dir=/y/second"], {"run.output_dir": "/y", "run.name": "second"}),
        # The batch: the names that count on one process, and the ones of the tree.
        ({"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}, ["per_device_train_batch_size=3"],
         {"train.batch_size": 12, "train.micro_batch_size": 3}),
        ({"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}, ["gradient_accumulation_steps=3"],
         {"train.batch_size": 6, "train.micro_batch_size": 2}),
        ({"per_device_train_batch_size": 2}, ["gradient_accumulation_steps=3"],
         {"train.batch_size": 6, "train.micro_batch_size": 2}),
        ({"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}, ["train.batch_size=64"],
         {"train.batch_size": 64, "train.micro_batch_size": 2}),
        ({"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}, ["train.micro_batch_size=1"],
         {"train.batch_size": 8, "train.micro_batch_size": 1}),
        ({"train": {"batch_size": 64, "micro_batch_size": 4}}, ["per_device_train_batch_size=2"],
         {"train.batch_size": 2, "train.micro_batch_size": 2}),
        ({}, ["gradient_accumulation_steps=4", "per_device_train_batch_size=2"],
         {"train.batch_size": 8, "train.micro_batch_size": 2}),
        ({}, ["per_device_train_batch_size=2", "gradient_accumulation_steps=4"],
         {"train.batch_size": 8, "train.micro_batch_size": 2}),
    ],
)  # fmt: skip
def test_an_override_wins_in_either_spelling(
    recipe: Callable[..., Path], tree: dict[str, Any], overrides: list[str], expected: dict[str, Any]
) -> None:
    config = load_config(recipe(GOOD | tree), overrides)
    for key, value in expected.items():
        wanted = str(Path(value).resolve()) if key == "run.output_dir" else value
        assert value_of(config, key) == wanted, key


@pytest.mark.parametrize(
    ("name", "value", "where", "message", "fix"),
    [
        ("lora_r", 0, "lora_r (adapter.r)", "greater than or equal to 1, but it is 0", ""),
        ("learning_rate", "fast", "learning_rate (train.learning_rate)", "valid number, but it is 'fast'", ""),
        ("torch_dtype", "int8", "torch_dtype (model.dtype)", "or 'float16', but it is 'int8'", ""),
        ("torch_dtype", 16, "torch_dtype (model.dtype)", "but it is 16", ""),
        ("target_modules", "q_proj,v_proj", "target_modules (adapter.target_modules)", "list", "[q_proj, v_proj]"),
        ("target_modules", [1], "target_modules (adapter.target_modules.0)", "but it is 1", ""),
        ("target_modules", [], "target_modules (adapter.target_modules)", "the list is empty", "at least one"),
        ("output_dir", "./my output", "output_dir (run.name)", "letters, digits, dots", ""),
        ("output_dir", 5, "output_dir (run.output_dir)", "a valid string, but it is 5", ""),
        ("warmup_ratio", 1, "warmup_ratio (train.warmup)", "a share below 1, but it is 1", "is warmup_steps"),
        ("quantization_bit", 3, "quantization_bit (model.quantise)", "should be 4 or 8, but it is 3", "remove it"),
        ("quantization_bit", True, "quantization_bit (model.quantise)", "4 or 8, but it is True", "remove it"),
        ("warmup_steps", 0.1, "warmup_steps (train.warmup)", "a whole number, but it is 0.1", "is warmup_ratio"),
        ("warmup_steps", "x", "warmup_steps (train.warmup)", "valid number, but it is 'x'", ""),
        ("warmup_steps", True, "warmup_steps (train.warmup)", "a number, but it is True", ""),
        ("per_device_train_batch_size", 0, "per_device_train_batch_size (train.micro_batch_size)", "it is 0", ""),
        ("per_device_train_batch_size", True, "per_device_train_batch_size (train.micro_batch_size)", "number", ""),
        ("gradient_accumulation_steps", 0, "gradient_accumulation_steps (train.batch_size)", "it is 0", ""),
        ("gradient_accumulation_steps", "x", "gradient_accumulation_steps (train.batch_size)", "it is 'x'", ""),
    ],
)  # fmt: skip
def test_a_wrong_value_is_told_under_the_name_that_was_written(
    recipe: Callable[..., Path], name: str, value: Any, where: str, message: str, fix: str
) -> None:
    for problems in (
        problems_of(lambda: load_config(recipe(GOOD | {name: value}))),
        problems_of(lambda: load_config(recipe(GOOD), [f"{name}={value}"])),
    ):
        (problem,) = problems
        assert problem[0] == where
        assert message in problem[1]
        assert fix in problem[2]


def test_a_wrong_value_is_placed(recipe: Callable[..., Path]) -> None:
    path = recipe(GOOD | {"lora_r": 0, "num_train_epochs": 1, "max_steps": 1})
    found = problems_of(lambda: load_config(path, ["lora_alpha=0"]))
    assert {where for where, _, _ in found} == {
        "lora_r (adapter.r)", "lora_alpha (adapter.alpha)", "max_steps (train.max_steps)",
    }  # fmt: skip
    assert any(message.endswith(f"in {path}") for _, message, _ in found)
    assert any(message.endswith("in the override lora_alpha=0") for _, message, _ in found)
    # One that the override replaced is told under the override's name.
    found = problems_of(lambda: load_config(path, ["adapter.r=-1"]))
    assert ("adapter.r", "should be greater than or equal to 1, but it is -1 in the override adapter.r=-1", "") in found


@pytest.mark.parametrize(
    ("tree", "where", "fix"),
    [
        ({"lora_alfa": 8, "lora_r": 8}, "lora_alfa", "did you mean lora_alpha?"),
        ({"learning_rat": 8}, "learning_rat", "did you mean learning_rate?"),
        ({"num_epochs": 8, "lora_r": 8}, "num_epochs", "did you mean train.num_epochs?"),
        ({"lr": 8, "lora_r": 8}, "lr", "did you mean train.learning_rate?"),
        ({"adaptr": {}, "lora_r": 8}, "adaptr", "did you mean adapter?"),
        ({"adapter": {"lora_r": 8}, "seed": 1}, "adapter.lora_r", "did you mean adapter.r?"),
        ({"train": {"per_device_train_batch_size": 8}}, "train.per_device_train_batch_size", "train.micro_batch_size?"),
    ],
)  # fmt: skip
def test_an_unknown_name_gets_the_nearest(tree: dict[str, Any], where: str, fix: str) -> None:
    ((found, message, nearest),) = problems_of(lambda: parse_config(GOOD | tree, "the recipe"))
    assert (found, message) == (where, "unknown key in the recipe")
    assert fix in nearest


def test_a_section_that_holds_a_value_is_still_told(recipe: Callable[..., Path]) -> None:
    tree = {"model": "minilm", "model_name_or_path": "minilm", "data": "a.csv", "lora_r": 8}
    assert [where for where, _, _ in problems_of(lambda: load_config(recipe(tree)))] == ["model", "data"]


def test_the_written_tree_has_no_flat_names_and_reads_back_equal(recipe: Callable[..., Path]) -> None:
    config = load_config(recipe(USERS_INFERENCE))
    text = to_yaml(config)
    assert not set(yaml.safe_load(text)) & set(FLAT_NAMES)
    assert load_config(recipe(text, "again.yaml")) == config


def test_a_mapping_is_read_the_same_and_left_as_it_was(tmp_path: Path) -> None:
    tree = yaml.safe_load(USERS_INFERENCE)
    resolve_paths(tree, tmp_path)
    assert apply_overrides(tree, ["data.test=/t.json", "test_file=/t.json"])[0].where == "test_file"
    before = dict(tree)
    config = parse_config(tree, "the recipe")
    assert tree == before
    assert (config.run.output_dir, config.run.name) == (str(tmp_path), "output")
    assert config.data.train == str(tmp_path / "data" / "train.json")


def test_an_override_of_a_flat_name_stands_in_the_tree_at_once() -> None:
    """evaluate of a model that is no run looks for data.test among the overrides."""
    tree: dict[str, Any] = {"model": {"path": "minilm"}}
    assert apply_overrides(tree, ["test_file=/t.json"]) == []
    assert tree["data"] == {"test": str(Path("/t.json").resolve())}
