"""Training learns, measuring changes nothing, and the same seed is the same run."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import lorafy.demo
from course.tokenizer import ByteLevelBPE
from lorafy.scratch import (
    Batch,
    SimpleGPTForClassification,
    SpamDataset,
    calc_accuracy,
    calc_loss_batch,
    calc_loss_loader,
    classify_text,
    freeze_all_but_lora,
    make_loader,
    next_token_loss,
    predict,
    pretrain,
    random_split,
    read_messages,
    replace_linear_with_lora,
    train_lora_model,
)
from tolerances import FLOAT32_ROUNDING, FLOAT64_ROUNDING


@dataclass(frozen=True)
class Course:
    """The bundled messages, as chapter 3 prepares them."""

    bpe: ByteLevelBPE
    train: SpamDataset
    validation: SpamDataset
    test: SpamDataset

    def model(self, **settings) -> SimpleGPTForClassification:
        sizes = {"width": 64, "num_heads": 4, "num_layers": 2, "hidden": 128}
        return SimpleGPTForClassification(self.bpe.vocab_size, self.train.max_length, **sizes | settings)

    def lora_model(self) -> SimpleGPTForClassification:
        model = self.model()
        replace_linear_with_lora(model, rank=8, alpha=16, skip=("head",))
        freeze_all_but_lora(model, also=("head",))
        return model

    def few(self, count: int = 24) -> SpamDataset:
        part = copy.copy(self.train)
        part.ids, part.lengths, part.labels = part.ids[:count], part.lengths[:count], part.labels[:count]
        return part


@pytest.fixture(scope="module")
def course() -> Course:
    rows = read_messages(Path(lorafy.demo.__file__).parent / "sms.csv")
    train, validation, test = random_split(rows)
    bpe = ByteLevelBPE.train([text for text, _ in train], num_merges=300)
    dataset = SpamDataset.from_rows(train, bpe)
    others = [SpamDataset.from_rows(part, bpe, dataset.max_length) for part in (validation, test)]
    return Course(bpe, dataset, *others)


def test_lora_on_a_pretrained_base_beats_a_majority_vote(course: Course) -> None:
    model = course.model()
    loader = make_loader(course.train, 16, shuffle=True)
    learnt = pretrain(model, loader, epochs=1, learning_rate=3e-3)
    assert learnt.losses[0] > 0.9 * math.log(course.bpe.vocab_size)
    assert sum(learnt.losses[-10:]) / 10 < 0.9 * learnt.losses[0]
    replace_linear_with_lora(model, rank=8, alpha=16, skip=("head",))
    freeze_all_but_lora(model, also=("head",))
    base = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    validation = make_loader(course.validation, 32)
    history = train_lora_model(model, loader, validation, epochs=4, learning_rate=3e-3, eval_every=1000)
    assert history.steps == [0, 4 * len(loader)]
    assert history.train_losses[-1] < 0.8 * history.train_losses[0]
    assert history.validation_losses[-1] < history.validation_losses[0]
    test = make_loader(course.test, 32)
    majority = max(course.test.labels.float().mean().item(), 1 - course.test.labels.float().mean().item())
    assert calc_accuracy(test, model) > majority + 0.05
    parameters = dict(model.named_parameters())
    assert all(torch.equal(parameters[name], tensor) for name, tensor in base.items()), "the base is frozen"


def test_how_often_one_measures_changes_nothing(course: Course) -> None:
    """Dropout is on, and both loaders are read by the measurements: none of it may be felt."""
    results = []
    for eval_every in (1, 1000):
        model, few = course.lora_model(), course.few()
        train, validation = make_loader(few, 8, shuffle=True), make_loader(few, 8, shuffle=True)
        history = train_lora_model(model, train, validation, epochs=2, eval_every=eval_every)
        results.append((model.state_dict(), history))
    (often, measured), (seldom, ends) = results
    assert all(torch.equal(tensor, seldom[name]) for name, tensor in often.items())
    assert measured.steps == list(range(7)) and ends.steps == [0, 6]
    # The texts stand in other batches.
    assert measured.train_losses[::6] == pytest.approx(ends.train_losses, rel=FLOAT32_ROUNDING)
    assert measured.validation_accuracies[::6] == ends.validation_accuracies


def test_the_same_seed_is_the_same_run_and_another_is_not(course: Course) -> None:
    def run(seed: int, before: int) -> tuple[dict[str, torch.Tensor], list[float]]:
        torch.manual_seed(before)
        model, few = course.lora_model(), course.few()
        history = train_lora_model(
            model, make_loader(few, 8, shuffle=True), make_loader(few), epochs=1, seed=seed, eval_every=2
        )
        return model.state_dict(), history.train_losses

    (one, losses), (two, again), (other, _) = run(1, before=10), run(1, before=11), run(2, before=10)
    assert losses == again
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())
    assert not all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def measurements(course: Course) -> list[Callable[[SimpleGPTForClassification, object], object]]:
    return [
        lambda model, loader: calc_accuracy(loader, model),
        lambda model, loader: calc_loss_loader(loader, model, num_batches=2),
        lambda model, loader: [tensor.tolist() for tensor in predict(loader, model)],
        lambda model, loader: classify_text("FREE prize, call now", model, course.bpe, course.train.max_length),
    ]


@pytest.mark.parametrize("training", [True, False])
def test_measuring_changes_no_weight_no_mode_and_no_random_state(course: Course, training: bool) -> None:
    model, loader = course.lora_model(), make_loader(course.few(), 8, shuffle=True)
    model.train(training)
    before = copy.deepcopy(model.state_dict())
    state, order = torch.get_rng_state(), loader.generator.get_state()
    for measure in measurements(course):
        first, second = measure(model, loader), measure(model, loader)
        assert first == second
        assert model.training is training
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(loader.generator.get_state(), order)
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
        assert all(parameter.grad is None for parameter in model.parameters())


def test_the_mode_comes_back_after_an_error(course: Course) -> None:
    model = course.lora_model()
    with pytest.raises(ValueError, match="tokens"):
        classify_text("x" * 5000, model, course.bpe, max_length=5000)
    assert model.training


def test_a_loss_is_a_mean_over_texts_whatever_the_batches(course: Course) -> None:
    model, few = course.model().double().eval(), course.few(22)
    whole = next(iter(make_loader(few, 22)))
    exact = calc_loss_batch(whole, model).item()
    for batch_size in (1, 5, 8, 22):
        assert calc_loss_loader(make_loader(few, batch_size), model) == pytest.approx(exact, rel=FLOAT64_ROUNDING)
    accuracy = (model(whole.ids, whole.lengths).argmax(-1) == whole.labels).double().mean().item()
    assert calc_accuracy(make_loader(few, 5), model) == accuracy
    first = Batch(*(tensor[:10] for tensor in whole))
    assert calc_loss_loader(make_loader(few, 5), model, num_batches=2) == pytest.approx(
        calc_loss_batch(first, model).item(), rel=FLOAT64_ROUNDING
    )


def test_the_next_token_loss_counts_real_tokens_only(course: Course) -> None:
    """Against one text after the other, without padding."""
    model = course.model().double().eval()
    batch = next(iter(make_loader(course.few(), 6)))
    loss, num_tokens = next_token_loss(batch, model)
    total = 0.0
    for row, length in zip(batch.ids, batch.lengths.tolist(), strict=True):
        logits = model.next_token_logits(row[None, :length])[0, :-1]
        total += torch.nn.functional.cross_entropy(logits, row[1:length], reduction="sum").item()
    assert num_tokens == int((batch.lengths - 1).sum())
    assert loss.item() == pytest.approx(total / num_tokens, rel=FLOAT64_ROUNDING)


def test_pretraining_leaves_the_classification_head_alone(course: Course) -> None:
    model = course.model()
    before = copy.deepcopy(model.state_dict())
    history = pretrain(model, make_loader(course.few(), 8), epochs=5, max_steps=4)
    assert len(history.losses) == 4 and history.num_tokens > 0
    assert torch.equal(model.head.weight, before["head.weight"])
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {"token_embedding.weight", "blocks.1.feed_forward.down.weight"} <= changed


def test_training_with_everything_frozen_is_refused(course: Course) -> None:
    model, loader = course.model().requires_grad_(False), make_loader(course.few())
    for train in (lambda: train_lora_model(model, loader, loader), lambda: pretrain(model, loader)):
        with pytest.raises(ValueError, match="nothing to train"):
            train()


def test_a_text_is_classified_as_in_its_batch(course: Course) -> None:
    model = course.model().double().eval()
    with torch.no_grad():
        model.head.weight.mul_(50)  # so that the two classes are told apart
    text = "Free entry! Call now to claim"
    row = SpamDataset([text, "short"], [1, 0], course.bpe, course.train.max_length)
    expected = model(row.ids, row.lengths)[0].softmax(-1)
    found = classify_text(text, model, course.bpe, course.train.max_length)
    assert found.confidence == pytest.approx(expected.max().item(), rel=FLOAT64_ROUNDING)
    assert found.label == ("ham", "spam")[int(expected.argmax())]
    named = classify_text(text, model, course.bpe, course.train.max_length, labels=("普通", "垃圾"))
    assert named.label == ("普通", "垃圾")[int(expected.argmax())]
    empty = classify_text("", model, course.bpe, course.train.max_length)
    assert 0.5 <= empty.confidence <= 1
