"""Texts in, labels out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lorafy.config.schema import ModelSection
from lorafy.inference.classify import Classifier
from lorafy.inference.trained import Trained
from lorafy.models.precision import Precision
from lorafy.tasks.classification import Classification
from lorafy.types import Example
from tiny_models import LABELS, build, logits_of, make_config, move_trainable
from tolerances import FLOAT32_ROUNDING, FLOAT64_ROUNDING

CPU = Precision(torch.float32, torch.device("cpu"))
TEXTS = ["win a free phone , call now to claim your prize", "ok", "see you at lunch", "", "ok", "phone " * 100]


@pytest.fixture(scope="module")
def trained(tiny_bert: Path, sms_csv: Path) -> tuple[Classifier, Trained]:
    """A classifier, and the merged model that it asks."""
    built, prepared = build(make_config(tiny_bert, sms_csv))
    move_trainable(built.model, 0.2)
    batch = prepared.task.collate(prepared.task.encode([Example(text, None, "", 1) for text in TEXTS]).features)
    logits = logits_of(built.model, batch.inputs)
    with torch.no_grad():  # so that both labels are predicted
        head = built.model.get_submodule("base_model.model.classifier.modules_to_save.default")
        head.bias[0] += (logits[:, 1] - logits[:, 0]).median()
    section = ModelSection(path=str(tiny_bert))
    loaded = Trained(built.model.eval(), prepared.task, built.method, None, None, built.base, CPU, section)
    assert isinstance(prepared.task, Classification)
    return Classifier(loaded, prepared.task.encoder, prepared.task.label_names), loaded


def test_one_prediction_a_text_in_the_order_given(trained):
    classifier, loaded = trained
    predictions = classifier.classify(TEXTS)
    assert [p.text for p in predictions] == TEXTS
    for text, prediction in zip(TEXTS, predictions, strict=True):
        inputs = loaded.task.tokenizer(text, truncation=True, max_length=64, return_tensors="pt")
        expected = logits_of(loaded.model, inputs)[0].double().softmax(-1)
        found = torch.tensor(list(prediction.probabilities.values()), dtype=torch.float64)
        torch.testing.assert_close(found, expected, rtol=FLOAT32_ROUNDING, atol=FLOAT32_ROUNDING)
        assert sum(prediction.probabilities.values()) == pytest.approx(1.0, abs=FLOAT64_ROUNDING)
        assert list(prediction.probabilities) == LABELS
        assert prediction.label == LABELS[int(expected.argmax())]
        assert prediction.probability == max(prediction.probabilities.values())
    assert len({p.label for p in predictions}) == 2, "the test would not see two labels changed about"


def test_a_text_that_was_cut_is_flagged(trained):
    assert [p.truncated for p in trained[0].classify(TEXTS)] == [False, False, False, False, False, True]


def test_no_text_no_prediction(trained):
    assert trained[0].classify([]) == []


def test_a_pair_is_not_its_first_text_alone(trained):
    alone, pair = trained[0].classify(["ok", ("ok", "win a free phone")])
    assert pair.text == "ok"
    inputs = trained[1].task.tokenizer("ok", "win a free phone", return_tensors="pt")
    expected = logits_of(trained[1].model, inputs)[0].double().softmax(-1)
    assert list(pair.probabilities.values()) == pytest.approx(expected.tolist(), rel=FLOAT32_ROUNDING)
    assert alone.probabilities != pair.probabilities


def test_a_batch_with_pairs_does_not_change_the_others(trained):
    """Texts without a second one stand beside pairs: they are encoded as if alone."""
    (alone,) = trained[0].classify(["see you at lunch"])
    _, beside = trained[0].classify([("ok", "win a free phone"), "see you at lunch"])
    assert beside.probability == pytest.approx(alone.probability, rel=FLOAT32_ROUNDING)
