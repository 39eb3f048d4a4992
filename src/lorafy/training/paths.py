"""The two ways to compute a step's loss: the model's own forward, and the fast path that is held against it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
import transformers
from packaging.version import Version
from torch.nn.parallel import DistributedDataParallel

from ..contracts import Task
from ..data.batches import micro_batches
from ..engine.fast_path import GPU_MAX_TOKENS, build_fast_path, build_fused_layers
from ..engine.weights import Unsupported
from ..kernels import gpu
from ..kernels.gpu import first_line
from ..kernels.nouns import Linear
from ..kernels.peft_layer import FusedLinear
from ..models.precision import Precision
from ..objectives import TEXTS
from ..types import Batch, Features, LossOutput

MAX_MICRO_BATCH_TOKENS = {"cpu": 4_096, "mps": 4_096, "cuda": GPU_MAX_TOKENS}
"""Most padded tokens of one micro-batch: about 2.5 GB of activations for a BERT-base on a CPU; more is not faster
there."""

CHECKPOINTING_RENAMED = Version("5.23.0")
"""The transformers from which on gradient checkpointing is called activation checkpointing; the old name goes in 6."""

CHECK_EXAMPLES = 8

LARGEST_DIFFERENCE = {torch.float32: 1e-4, torch.bfloat16: 0.05}
"""Largest distance of both paths' gradients, all together, relative to the plain ones' length: the rounding of float32
through some dozen layers, and of bfloat16 (8 bits)."""


class StepPath(Protocol):
    """How a step's examples become micro-batches, and a micro-batch its loss."""

    def batches(self, features: Sequence[Features], numbers: Sequence[int], seed: int | None) -> list[Batch]:
        """A step's examples in micro-batches. numbers: the examples' own. seed: of the fast path's dropout, or None."""
        ...

    def loss(self, batch: Batch) -> LossOutput:
        """Loss and score of a micro-batch, SUMMED over its targets."""
        ...

    def checkpointed(self) -> StepPath:
        """The path with activation checkpointing. Raises Unsupported."""
        ...


@dataclass(frozen=True)
class PlainPath:
    """The model's own forward on padded micro-batches of near-equal length. Dropout draws from torch's generator."""

    model: Any
    task: Task
    precision: Precision
    max_examples: int | None

    def batches(self, features: Sequence[Features], numbers: Sequence[int], seed: int | None) -> list[Batch]:
        """See `StepPath`. Cut by `micro_batches`."""
        of_number = dict(zip(numbers, features, strict=True))
        cuts = micro_batches(
            numbers,
            {number: self.task.padded_length(len(feature)) for number, feature in of_number.items()},
            max_tokens=most_tokens(self.task, self.precision.device),
            max_examples=self.max_examples,
        )
        return [self.task.collate([of_number[number] for number in cut]) for cut in cuts]

    def loss(self, batch: Batch) -> LossOutput:
        """See `StepPath`."""
        with self.precision.autocast():
            return self.task.objective.loss(self.model, batch)

    def checkpointed(self) -> PlainPath:
        """See `StepPath`. Changes the model."""
        bare = self.model.module if isinstance(self.model, DistributedDataParallel) else self.model
        if not bare.supports_gradient_checkpointing:
            raise Unsupported(f"{type(bare).__name__} has no activation checkpointing")
        if Version(transformers.__version__) >= CHECKPOINTING_RENAMED:
            bare.activation_checkpointing_enable({"use_reentrant": False})
        else:
            bare.gradient_checkpointing_enable({"use_reentrant": False})
        return self


@dataclass(frozen=True)
class FusedLayersPath:
    """The plain path, with each adapted layer computed at once: for models that the fast path does not read."""

    plain: PlainPath
    layers: Sequence[tuple[FusedLinear, Linear]]

    def batches(self, features: Sequence[Features], numbers: Sequence[int], seed: int | None) -> list[Batch]:
        """See `StepPath`."""
        return self.plain.batches(features, numbers, seed)

    def loss(self, batch: Batch) -> LossOutput:
        """See `StepPath`."""
        for layer, linear in self.layers:
            layer.fused = linear
        try:
            return self.plain.loss(batch)
        finally:  # evaluation and verification compute as peft does
            for layer, _ in self.layers:
                layer.fused = None

    def checkpointed(self) -> FusedLayersPath:
        """See `StepPath`. Changes the model."""
        return replace(self, plain=self.plain.checkpointed())


def most_tokens(task: Task, device: torch.device) -> int:
    """The most padded tokens of one micro-batch, on this device and for this task."""
    return min(MAX_MICRO_BATCH_TOKENS[device.type], task.max_tokens or MAX_MICRO_BATCH_TOKENS[device.type])


@dataclass(frozen=True)
class Choice:
    """Which path a run takes, and a sentence for its reader."""

    path: StepPath
    is_fast: bool
    message: str


def choose_path(
    plain: PlainPath,
    model: Any,
    *,
    fast_wanted: bool,
    num_processes: int,
    features: Sequence[Features],
    keeps_features: bool = True,
    resumed: bool = False,
) -> Choice:
    """The fast path where it can be built and agrees with the plain one on these examples; on a GPU, where which is
    faster depends on the chip and on what is installed, only if it also takes less time for them.

    features: the first step's. keeps_features: see `build_fast_path`. resumed: the run took the fast path so far,
    however long it takes. No weight and no random state is changed.
    """
    if not fast_wanted:
        return Choice(plain, False, "plain path (train.kernels=reference)")
    if num_processes > 1:
        return Choice(plain, False, "plain path; the fast one is not written for several processes yet")
    dtype, device = plain.precision.dtype, plain.precision.device
    fast: StepPath
    try:
        fast = build_fast_path(
            model,
            plain.task.objective,
            dtype,
            device,
            plain.max_examples,
            patches=plain.task.patches,
            keeps_features=keeps_features,
        )
        name = "fast path"
    except Unsupported as reason:
        try:
            fast = FusedLayersPath(plain, build_fused_layers(model, dtype, device))
            name = f"plain path with fused LoRA layers ({reason})"
        except Unsupported:
            return Choice(plain, False, f"plain path; not the fast one: {reason}")
    try:
        check = compare(plain, fast, model, check_examples(features, plain.task))
    except RuntimeError as error:  # torch's own, of a kernel or of memory
        return Choice(plain, False, f"plain path; the fast one fails on the first examples: {first_line(error)}")
    figures = f"loss {check.plain_loss:.6f} and {check.fast_loss:.6f}, gradients {check.difference:.1e} apart"
    if check.one_sided:
        figures += f", and {check.one_sided[0]} gets one on one path only"
    if not check.difference < LARGEST_DIFFERENCE[dtype]:
        return Choice(plain, False, f"plain path; the fast one differs on the first examples: {figures}")
    if device.type == "cuda":
        not_fused = gpu.why_not_fused(device)
        name += f", its passes not fused ({not_fused})" if not_fused else ""
        if not resumed:
            plain_seconds, fast_seconds = (seconds_of_a_step(path, model, features) for path in (plain, fast))
            times = f"{1000 * plain_seconds:.1f} and {1000 * fast_seconds:.1f} ms for the first step's gradients"
            if fast_seconds >= plain_seconds:
                return Choice(plain, False, f"plain path; the fast one is not faster here: {times}")
            figures += f", {times}"
    return Choice(fast, True, f"{name}, held against the plain path on the first examples: {figures}")


def check_examples(features: Sequence[Features], task: Task) -> list[Features]:
    """The examples to compare the paths on: the first ones; of texts, those that are labelled as the first one is.

    A new head tells no texts apart yet: two classes pull its gradient to opposite sides, and rounding is what is left.
    """
    if task.objective.reads == TEXTS:
        features = [one for one in features if one.labels == features[0].labels]
    return list(features[:CHECK_EXAMPLES])


@dataclass(frozen=True)
class Check:
    """Mean losses per target, and the distance of the two gradients in units of the plain one's length.

    one_sided: trained tensors that get a gradient on one path only.
    """

    plain_loss: float
    fast_loss: float
    difference: float
    one_sided: Sequence[str]


def compare(plain: StepPath, fast: StepPath, model: Any, features: Sequence[Features]) -> Check:
    """Holds both paths against each other on the same examples without dropout. B is drawn at random for it: at its
    start of zero A has no gradient."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    num_targets = sum(feature.num_targets for feature in features)
    with _restored(model, training=False), _random_B(trained):
        plain_loss, expected = _gradients(plain, trained, features, num_targets)
        fast_loss, found = _gradients(fast, trained, features, num_targets)
    one_sided = sorted(found.keys() ^ expected.keys())
    if one_sided:
        return Check(plain_loss, fast_loss, float("inf"), one_sided)
    apart, length = (
        torch.cat([tensor.flatten() for tensor in tensors]).norm()
        for tensors in ([found[name] - expected[name] for name in expected], expected.values())
    )
    return Check(plain_loss, fast_loss, (apart / length).item(), one_sided)


def seconds_of_a_step(path: StepPath, model: Any, features: Sequence[Features]) -> float:
    """Seconds of forward and backward with dropout, on the GPU: the median of three after two, which compile."""
    trained = [p for p in model.parameters() if p.requires_grad]
    device = trained[0].device
    seconds = []
    with _restored(model, training=True), torch.random.fork_rng([device]):
        for _ in range(5):
            for p in trained:
                p.grad = None
            torch.cuda.synchronize(device)
            began = time.perf_counter()
            for batch in path.batches(features, range(len(features)), 0):
                path.loss(batch.to(device)).loss_sum.backward()
            torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[2:])


@contextmanager
def _restored(model: Any, *, training: bool) -> Iterator[None]:
    """The model in this mode for a while; behind it its mode and gradients are what they were."""
    kept = [(p, p.grad) for p in model.parameters() if p.requires_grad]
    was_training = model.training
    model.train(training)
    try:
        yield
    finally:
        for p, grad in kept:
            p.grad = grad
        model.train(was_training)


def _gradients(
    path: StepPath, trained: Mapping[str, torch.nn.Parameter], features: Sequence[Features], num_targets: int
) -> tuple[float, dict[str, torch.Tensor]]:
    """The mean loss, and the gradient of each tensor that gets one."""
    for p in trained.values():
        p.grad = None
    mean_loss = 0.0
    device = next(iter(trained.values())).device
    for batch in path.batches(features, range(len(features)), None):
        loss = path.loss(batch.to(device)).loss_sum / num_targets
        loss.backward()
        mean_loss += loss.item()
    return mean_loss, {name: p.grad for name, p in trained.items() if p.grad is not None}


@contextmanager
def _random_B(trained: dict[str, torch.nn.Parameter]) -> Iterator[None]:
    generator = torch.Generator().manual_seed(0)
    kept = {name: p.detach().clone() for name, p in trained.items() if ".lora_B." in name}
    try:
        for name, before in kept.items():
            trained[name].data.copy_(torch.randn(before.shape, generator=generator) / before.shape[0] ** 0.5 / 10)
        yield
    finally:
        for name, before in kept.items():
            trained[name].data.copy_(before)
