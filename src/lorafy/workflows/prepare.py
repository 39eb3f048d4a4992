"""A recipe becomes data, a task and features, and pre-flight looks at all three."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from .. import preflight
from ..adapter_contract import AdapterMethod
from ..config.schema import RunConfig
from ..contracts import Task
from ..data.batches import StepPlan
from ..data.corpus import Corpus
from ..machine.garbage import none_collected
from ..models.load import Source, open_source
from ..objectives import TOKENS
from ..plugins import load_method, plugin_names
from ..tasks import load_kind, read_corpus
from ..types import Encoded, Features, Finding, ModelError, Problem, UserError


@dataclass(frozen=True)
class Prepared:
    """What stands before the first step: examples, what became of them, and what pre-flight found."""

    config: RunConfig
    corpus: Corpus
    task: Task
    encoded: Mapping[str, Encoded]
    findings: list[Finding]

    @property
    def features(self) -> Mapping[str, list[Features]]:
        """The features of each split."""
        return {name: encoded.features for name, encoded in self.encoded.items()}

    @cached_property
    def plan(self) -> StepPlan:
        """Which examples make which step."""
        return StepPlan(len(self.features["train"]), self.config.train.batch_size, self.config.run.seed)

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.plan.num_steps(self.config.train.num_epochs, self.config.train.max_steps)

    @property
    def learning_rate(self) -> float:
        """The peak learning rate: the recipe's, else the method's own."""
        return self.config.train.learning_rate or load_method(self.config.adapter.method).learning_rate

    def report(self, more: Sequence[Finding] = ()) -> dict[str, Any]:
        """The content of preflight.json. `more`: what was found when the model was built."""
        return self._counts | {"findings": [asdict(finding) for finding in [*self.findings, *more]]}

    @cached_property
    def _counts(self) -> dict[str, Any]:
        tokens = {}
        for name, encoded in self.encoded.items():
            lengths = sorted(len(feature) for feature in encoded.features)
            tokens[name] = {
                "total": sum(lengths),
                "mean": round(sum(lengths) / len(lengths), 1),
                "median": lengths[len(lengths) // 2],
                "longest": lengths[-1],
                "truncated": sum(feature.truncated for feature in encoded.features),
            }
            if self.task.objective.reads == TOKENS:
                tokens[name]["targets"] = sum(feature.num_targets for feature in encoded.features)
                tokens[name]["skipped"] = len(encoded.skipped)
        return {
            "task": self.task.name,
            "splits": self.corpus.summary(),
            "format": self.corpus.format,
            "labels": self.corpus.label_names,
            "tokens": tokens,
            "max_length": self.task.max_length,
        }


def refuse_packed(method: AdapterMethod) -> list[Problem]:
    """Why it cannot train on a base whose linear layers are quantised."""
    if method.takes_packed:
        return []
    others = [name for name in plugin_names("adapters") if load_method(name).takes_packed]
    message = f"{method.title} changes the base's own weights, and quantised ones cannot be changed"
    return [Problem("adapter.method", message, f"take another base, or one of {', '.join(others)}")]


def prepare(config: RunConfig) -> Prepared:
    """Data, tokenizer, features and pre-flight. Raises every mistake found in data and model path together."""
    with none_collected():
        return _prepare(config)


def _prepare(config: RunConfig) -> Prepared:
    problems: list[Problem] = []
    if config.model.quantise is not None:
        problems += refuse_packed(load_method(config.adapter.method))
    source: Source | None = None
    corpus = task = None
    findings: list[Finding] = []
    try:
        source = open_source(config.model)
    except ModelError as error:
        problems += error.problems
    try:
        corpus = read_corpus(config, source)
        kind = load_kind(corpus.task)
        findings = [*corpus.notes, *preflight.check_corpus(corpus, kind.check_examples(corpus))]
    except UserError as error:
        problems += error.problems
    try:
        if source is not None and corpus is not None:
            task = load_kind(corpus.task).make(config, corpus, source)
        elif source is not None:
            source.longest(config.data.max_length, 1)  # refuses what is over the model's limit
    except ModelError as error:
        problems += error.problems
    if problems:
        raise UserError(problems)
    assert corpus is not None and task is not None
    encoded = {name: task.encode(examples) for name, examples in corpus.splits.items()}
    own = task.check_data(corpus, encoded)
    findings += preflight.check_encoded(encoded, task.max_length, corpus, config.data, own)
    return Prepared(config, corpus, task, encoded, findings)
