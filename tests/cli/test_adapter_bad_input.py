"""What a recipe may say wrongly of its adapter: exit code 2, all of it told, no traceback, nothing written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from command_line import Outcome

Verb = Callable[..., Outcome]


def entries(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*")}


@pytest.fixture
def refused(lorafy: Verb, recipe: Callable[..., Path], tmp_path: Path) -> Callable[..., str]:
    """`refused(base, data, adapter)`: what `train` says."""

    def train(base: Path, data: Path, adapter: dict[str, Any], **sections: Any) -> str:
        tree = {"model": {"path": base}, "data": {"train": data}, "adapter": adapter, "run": {"output_dir": "runs"}}
        path = recipe(tree | sections)
        before = entries(tmp_path)
        outcome = lorafy("train", path)
        assert outcome.code == 2, outcome.stderr
        assert "Traceback" not in outcome.stderr and " problem" in outcome.stderr
        assert entries(tmp_path) == before
        return outcome.stderr

    return train


CLASSIFIER: list[tuple[dict[str, Any], str, str]] = [
    ({"method": "full", "lr_ratio": 16}, "adapter.lr_ratio: no effect with method: full", "remove it"),
    ({"method": "none", "lr_ratio": 16}, "adapter.lr_ratio: no effect with method: none", "remove it"),
    ({"method": "adalora", "lr_ratio": 16}, "adapter.lr_ratio: no effect with method: adalora", "remove it"),
    ({"method": "adalora", "rank_pattern": {"query": 2}}, "adapter.rank_pattern: no effect", "remove it"),
    ({"lr_ratio": 0}, "adapter.lr_ratio: should be greater than 0", ""),
    ({"method": "lora+"}, "adapter.method: ", ""),
    ({"r": 64}, "adapter.r: rank 64 is above the size of 13 layers", "lower adapter.r"),
    ({"r": 4, "rank_pattern": {"query": 64}}, "rank 64 is above the size of 2 layers", "lower adapter.r"),
    ({"method": "pissa", "r": 64}, "adapter.r: rank 64 is above the size", "lower adapter.r"),
    ({"method": "olora", "r": 64}, "adapter.r: rank 64 is above the size", "lower adapter.r"),
    ({"method": "adalora", "r": 64}, "rank 64 is above the size", "lower adapter.r"),
    ({"r": 4, "rank_pattern": {"qurey": 2}}, "adapter.rank_pattern: 'qurey' matches no layer", "did you mean query"),
    ({"r": 4, "alpha_pattern": {"valeu": 2}}, "adapter.alpha_pattern: 'valeu' matches no layer", "did you mean value"),
    ({"r": 4, "rank_pattern": {"(": 2}}, "adapter.rank_pattern: '(' is no regular expression", ""),
    ({"r": 4, "rank_pattern": {"query": 0}}, "adapter.rank_pattern", ""),
    ({"r": 4, "target_modules": ["qurey"]}, "adapter.target_modules: 'qurey' matches no linear layer", "did you mean"),
    ({"r": 4, "exclude_modules": ["qurey"]}, "adapter.exclude_modules: 'qurey' matches no layer", "mean query"),
    ({"r": 4, "layers_to_transform": [7]}, "adapter.layers_to_transform: this model has no layer 7", "0 to 1"),
    ({"r": 4, "modules_to_save": ["poler"]}, "adapter.modules_to_save: 'poler' matches no module", "mean pooler"),
    ({"r": 4, "trainable_token_indices": [99999]}, "there is no token 99999", "counted from 0"),
    ({"r": 4, "trainable_token_indices": [-1]}, "adapter.trainable_token_indices", ""),
    ({"r": 4, "trainable_token_indices": [3, 3]}, "3 stands there more than once", ""),
    ({"method": "dora", "target_modules": ["word_embeddings"]}, "it is a Embedding", "linear layers of this model"),
]  # fmt: skip


@pytest.mark.parametrize(("adapter", "said", "fix"), CLASSIFIER, ids=lambda value: str(value)[:60])
def test_a_setting_that_has_no_effect_or_cannot_be(refused, tiny_bert: Path, sms_csv: Path, adapter, said, fix) -> None:
    shown = refused(tiny_bert, sms_csv, adapter)
    assert said in shown and fix in shown, shown


def test_all_of_them_are_told_at_once(refused: Callable[..., str], tiny_bert: Path, sms_csv: Path) -> None:
    wrong = {"rank_pattern": {"qurey": 2}, "modules_to_save": ["poler"], "trainable_token_indices": [99_999], "r": 4}
    shown = refused(tiny_bert, sms_csv, wrong)
    assert shown.splitlines()[0] == "3 problems:"
    for key in wrong.keys() - {"r"}:
        assert f"adapter.{key}: " in shown


def test_olora_on_gpt2_s_layers(refused: Callable[..., str], base_models: dict[str, Path], sms_csv: Path) -> None:
    assert "is a Conv1D, which keeps W transposed" in refused(base_models["gpt2"], sms_csv, {"method": "olora", "r": 4})


@pytest.mark.parametrize("method", ["pissa", "olora", "full"])
def test_a_method_that_changes_the_base_on_a_quantised_one(refused, tiny_bert, sms_csv: Path, method: str) -> None:
    shown = refused(tiny_bert, sms_csv, {"method": method}, model={"path": tiny_bert, "quantise": "nf4"})
    assert "changes the base's own weights, and quantised ones cannot be changed" in shown
    assert "dora, " in shown, "what can be taken instead"


def test_a_table_that_is_trained_whole_and_by_rows(refused, language_bases, sums_json: Path) -> None:
    adapter = {"r": 4, "modules_to_save": ["embed_tokens"], "trainable_token_indices": [5]}
    shown = refused(language_bases["llama"], sums_json, adapter)
    assert "adapter.trainable_token_indices: adapter.modules_to_save trains model.embed_tokens whole" in shown


def test_a_run_is_resumed_as_it_began(
    lorafy: Verb, recipe: Callable[..., Path], tiny_bert: Path, sms_csv: Path, tmp_path: Path
) -> None:
    tree = {"model": {"path": tiny_bert}, "data": {"train": sms_csv}, "adapter": {"r": 4}}
    path = recipe(tree | {"train": {"max_steps": 2}, "run": {"output_dir": "runs", "name": "one"}})
    assert lorafy("train", path).code == 0
    before = entries(tmp_path)
    for other in ("method=dora", "method=pissa", "lr_ratio=16", "use_rslora=true", "rank_pattern={query: 2}"):
        outcome = lorafy("train", path, f"adapter.{other}", "--resume")
        assert outcome.code == 2 and "Traceback" not in outcome.stderr
        assert f"the recipe differs from the run's in adapter.{other.partition('=')[0]}" in outcome.stderr
        assert "a resumed run is the same run" in outcome.stderr
        assert entries(tmp_path) == before
