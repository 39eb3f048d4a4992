"""Loss, accuracy, the training loop with its measurements, pretraining, and the use of what was trained."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from .gpt import SimpleGPTForClassification
from .spam import LABELS, Batch, Tokenizer, padded


@contextmanager
def evaluating(model: nn.Module, loader: DataLoader[Batch] | None = None) -> Iterator[None]:
    """No dropout and no gradients inside. Afterwards all is as before: the mode, torch's random state, the loader's.

    So how often one looks changes nothing in the training that one looks at.
    """
    was_training = model.training
    generator = None if loader is None else loader.generator
    state = None if generator is None else generator.get_state()
    model.eval()
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            yield
    finally:
        model.train(was_training)
        if generator is not None and state is not None:
            generator.set_state(state)


def calc_loss_batch(batch: Batch, model: nn.Module) -> torch.Tensor:
    """Mean cross-entropy of the batch, a number with its gradient. model: (ids, lengths) -> logits."""
    return functional.cross_entropy(model(batch.ids, batch.lengths), batch.labels)


def predict(
    loader: DataLoader[Batch], model: nn.Module, num_batches: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (N, num_classes) and labels (N,) of all batches, or of the first few."""
    logits, labels = [], []
    with evaluating(model, loader):
        for batch in islice(loader, num_batches):
            logits.append(model(batch.ids, batch.lengths))
            labels.append(batch.labels)
    return torch.cat(logits), torch.cat(labels)


def calc_loss_loader(loader: DataLoader[Batch], model: nn.Module, num_batches: int | None = None) -> float:
    """Mean over the texts, not over the batches: the last one may be smaller."""
    return functional.cross_entropy(*predict(loader, model, num_batches)).item()


def calc_accuracy(loader: DataLoader[Batch], model: nn.Module, num_batches: int | None = None) -> float:
    """The share of texts whose class has the greatest logit."""
    return _accuracy(*predict(loader, model, num_batches))


def _accuracy(logits: torch.Tensor, labels: torch.Tensor) -> float:
    return (logits.argmax(-1) == labels).double().mean().item()


@dataclass
class History:
    """What was measured during a training: all lists have one entry for each measurement, the first before step 1."""

    steps: list[int] = field(default_factory=list)
    train_losses: list[float] = field(default_factory=list)
    validation_losses: list[float] = field(default_factory=list)
    train_accuracies: list[float] = field(default_factory=list)
    validation_accuracies: list[float] = field(default_factory=list)
    seconds: float = 0.0
    """Of the training, measurements included."""


def train_lora_model(
    model: nn.Module,
    train_loader: DataLoader[Batch],
    validation_loader: DataLoader[Batch],
    epochs: int = 3,
    learning_rate: float = 3e-4,
    eval_every: int = 50,
    *,
    eval_batches: int | None = None,
    weight_decay: float = 0.01,
    seed: int = 123,
    verbose: bool = False,
) -> History:
    """AdamW on whatever is not frozen. Measures before the first step, after every `eval_every` and after the last.

    eval_batches: measure on so many batches of each loader; None: on all. seed: of the dropout (torch.manual_seed).
    verbose: print a line at each measurement.
    """
    optimizer = _optimizer(model, learning_rate, weight_decay)
    torch.manual_seed(seed)
    history, start, step = History(), time.perf_counter(), 0

    def measure() -> None:
        history.steps.append(step)
        for loader, losses, accuracies in (
            (train_loader, history.train_losses, history.train_accuracies),
            (validation_loader, history.validation_losses, history.validation_accuracies),
        ):
            logits, labels = predict(loader, model, eval_batches)
            losses.append(functional.cross_entropy(logits, labels).item())
            accuracies.append(_accuracy(logits, labels))
        if verbose:
            print(
                f"step {step:4d}   loss {history.train_losses[-1]:.3f} train, {history.validation_losses[-1]:.3f} "
                f"validation   accuracy {history.train_accuracies[-1]:.1%} train, "
                f"{history.validation_accuracies[-1]:.1%} validation"
            )

    measure()
    for _ in range(epochs):
        model.train()
        for batch in train_loader:
            optimizer.zero_grad()
            loss = calc_loss_batch(batch, model)
            loss.backward()
            optimizer.step()
            step += 1
            if step % eval_every == 0:
                measure()
    if history.steps[-1] != step:
        measure()
    model.eval()
    history.seconds = time.perf_counter() - start
    return history


def _optimizer(model: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise ValueError("every parameter is frozen, so there is nothing to train")
    return torch.optim.AdamW(trained, lr=learning_rate, weight_decay=weight_decay)


@dataclass
class PretrainHistory:
    """The mean loss of a next token at each step, in nats, on the batch of that step."""

    losses: list[float] = field(default_factory=list)
    num_tokens: int = 0
    """Tokens that were targets, over all steps."""
    seconds: float = 0.0


def next_token_loss(batch: Batch, model: SimpleGPTForClassification) -> tuple[torch.Tensor, int]:
    """Mean cross-entropy of every real token after the first, given those before it; and how many these are."""
    ids = batch.ids[:, : int(batch.lengths.max())]  # (B, T)
    logits = model.next_token_logits(ids[:, :-1])  # (B, T - 1, vocab_size)
    targets = ids[:, 1:]  # (B, T - 1): what stands one place further
    is_real = torch.arange(1, ids.shape[1], device=ids.device) < batch.lengths[:, None]  # (B, T - 1)
    return functional.cross_entropy(logits[is_real], targets[is_real]), int(is_real.sum())


def pretrain(
    model: SimpleGPTForClassification,
    loader: DataLoader[Batch],
    epochs: int = 1,
    learning_rate: float = 1e-3,
    *,
    weight_decay: float = 0.01,
    max_steps: int | None = None,
    seed: int = 123,
) -> PretrainHistory:
    """Next-token prediction on the texts alone: labels are not used, and the classification head is not touched.

    Before LoRA is put on: it is the base that shall learn here. max_steps: stop there; None: after `epochs`.
    """
    optimizer = _optimizer(model, learning_rate, weight_decay)
    torch.manual_seed(seed)
    history, start = PretrainHistory(), time.perf_counter()
    model.train()
    batches = (batch for _ in range(epochs) for batch in loader)
    for batch in islice(batches, max_steps):
        optimizer.zero_grad()
        loss, num_tokens = next_token_loss(batch, model)
        loss.backward()
        optimizer.step()
        history.losses.append(loss.item())
        history.num_tokens += num_tokens
    model.eval()
    history.seconds = time.perf_counter() - start
    return history


class Classification(NamedTuple):
    """A class by name, and the probability that the model gives it: what it believes, not how often it is right."""

    label: str
    confidence: float


def classify_text(
    text: str, model: nn.Module, tokenizer: Tokenizer, max_length: int, labels: Sequence[str] = LABELS
) -> Classification:
    """One text, encoded and padded exactly as in training."""
    ids, length = padded(tokenizer.encode(text), max_length, tokenizer.pad_id)
    with evaluating(model):
        probabilities = model(torch.tensor([ids]), torch.tensor([length]))[0].softmax(-1)  # (num_classes,)
    best = int(probabilities.argmax())
    return Classification(labels[best], probabilities[best].item())
