"""Conversations become features, batches and losses: against plain torch, token by token."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch.nn import functional

from language_models import (
    ARCHITECTURES,
    assistant,
    byte_tokenizer,
    make_language_model,
    real_tokenizer,
    system,
    talk,
    user,
)
from lorafy.config.schema import AdapterSection, TrainSection
from lorafy.encoding.conversations import ConversationEncoder
from lorafy.encoding.prompt import make_renderer
from lorafy.evaluation.language import SCORE_TOKENS, perplexity, token_sums
from lorafy.models.precision import Precision
from lorafy.objectives.tokens import token_losses
from lorafy.plugins import load_method
from lorafy.tasks.causal_lm import LOGITS_BYTES, CausalLM
from lorafy.training.optim import make_optimizer
from lorafy.training.paths import PlainPath
from lorafy.training.step import Stepper
from lorafy.types import IGNORE_INDEX, Batch, Conversation, DataError, Features, LossOutput, Message
from tolerances import FLOAT32_ROUNDING, FLOAT64_ROUNDING

PLAIN = Precision(torch.float32, torch.device("cpu"))
TALKS = [
    talk("Hi", "Hello there"),
    talk("What is 2 and 3?", "5", "And 4?", "It is 6, I think."),
    talk("你好吗？", "很好，谢谢！"),
    talk("Why?", "Because the sky is high and the sea is deep, and nobody has counted the stars."),
    talk("?", "!"),
]


def make_task(max_length: int = 200, *, chat: bool = False, tokenizer: Any = None, **settings: Any) -> CausalLM:
    tokenizer = byte_tokenizer(chat=chat) if tokenizer is None else tokenizer
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return CausalLM(ConversationEncoder(make_renderer(tokenizer), max_length, 256, **settings), len(tokenizer))


def targets_of(task: CausalLM, feature: Features) -> str:
    """The targets as text."""
    return task.tokenizer.decode([label for label in feature.labels if label != IGNORE_INDEX])


def text_of(task: CausalLM, feature: Features) -> str:
    return task.tokenizer.decode(feature.input_ids)


def sums_of(task: CausalLM, model: Any, features: Sequence[Features]) -> tuple[list[float], list[int], list[int]]:
    """For each sequence: its targets' losses, how many were predicted right, how many there are."""
    return token_sums(model, task.encoder, features, PLAIN, task.max_tokens)


def full_losses(model: Any, feature: Features) -> torch.Tensor:
    """The plain way: all logits of one unpadded sequence, each against the token that follows."""
    ids = torch.tensor([feature.input_ids])
    with torch.no_grad():
        log_probabilities = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
    following = torch.tensor(feature.labels[1:])
    chosen = log_probabilities[torch.arange(len(following)), following.clamp(min=0)]
    return torch.where(following == IGNORE_INDEX, 0.0, -chosen)


# What is a target


def test_targets_are_the_answers_and_their_ends():
    task = make_task()
    features = task.encode(TALKS[:3]).features
    end = "<|endoftext|>"
    assert [targets_of(task, feature) for feature in features] == [
        f"Hello there{end}",
        f"5{end}It is 6, I think.{end}",
        f"很好，谢谢！{end}",
    ]
    assert text_of(task, features[0]) == f"User:\nHi\n\nAssistant:\nHello there{end}"
    assert all(
        label in (IGNORE_INDEX, token) for f in features for label, token in zip(f.labels, f.input_ids, strict=True)
    )
    assert [feature.num_targets for feature in features] == [12, 20, 19], "bytes, and an end for each answer"
    assert [feature.row for feature in features] == [1, 1, 1] and not any(f.truncated for f in features)


def test_on_request_the_questions_are_targets_too():
    task = make_task(train_on_prompt=True)
    (feature,) = task.encode([TALKS[0]]).features
    assert targets_of(task, feature) == text_of(task, feature)[1:], "nothing stands before the first token"
    assert feature.labels == [IGNORE_INDEX, *feature.input_ids[1:]]


def test_qwen3s_template_gives_a_sequence_for_each_answer(shared_data):
    task = make_task(tokenizer=real_tokenizer(shared_data, "qwen3"))
    encoded = task.encode([talk("a", "b", "c", "d", row=7), talk("e", "f", row=8)])
    assert [targets_of(task, feature) for feature in encoded.features] == ["b<|im_end|>", "d<|im_end|>", "f<|im_end|>"]
    assert [feature.row for feature in encoded.features] == [7, 7, 8]


def test_conversations_that_the_template_refuses_are_named():
    tokenizer = byte_tokenizer(chat=True)
    rule = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    tokenizer.chat_template = rule + tokenizer.chat_template
    task = make_task(tokenizer=tokenizer)
    refused = [Conversation((system("s"), *TALKS[0].messages), "a.json", row) for row in (4, 9)]
    with pytest.raises(DataError) as caught:
        task.encode([TALKS[0], *refused])
    assert "no system role (row 4 of the test; 2 of 3 rows are like that)" in str(caught.value)


# What does not fit


def test_what_just_fits_is_whole():
    (whole,) = make_task().encode([TALKS[1]]).features
    encoded = make_task(max_length=len(whole)).encode([TALKS[1]])
    assert encoded.features == [whole] and not encoded.skipped


def test_a_long_question_loses_its_end_and_the_answer_stays_whole():
    task = make_task(max_length=48)
    encoded = task.encode([talk("0123456789" * 5, "The answer.", row=3)])
    (feature,) = encoded.features
    end = "<|endoftext|>"
    assert text_of(task, feature) == f"User:\n01234567890123456\n\nAssistant:\nThe answer.{end}"
    assert targets_of(task, feature) == f"The answer.{end}"
    assert (len(feature), feature.truncated, feature.row) == (48, True, 3), "as long as may be"
    assert not encoded.skipped


def test_the_oldest_turns_go_first_and_the_system_message_stays():
    turns = (system("S."), *talk("first", "one", "second", "two", "third", "three").messages)
    task = make_task(max_length=65)
    encoded = task.encode([Conversation(turns, "the test", 5)])
    end = "<|endoftext|>"
    assert [text_of(task, feature) for feature in encoded.features] == [
        f"S.\n\nUser:\nfirst\n\nAssistant:\none{end}",
        f"S.\n\nUser:\nfirst\n\nAssistant:\none{end}\n\nUser:\nsecond\n\nAssistant:\ntwo{end}",
        f"S.\n\nUser:\nsecond\n\nAssistant:\ntwo{end}\n\nUser:\nthird\n\nAssistant:\nthree{end}",
    ]
    assert [targets_of(task, feature) for feature in encoded.features] == [f"one{end}", f"two{end}", f"three{end}"]
    assert [feature.truncated for feature in encoded.features] == [False, False, True]
    assert {feature.row for feature in encoded.features} == {5}


@pytest.mark.parametrize("name", ["gpt2", "opt", "qwen2", "qwen3", "stories"])
def test_a_cut_conversation_asks_with_the_tokens_of_generation(shared_data, name: str):
    task = make_task(tokenizer=real_tokenizer(shared_data, name), max_length=256)
    messages = talk(*("a rather long question", "\nan answer of some words") * 16).messages
    *_, feature = task.encode([Conversation(messages, "the test", 1)]).features
    given = [token for token, label in zip(feature.input_ids, feature.labels, strict=True) if label == IGNORE_INDEX]
    asked = [task.encoder.renderer.question_ids(messages[start:-1]) for start in range(0, len(messages), 2)]
    assert given in asked


def test_an_answer_that_does_not_fit_is_skipped_with_its_reason():
    task = make_task(max_length=48)
    encoded = task.encode(
        [talk("q", "a" * 100, row=2), talk("q", "short", row=3), talk("q", "ok", "r", "b" * 60, row=4)]
    )
    assert [(skip.row, skip.reason) for skip in encoded.skipped] == [
        (2, "its answer alone does not fit into 48 tokens"),
        (4, "its answer alone does not fit into 48 tokens"),
    ]
    assert [feature.row for feature in encoded.features] == [3, 4], "the answer that fits is kept"


@pytest.mark.parametrize("length", [1, 15, 16, 17, 31, 32, 33, 48, 100])
def test_a_plain_text_is_cut_into_sequences_with_nothing_lost(length: int):
    """Every token but the first is a target once, after the token that stands before it; the end too."""
    task = make_task(max_length=16)
    text = "".join(chr(97 + index % 26) for index in range(length))
    encoded = task.encode([Conversation((Message("text", text),), "the test", 6)])
    assert not encoded.skipped
    pairs = [
        (before, target)
        for feature in encoded.features
        for before, target in zip(feature.input_ids, feature.labels[1:], strict=False)
        if target != IGNORE_INDEX
    ]
    ids = [*task.tokenizer(text)["input_ids"], task.encoder.renderer.end_id]
    assert pairs == list(itertools.pairwise(ids))
    assert all(len(feature) <= 16 and feature.row == 6 and not feature.truncated for feature in encoded.features)


# Batches and losses


def test_collate_pads_right_by_position_and_keeps_the_positions_that_have_a_target():
    task = make_task()
    pad = task.tokenizer.pad_token_id
    assert pad == task.encoder.renderer.end_id
    ignored = IGNORE_INDEX
    batch = task.collate([Features([5, 6, pad], [ignored, ignored, pad], 4), Features([7, 8], [ignored, 8], 9)])
    ids = batch.inputs["input_ids"]
    assert ids.shape == (2, 16) and ids[0].tolist() == [5, 6, pad, *[pad] * 13]
    assert batch.inputs["attention_mask"].tolist() == [[1, 1, 1, *[0] * 13], [1, 1, *[0] * 14]]
    assert batch.rows == [4, 9]
    keep = batch.inputs["logits_to_keep"].tolist()
    assert keep == sorted(keep) and {0, 1} <= set(keep)
    labels = torch.full((2, 16), IGNORE_INDEX)
    labels[:, keep] = batch.labels
    assert labels[0].tolist() == [ignored, pad, *[ignored] * 14], "the end is a target though it pads"
    assert labels[1].tolist() == [8, *[ignored] * 15]


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("train_on_prompt", [False, True])
def test_losses_are_those_of_plain_torch_token_by_token(name: str, train_on_prompt: bool):
    """Padded, a few logits kept, in one batch; against every logit of each sequence alone. Float64."""
    task = make_task(train_on_prompt=train_on_prompt, chat=name == "qwen3")
    model = make_language_model(name, task.vocab_size).double()
    features = task.encode(TALKS).features
    batch = task.collate(features)
    with torch.no_grad():
        found = functional.cross_entropy(
            model(**batch.inputs).logits.flatten(0, 1), batch.labels.flatten(), reduction="none"
        ).view_as(batch.labels)
    for row, feature in enumerate(features):
        spread = torch.zeros(batch.inputs["input_ids"].shape[1], dtype=torch.float64)
        spread[batch.inputs["logits_to_keep"]] = found[row]
        expected = full_losses(model, feature)
        torch.testing.assert_close(spread[: len(expected)], expected, rtol=FLOAT64_ROUNDING, atol=FLOAT64_ROUNDING)
        assert not spread[len(expected) :].any(), "padding is no target"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_padded_equals_alone(name: str):
    task = make_task()
    model = make_language_model(name, task.vocab_size)
    features = task.encode(TALKS).features
    together, correct, targets = sums_of(task, model, features)
    for index, feature in enumerate(features):
        alone = sums_of(task, model, [feature])
        assert together[index] == pytest.approx(alone[0][0], rel=FLOAT32_ROUNDING)
        assert correct[index] == alone[1][0] and targets[index] == feature.num_targets
        assert together[index] == pytest.approx(full_losses(model, feature).sum().item(), rel=FLOAT32_ROUNDING)


def test_the_loss_is_a_float32_sum_under_autocast():
    task = make_task()
    model = make_language_model("llama", task.vocab_size)
    batch = task.collate(task.encode(TALKS).features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = task.objective.loss(model, batch)
        logits = model(**batch.inputs).logits
    losses = functional.cross_entropy(logits.float().flatten(0, 1), batch.labels.flatten(), reduction="sum")
    assert output.loss_sum.dtype == torch.float32
    torch.testing.assert_close(output.loss_sum, losses)
    is_right = (logits.float().argmax(-1) == batch.labels) & (batch.labels != IGNORE_INDEX)
    assert output.score_sum.item() == is_right.sum().item()


def test_measures_are_means_over_tokens_not_over_rows():
    task = make_task()
    model = make_language_model("gpt2", task.vocab_size)
    features = task.encode(TALKS).features
    losses = torch.cat([full_losses(model, feature) for feature in features])
    mean = losses.sum().item() / sum(feature.num_targets for feature in features)
    measured = task.measure(model, features, PLAIN)
    assert measured["loss"] == pytest.approx(mean, rel=FLOAT32_ROUNDING)
    assert measured["perplexity"] == pytest.approx(torch.tensor(mean).exp().item(), rel=FLOAT32_ROUNDING)
    assert task.rank({"loss": 1.0}) > task.rank({"loss": 2.0})
    assert perplexity(1e9) < float("inf"), "json has no infinity"


def test_scores_stand_in_the_order_given_and_stay_under_the_limit():
    task, sizes = make_task(), []
    model = make_language_model("gpt2", task.vocab_size)
    features = task.encode(TALKS * 20).features

    def spy(**inputs: Any) -> Any:
        sizes.append(inputs["input_ids"].numel())
        return model(**inputs)

    losses, *_ = sums_of(task, spy, features)
    expected = [full_losses(model, feature).sum().item() for feature in features[: len(TALKS)]]
    assert losses == pytest.approx(expected * 20, rel=FLOAT32_ROUNDING)
    assert len(sizes) > 1 and max(sizes) <= SCORE_TOKENS


def test_a_large_vocabulary_makes_smaller_micro_batches():
    renderer = make_renderer(byte_tokenizer())
    short, long = ConversationEncoder(renderer, 64, 256), ConversationEncoder(renderer, 4_096, 8_192)
    small, large = CausalLM(short, 512), CausalLM(short, 151_936)
    assert large.max_tokens == LOGITS_BYTES // (10 * 151_936) < 1_000 < small.max_tokens
    assert CausalLM(long, 151_936).max_tokens == 4_096, "one whole sequence at least"


def test_the_probe_is_small_and_of_real_positions():
    task = make_task()
    model = make_language_model("gpt2", task.vocab_size)
    inputs = task.probe(task.encode(TALKS).features)
    outputs = task.probe_outputs(model, inputs)
    assert outputs.shape == (4, 4, task.vocab_size) and outputs.isfinite().all()


# The gradient of a step


class Float64Task:
    """The Task and the Objective protocol without a cast: what is left is the step's own arithmetic."""

    @property
    def objective(self) -> Float64Task:
        return self

    def loss(self, model: Any, batch: Batch) -> LossOutput:
        logits = model(**batch.inputs).logits
        loss = functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), reduction="sum")
        return LossOutput(loss, (logits.argmax(-1) == batch.labels).sum())


def gradient_of(
    name: str, cuts: Sequence[Sequence[int]], task: CausalLM, dtype: torch.dtype
) -> tuple[dict[str, torch.Tensor], float]:
    """What the optimizer is given for these micro-batches, and the step's loss."""
    features = task.encode(TALKS).features
    model = make_language_model(name, task.vocab_size).to(dtype).train()
    optimizer = make_optimizer(load_method("full").parameter_groups(model, AdapterSection()), TrainSection())
    computing: Any = Float64Task() if dtype == torch.float64 else task
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    path = PlainPath(model, computing, PLAIN, None)
    stepper = Stepper(model, path, optimizer, scaler, Accelerator(), PLAIN, None, lambda number: None)
    seen: dict[str, torch.Tensor] = {}
    optimizer.register_step_pre_hook(
        lambda *_: seen.update({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    )
    batches = [task.collate([features[index] for index in cut]) for cut in cuts]
    result = stepper.step(batches, sum(f.num_targets for f in features), learning_rate=0.0, seed=0, number=1)
    return seen, result.loss_sum / result.num_targets


def plain_gradient(name: str, task: CausalLM, dtype: torch.dtype) -> tuple[dict[str, torch.Tensor], float]:
    """The mean over all target tokens of the unpadded sequences, every logit computed."""
    model = make_language_model(name, task.vocab_size).to(dtype)
    features = task.encode(TALKS).features
    losses = []
    for feature in features:
        logits = model(input_ids=torch.tensor([feature.input_ids])).logits[0, :-1]
        losses.append(functional.cross_entropy(logits, torch.tensor(feature.labels[1:]), reduction="sum"))
    loss = sum(losses, torch.zeros((), dtype=dtype)) / sum(feature.num_targets for feature in features)
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, loss.item()


CUTS = [[[0, 1, 2, 3, 4]], [[0], [1], [2], [3], [4]], [[3], [4, 0, 2, 1]], [[1, 3], [0, 4], [2]]]


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("cuts", CUTS, ids=str)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, FLOAT64_ROUNDING), (torch.float32, FLOAT32_ROUNDING)], ids=["f64", "f32"]
)
def test_any_cut_of_a_step_has_the_gradient_of_the_plain_mean(name: str, cuts, dtype: torch.dtype, tolerance: float):
    """The rows have 2 to 79 targets: a mean of means would be far off."""
    task = make_task()
    found, loss = gradient_of(name, cuts, task, dtype)
    expected, plain_loss = plain_gradient(name, task, dtype)
    assert loss == pytest.approx(plain_loss, rel=tolerance)
    assert set(found) == set(expected)
    largest = max(tensor.abs().max().item() for tensor in expected.values())
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor, rtol=tolerance, atol=tolerance * largest, msg=key)


def test_token_losses_are_zero_where_nothing_is_to_learn():
    task = make_task()
    model = make_language_model("gpt2", task.vocab_size)
    batch = task.collate(task.encode(TALKS).features)
    with torch.no_grad():
        losses, correct = token_losses(model, batch)
    ignored = batch.labels == IGNORE_INDEX
    assert not losses[ignored].any() and not correct[ignored].any() and (losses[~ignored] > 0).all()


def test_a_question_and_an_answer_that_begin_alike_are_two(shared_data):
    """The boundary is one between tokens: an answer's first token is the same whatever was asked."""
    task = make_task(tokenizer=real_tokenizer(shared_data, "gpt2"))
    firsts = set()
    for question in ("Hi", "Hi.", "Hi\n", "Hi "):
        (feature,) = task.encode([Conversation((user(question), assistant("Well")), "the test", 1)]).features
        firsts.add(next(label for label in feature.labels if label != IGNORE_INDEX))
    assert firsts == {task.tokenizer("Well")["input_ids"][0]}
