"""The losses of texts with several labels, and with numbers: the fast path's gradients are the plain one's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from both_paths import build_both, build_plain, largest_difference, loss_and_gradients

from language_models import write_rows
from lorafy.engine.fast_path import build_fused_layers
from lorafy.training.paths import FusedLayersPath
from tolerances import FLOAT32_ROUNDING

pytestmark = pytest.mark.usefixtures("compiler")


@pytest.fixture(scope="module", params=["multi_label", "one_label", "regression"])
def rows(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, sms_rows: list[Any]) -> Path:
    labels = {
        "multi_label": lambda kind, words: [name for name in ("call", "you", "spam") if name in (*words, kind)],
        "one_label": lambda kind, words: ["spam"] if kind == "spam" else [],
        "regression": lambda kind, words: 100.5 + len(words) + 10 * (kind == "spam"),
    }
    said = labels[request.param]
    found = [
        {"text": " ".join(text.split()[: 1 + index % 11]), "label": said(kind, text.split())}
        for index, (kind, text) in enumerate(sms_rows)
    ]
    return write_rows(tmp_path_factory.mktemp("rows") / f"{request.param}.json", found)


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
@pytest.mark.parametrize("method", ["lora", "none"])
def test_loss_and_gradients_are_the_model_s(
    family_bases: dict[str, Path], rows: Path, family: str, method: str
) -> None:
    adapter: dict[str, Any] = {"method": method} | ({"r": 5} if method == "lora" else {})
    both = build_both(family_bases[family], rows, adapter)
    assert both.plain.task.name == ("regression" if rows.stem == "regression" else "multi_label")
    plain, fast = (loss_and_gradients(path, both.model, both.features) for path in (both.plain, both.fast))
    assert largest_difference(fast, plain) < FLOAT32_ROUNDING


def test_with_fused_layers_they_are_too(rows: Path, base_models: dict[str, Path]) -> None:
    """GPT-2 as a classifier, whose head has no bias."""
    plain, features = build_plain(base_models["gpt2"], rows, {"r": 5})
    fused = FusedLayersPath(plain, build_fused_layers(plain.model, plain.precision.dtype, plain.precision.device))
    expected, found = (loss_and_gradients(path, plain.model, features) for path in (plain, fused))
    assert largest_difference(found, expected) < FLOAT32_ROUNDING
