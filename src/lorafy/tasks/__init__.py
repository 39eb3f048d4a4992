"""Seam: what a model learns from examples, put together from the rooms below. One file a task, whose name nothing else
knows.

What every task on texts with a head shares stands here; a task's file says what is learned of a text.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ..config.schema import GenerationSection, ModelSection, RunConfig
from ..contracts import TaskKind
from ..data.corpus import Corpus, load_corpus
from ..encoding.texts import TextEncoder
from ..inference.trained import Trained
from ..models.load import BaseModel, Source, load_with_head
from ..models.shelf import Shelf
from ..plugins import load_method, load_plugin, plugin_names
from ..types import Batch, DataError, Encoded, Example, Features, Finding, ModelError, Problem


def load_kind(name: str) -> TaskKind:
    """The task of this name. Raises ConfigError with the names that exist."""
    return load_plugin("tasks", name).KIND


def kinds() -> dict[str, TaskKind]:
    """Every task by name."""
    return {name: load_kind(name) for name in plugin_names("tasks")}


def kind_of_model(source: Source) -> TaskKind:
    """Which task a model as it comes is for."""
    of_all = kinds().values()
    claimed = (kind for kind in of_all if kind.claims(source))
    return next(claimed, None) or next(kind for kind in of_all if kind.has_head and kind.records.is_default)


def kind_of_adapter(peft_type: str | None, source: Source, names: Collection[str]) -> TaskKind:
    """Which task another tool's adapter is for, by what its file says and by its base; without a word, a classifier,
    unless its base writes and it carries no head. names: of its tensors."""
    usual = [kind for kind in kinds().values() if kind.records.is_default]
    named = [kind for kind in kinds().values() if kind.peft_type == peft_type]
    if peft_type is None and not any(_is_of_head(name) for name in names):
        named = [kind for kind in kinds().values() if not kind.has_head]
    claimed = (kind for kind in named if kind.claims(source))
    found = next(claimed, None) or next((kind for kind in named if kind in usual and peft_type is not None), None)
    return found or next(kind for kind in usual if kind.has_head)


def read_corpus(config: RunConfig, source: Source | None = None) -> Corpus:
    """The recipe's data for the task that it names, or that the data and the model ask for. source: the model; where it
    is not known, one that writes is meant. Raises DataError and ConfigError."""
    every = {name: kind.records for name, kind in kinds().items()}
    claimed = {name for name, kind in kinds().items() if source is not None and kind.claims(source)}
    generative = source is None or any("write" in load_kind(name).abilities for name in claimed)

    def choose(form: str, examples: Sequence[Any]) -> tuple[str, str | None]:
        if config.task != "auto":
            return config.task, None
        fitting = {name: records for name, records in every.items() if form in records.formats}
        for name, records in fitting.items():
            reason = records.suits(examples, config)
            if reason is not None:
                return name, reason
        made_for = (name for name, records in fitting.items() if records.needs_writer and name in claimed)
        return next(made_for, None) or next(name for name, records in fitting.items() if records.is_default), None

    return load_corpus(config, generative, every, choose, lambda task: _untrainable(config, task))


def _untrainable(config: RunConfig, task: str) -> list[Problem]:
    """Problems of a method that would train nothing."""
    method, kind = config.adapter.method, load_kind(task)
    if kind.has_head or not load_method(method).needs_head:
        return []
    message = f"{method} trains a classification head: {kind.noun} has none"
    return [Problem("adapter.method", message, "use lora or full; the untrained model is measured beside them")]


@dataclass(frozen=True)
class HeadTask:
    """A task whose model reads a whole text and says something of it by a head. See `Task`.

    A subclass adds `name`, `kind`, `objective`, `labels_of`, `head_config`, `measure`, `rank`, `judge`, `ready`.
    """

    tokenizer: Any
    label_names: Sequence[str]
    max_length: int

    max_tokens = None
    patches = None
    probe_size = 16

    @property
    def encoder(self) -> TextEncoder:
        """How texts become features."""
        return TextEncoder(self.tokenizer, self.max_length)

    def labels_of(self, example: Example) -> list[int] | list[float]:
        """What is learned of an example, as `Features.labels` holds it."""
        raise NotImplementedError

    def head_config(self) -> Mapping[str, Any]:
        """Settings of the head in the model's config."""
        raise NotImplementedError

    def encode(self, examples: Sequence[Example]) -> Encoded:
        """One Features an example, in their order; none is skipped."""
        return self.encoder.encode(examples, self.labels_of)

    def collate(self, features: Sequence[Features]) -> Batch:
        """See `TextEncoder.collate`."""
        return self.encoder.collate(features)

    def padded_length(self, num_tokens: int) -> int:
        """See `TextEncoder.padded_length`."""
        return self.encoder.padded_length(num_tokens)

    def probe(self, features: Sequence[Features]) -> dict[str, Any]:
        """The first texts as a model's inputs."""
        return self.collate(features[: self.probe_size]).inputs

    def probe_outputs(self, model: Any, inputs: Mapping[str, Any]) -> Any:
        """The head's outputs (B, C), fp32, on the CPU."""
        return model(**inputs).logits.float().cpu()

    def write_reader(self, folder: Path) -> None:
        """Writes the tokenizer."""
        self.tokenizer.save_pretrained(folder)

    def settings(self) -> dict[str, Any]:
        """Fields of the manifest: the names of the classes."""
        return {"labels": list(self.label_names)}

    def load_base(self, section: ModelSection, seed: int, shelf: Shelf | None = None) -> BaseModel:
        """The base with a head as this task wants it, new where it has none such."""
        return load_with_head(section, self.head_config(), self.tokenizer.pad_token_id, seed, shelf)

    def check_data(self, corpus: Corpus, encoded: Mapping[str, Encoded]) -> list[Finding]:
        """No findings beside those of preflight/."""
        return []

    def unlearned_tokens(self, model: Any, features: Sequence[Features]) -> list[int]:
        """None: it writes nothing."""
        return []

    def check_model(self, model: Any) -> list[Finding]:
        """No findings."""
        return []

    def finish(self, model: Any, validation: Sequence[Features] | None, precision: Any) -> Self:
        """The task as it is, and the model with it."""
        return self

    def score(self, trained: Trained, examples: Sequence[Example], settings: GenerationSection) -> dict[str, Any]:
        """What `judge` says of a split, with its size and the seconds that reading it took."""
        trained.merge()
        trained.place()
        started = time.perf_counter()
        features = self.encode(examples).features
        outputs = self.encoder.outputs(trained.model, features, trained.precision)
        seconds = time.perf_counter() - started
        return {
            "num_examples": len(examples),
            "num_truncated": sum(feature.truncated for feature in features),
            **self.judge(outputs, features, examples),
            "seconds": round(seconds, 3),
            "examples_per_second": round(len(examples) / seconds, 1),
        }

    def judge(self, outputs: Any, features: Sequence[Features], examples: Sequence[Example]) -> dict[str, Any]:
        """eval_results.json's `metrics` and what the view shows. outputs: of the head (N, C), fp32, on the CPU."""
        raise NotImplementedError

    def refuse_unknown(self, corpus: Corpus, split: str) -> None:
        """Raises DataError for classes that the model does not know."""
        unknown = sorted({name for example in corpus.splits[split] for name in example.classes} - set(self.label_names))
        if unknown:
            message = f"labels that this model does not know: {', '.join(unknown[:5])}"
            raise DataError(Problem(f"data.{split}", message, f"it knows {', '.join(self.label_names)}"))


class HeadKind:
    """How a HeadTask comes to be. See `TaskKind`. A subclass adds `noun`, `task`, `records`, `view` and `claims`."""

    peft_type = "SEQ_CLS"
    abilities: Sequence[str] = ("predict",)
    has_head = True
    default_length = 512
    task: type[HeadTask]

    def make(self, config: RunConfig, corpus: Corpus, source: Source) -> Any:
        """The task of a recipe."""
        max_length = source.longest(config.data.max_length, self.default_length)
        return self.task(source.tokenizer, corpus.label_names, max_length)

    def restore(self, manifest: Any, source: Source) -> Any:
        """The task of what was trained."""
        return self.task(source.tokenizer, manifest.labels, manifest.max_length)

    def of_model(self, source: Source) -> Any:
        """The task of a model as it comes, with the head that it has."""
        return self.task(source.tokenizer, labels_of_config(source), source.longest(None, self.default_length))

    def of_adapter(self, folder: Path, source: Source) -> Any:
        """The task of another tool's adapter: it has as many classes as the adapter's head has outputs."""
        labels = labels_of_config(source)
        found = outputs_of_head(folder)
        names = labels if len(labels) == found else [str(index) for index in range(found)]
        return self.task(source.tokenizer, names, source.longest(None, self.default_length))

    def check_examples(self, corpus: Corpus) -> list[Finding]:
        """No findings beside those of preflight/."""
        return []

    def probe_examples(self) -> list[Example]:
        """Some short texts without labels."""
        return [Example(text, None, "probe", row) for row, text in enumerate(PROBE_TEXTS)]


PROBE_TEXTS = ("to be or not to be", "that is the question", "?")
HEAD_NAMES = ("classifier", "score", "out_proj")
"""Names that transformers' models give to the last layer of a head."""


def labels_of_config(source: Source) -> list[str]:
    """The names that a model's config gives to the outputs of its head."""
    names = source.config.id2label
    return [str(names[index]) for index in sorted(names)]


def outputs_of_head(folder: Path) -> int:
    """How many outputs the trained head of another tool's adapter has. Raises ModelError where it has none."""
    from safetensors.torch import safe_open

    from ..plugins import foreign_method

    method = foreign_method(folder)
    assert method is not None, "only a folder with an adapter is asked for its head"
    with safe_open(folder / method.weights, framework="pt") as file:
        outputs = [file.get_slice(name).get_shape()[0] for name in file.keys() if _is_of_head(name)]  # noqa: SIM118
    if not outputs:
        message = "this adapter carries no classification head"
        raise ModelError(Problem(str(folder), message, "it was trained for another task, or its head was not saved"))
    return outputs[0]


def _is_of_head(name: str) -> bool:
    """Whether a tensor of an adapter is the weight of a head's last layer."""
    return "lora_" not in name and name.endswith(".weight") and name.split(".")[-2] in HEAD_NAMES
