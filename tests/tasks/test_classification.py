"""Texts become features, batches, scores and losses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from lorafy.config.schema import ModelSection
from lorafy.encoding.texts import SCORE_TOKENS
from lorafy.models.load import open_source
from lorafy.models.precision import Precision
from lorafy.tasks.classification import Classification
from lorafy.types import IGNORE_INDEX, Example, Features
from tiny_models import LABELS, build, logits_of, make_config
from tolerances import FLOAT32_ROUNDING

PLAIN = Precision(torch.float32, torch.device("cpu"))
ARCHITECTURES = ["bert", "distilbert", "roberta", "gpt2"]


def example(text: str, label: str | None = "ham", pair: str | None = None) -> Example:
    return Example(text, label, "the test", 1, pair)


def make_task(folder: Path, max_length: int = 64) -> Classification:
    return Classification(open_source(ModelSection(path=str(folder))).tokenizer, LABELS, max_length)


def test_the_encoded_text_is_the_tokenizers(tiny_bert: Path):
    task = make_task(tiny_bert)
    (feature,) = task.encode([example("win a free phone")]).features
    assert task.tokenizer.convert_ids_to_tokens(feature.input_ids) == ["[CLS]", "win", "a", "free", "phone", "[SEP]"]
    assert (feature.labels, feature.truncated, feature.token_type_ids) == ([0], False, None)


def test_a_text_of_just_the_limit_is_whole_and_a_longer_one_is_flagged(tiny_bert: Path):
    task = make_task(tiny_bert, max_length=6)
    fits, cut = task.encode([example("win a free phone"), example("win a free phone now")]).features
    assert len(fits) == len(cut) == 6 and not fits.truncated and cut.truncated
    assert task.tokenizer.convert_ids_to_tokens(cut.input_ids)[-1] == "[SEP]", "its end mark is not cut"


def test_many_texts_keep_their_order_over_chunks(tiny_bert: Path, monkeypatch):
    monkeypatch.setattr("lorafy.encoding.texts.ENCODE_CHUNK", 3)
    task = make_task(tiny_bert, max_length=7)
    examples = [example("phone " * (index % 8 + 1), LABELS[index % 2]) for index in range(11)]
    features = task.encode(examples).features
    assert [len(f) for f in features] == [min(7, index % 8 + 3) for index in range(11)]
    assert [f.truncated for f in features] == [index % 8 + 3 > 7 for index in range(11)]
    assert [f.labels for f in features] == [[index % 2] for index in range(11)]


def test_an_unlabelled_example_is_ignored_by_the_loss(tiny_bert: Path):
    (feature,) = make_task(tiny_bert).encode([example("ok", None)]).features
    assert feature.labels == [IGNORE_INDEX]


def test_a_pair_has_token_types(tiny_bert: Path):
    task = make_task(tiny_bert)
    (feature,) = task.encode([example("free phone", pair="a car")]).features
    tokens = task.tokenizer.convert_ids_to_tokens(feature.input_ids)
    assert tokens == ["[CLS]", "free", "phone", "[SEP]", "a", "car", "[SEP]"]
    assert feature.token_type_ids == [0, 0, 0, 0, 1, 1, 1]


def test_collate_pads_by_a_few_positions_and_masks_by_position(tiny_bert: Path):
    task = make_task(tiny_bert, max_length=6)  # the length is rounded up, but not over the limit
    pad = task.tokenizer.pad_token_id
    batch = task.collate([Features([5, pad, 6], [1], 4), Features([7], [0], 9, token_type_ids=[1])])
    assert batch.inputs["input_ids"].tolist() == [[5, pad, 6, pad, pad, pad], [7, pad, pad, pad, pad, pad]]
    mask = [[1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]]
    assert batch.inputs["attention_mask"].tolist() == mask, "a pad token inside a text counts"
    assert batch.inputs["token_type_ids"].tolist() == [[0] * 6, [1, 0, 0, 0, 0, 0]]
    assert batch.labels.tolist() == [1, 0] and batch.rows == [4, 9]


@pytest.mark.parametrize(("num_tokens", "expected"), [(1, 8), (8, 8), (9, 16), (57, 60), (60, 60), (61, 61)])
def test_lengths_are_rounded_up_within_the_limit(tiny_bert: Path, monkeypatch, num_tokens: int, expected: int):
    monkeypatch.setattr("lorafy.encoding.lengths.LENGTH_MULTIPLE", 8)
    assert make_task(tiny_bert, max_length=60).padded_length(num_tokens) == expected


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("pairs", [False, True], ids=["single", "pairs"])
def test_padded_equals_unpadded_on_every_architecture(base_models, sms_csv, name: str, pairs: bool):
    built, prepared = build(make_config(base_models[name], sms_csv))
    task = prepared.task
    texts = ["ok", "win a free phone , call now", "see you at lunch", "a"]
    examples = [example(text, pair=f"{text} tonight" if pairs else None) for text in texts]
    features = task.encode(examples).features
    padded = logits_of(built.model, task.collate(features).inputs)
    alone = torch.cat([logits_of(built.model, task.collate([feature]).inputs) for feature in features])
    torch.testing.assert_close(padded, alone, rtol=FLOAT32_ROUNDING, atol=FLOAT32_ROUNDING)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_empty_text_is_scored_like_any_other(base_models, sms_csv, name: str):
    """A tokenizer without special tokens (GPT-2's) makes nothing of it."""
    built, prepared = build(make_config(base_models[name], sms_csv))
    task = prepared.task
    assert isinstance(task, Classification)
    features = task.encode([example(""), example("ok")]).features
    scores = task.encoder.outputs(built.model.eval(), features, PLAIN)
    assert scores.isfinite().all()
    alone = task.encoder.outputs(built.model, features[:1], PLAIN)
    torch.testing.assert_close(alone[0], scores[0], rtol=FLOAT32_ROUNDING, atol=FLOAT32_ROUNDING)


def test_scores_stand_in_the_order_given_and_stay_under_the_limit(base_models, sms_csv):
    built, prepared = build(make_config(base_models["bert"], sms_csv))
    task, sizes = prepared.task, []
    assert isinstance(task, Classification)
    features = [f for f in prepared.features["train"] for _ in range(12)]
    model = built.model.eval()

    def spy(**inputs):
        sizes.append(inputs["input_ids"].numel())
        return model(**inputs)

    scores = task.encoder.outputs(spy, features, PLAIN)
    expected = torch.cat([logits_of(model, task.collate([f]).inputs) for f in features[::12]])
    torch.testing.assert_close(scores[::12], expected, rtol=FLOAT32_ROUNDING, atol=FLOAT32_ROUNDING)
    assert len(sizes) > 1 and max(sizes) <= SCORE_TOKENS


def test_no_text_no_scores(base_models, sms_csv):
    built, prepared = build(make_config(base_models["bert"], sms_csv))
    assert isinstance(prepared.task, Classification)
    assert prepared.task.encoder.outputs(built.model, [], PLAIN).shape == (0, 2)


def test_the_loss_is_a_float32_sum_over_targets(base_models, sms_csv):
    built, prepared = build(make_config(base_models["bert"], sms_csv))
    batch = prepared.task.collate([*prepared.features["train"][:4], Features([2, 9, 3], [IGNORE_INDEX], 1)])
    model = built.model.eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = prepared.task.objective.loss(model, batch)
        logits = model(**batch.inputs).logits
    assert output.loss_sum.dtype == torch.float32
    expected = functional.cross_entropy(logits[:4].float(), batch.labels[:4]) * 4
    torch.testing.assert_close(output.loss_sum, expected)
    assert output.score_sum.item() == (logits[:4].argmax(-1) == batch.labels[:4]).sum().item()
