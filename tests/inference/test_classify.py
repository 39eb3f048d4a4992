"""Texts in, labels out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lorafy.inference.classify import classify
from lorafy.models.precision import Precision
from lorafy.types import Example
from tiny_models import LABELS, build, logits_of, make_config, move_trainable
from tolerances import FLOAT32_ROUNDING, FLOAT64_ROUNDING

CPU = Precision(torch.float32, torch.device("cpu"))
TEXTS = ["win a free phone , call now to claim your prize", "ok", "see you at lunch", "", "ok", "phone " * 100]


@pytest.fixture(scope="module")
def trained(tiny_bert: Path, sms_csv: Path):
    built, prepared = build(make_config(tiny_bert, sms_csv))
    move_trainable(built.model, 0.2)
    batch = prepared.task.collate(prepared.task.encode([Example(text, None, "", 1) for text in TEXTS]).features)
    logits = logits_of(built.model, batch.inputs)
    with torch.no_grad():  # so that both labels are predicted
        head = built.model.get_submodule("base_model.model.classifier.modules_to_save.default")
        head.bias[0] += (logits[:, 1] - logits[:, 0]).median()
    return built.model.eval(), prepared.task


def test_one_prediction_a_text_in_the_order_given(trained):
    model, task = trained
    predictions = classify(model, task, TEXTS, CPU)
    assert [p.text for p in predictions] == TEXTS
    for text, prediction in zip(TEXTS, predictions, strict=True):
        inputs = task.tokenizer(text, truncation=True, max_length=64, return_tensors="pt")
        expected = logits_of(model, inputs)[0].double().softmax(-1)
        found = torch.tensor(list(prediction.probabilities.values()), dtype=torch.float64)
        torch.testing.assert_close(found, expected, rtol=FLOAT32_ROUNDING, atol=FLOAT32_ROUNDING)
        assert sum(prediction.probabilities.values()) == pytest.approx(1.0, abs=FLOAT64_ROUNDING)
        assert list(prediction.probabilities) == LABELS
        assert prediction.label == LABELS[int(expected.argmax())]
        assert prediction.probability == max(prediction.probabilities.values())
    assert len({p.label for p in predictions}) == 2, "the test would not see two labels changed about"


def test_a_text_that_was_cut_is_flagged(trained):
    assert [p.truncated for p in classify(*trained, TEXTS, CPU)] == [False, False, False, False, False, True]


def test_no_text_no_prediction(trained):
    assert classify(*trained, [], CPU) == []


def test_a_pair_is_not_its_first_text_alone(trained):
    alone, pair = classify(*trained, ["ok", ("ok", "win a free phone")], CPU)
    assert pair.text == "ok"
    inputs = trained[1].tokenizer("ok", "win a free phone", return_tensors="pt")
    expected = logits_of(trained[0], inputs)[0].double().softmax(-1)
    assert list(pair.probabilities.values()) == pytest.approx(expected.tolist(), rel=FLOAT32_ROUNDING)
    assert alone.probabilities != pair.probabilities


def test_a_batch_with_pairs_does_not_change_the_others(trained):
    """Texts without a second one stand beside pairs: they are encoded as if alone."""
    (alone,) = classify(*trained, ["see you at lunch"], CPU)
    _, beside = classify(*trained, [("ok", "win a free phone"), "see you at lunch"], CPU)
    assert beside.probability == pytest.approx(alone.probability, rel=FLOAT32_ROUNDING)
