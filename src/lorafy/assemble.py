"""Puts the parts together: a recipe becomes data, task and the model to train.

Each part knows nothing of the others; api.py and the verbs build on what is assembled here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from . import preflight
from .adapters.attach import ParameterCount, attach, count_parameters
from .adapters.targets import TargetGroup, find_targets, group_targets
from .config.schema import ModelSection, RunConfig
from .data.corpus import Corpus, load_corpus
from .garbage import none_collected
from .models import embedded
from .models.load import (
    BaseModel,
    context_length,
    is_generative,
    load_classifier,
    load_language_model,
    load_tokenizer,
    longest_text,
    twins,
)
from .prompt import make_renderer
from .tasks.causal_lm import CausalLM
from .tasks.classification import Classification
from .types import (
    Encoded,
    Features,
    Finding,
    ModelError,
    Problem,
    UserError,
)

AnyTask = Classification | CausalLM


@dataclass(frozen=True)
class Prepared:
    """What stands before the first step: examples, what became of them, and what pre-flight found."""

    corpus: Corpus
    task: AnyTask
    encoded: Mapping[str, Encoded]
    findings: list[Finding]

    @property
    def features(self) -> Mapping[str, list[Features]]:
        return {name: encoded.features for name, encoded in self.encoded.items()}

    def report(self, more: Sequence[Finding] = ()) -> dict[str, Any]:
        """preflight.json. `more`: what was found when the model was built."""
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
            if self.task.name == "causal_lm":
                tokens[name]["targets"] = sum(feature.num_targets for feature in encoded.features)
                tokens[name]["skipped"] = len(encoded.skipped)
        return {
            "splits": self.corpus.summary(),
            "format": self.corpus.format,
            "labels": self.corpus.label_names,
            "tokens": tokens,
            "max_length": self.task.max_length,
        }


def prepare(config: RunConfig) -> Prepared:
    """Data, tokenizer, features and pre-flight. Raises every mistake found in data and model path together."""
    with none_collected():
        return _prepare(config)


def _prepare(config: RunConfig) -> Prepared:
    problems: list[Problem] = []
    corpus = findings = tokenizer = None
    generative = True
    try:
        generative = is_generative(config.model)
        tokenizer = load_tokenizer(config.model)
    except ModelError as error:
        problems += error.problems
    try:
        corpus = load_corpus(config, generative)
        findings = [*corpus.notes, *preflight.check_corpus(corpus)]
    except UserError as error:
        problems += error.problems
    if corpus is not None and corpus.task == "causal_lm" and not generative and tokenizer is not None:
        message = f"{config.model.path} was not made to write text, but the data are questions and answers"
        problems.append(Problem("model.path", message, "take a language model, or name data.columns.label"))
    task: AnyTask | None = None
    try:
        if tokenizer is not None and corpus is not None:
            task = _make_task(config, corpus, tokenizer)
        elif tokenizer is not None:
            longest_text(config.model, tokenizer, config.data.max_length)
    except ModelError as error:
        problems += error.problems
    if problems:
        raise UserError(problems)
    assert corpus is not None and findings is not None and task is not None
    if isinstance(task, CausalLM):
        findings += _check_turns(corpus, task.renderer.end)
    encoded = {name: task.encode(examples) for name, examples in corpus.splits.items()}
    findings += preflight.check_encoded(encoded, task.max_length, config.data)
    return Prepared(corpus, task, encoded, findings)


def _check_turns(corpus: Corpus, end: str) -> list[Finding]:
    """A tokenizer reads the end token's text as the end itself, wherever it stands."""
    findings = []
    for name, examples in corpus.splits.items():
        rows = [example.row for example in examples if any(end in message.content for message in example.messages)]
        if rows:
            message = f"{len(rows):,} {name} rows hold the text {end}, which ends an answer (row {rows[0]}, ...)"
            findings.append(Finding("end", "warning", message, "take it out of these texts: it is read as the end"))
    return findings


def _make_task(config: RunConfig, corpus: Corpus, tokenizer: Any) -> AnyTask:
    max_length = longest_text(config.model, tokenizer, config.data.max_length, corpus.task)
    if corpus.task == "classification":
        return Classification(tokenizer, corpus.label_names, max_length)
    renderer = make_renderer(tokenizer, system=config.data.system, thinking=config.data.thinking)
    context = context_length(config.model, tokenizer)
    return CausalLM(renderer, max_length, context, len(tokenizer), config.data.train_on_prompt)


@dataclass(frozen=True)
class BuiltModel:
    """The model to train, in float32 on the CPU, the base that it was made of, and the layers that got LoRA.

    `num_base`: parameters before anything was added, a new head included.
    """

    model: Any
    base: BaseModel
    targets: list[TargetGroup]
    parameters: ParameterCount
    num_base: int
    findings: list[Finding]


def build_model(config: RunConfig, task: AnyTask) -> BuiltModel:
    base = load_base(config.model, task, config.run.seed)
    num_base = count_parameters(base.model).total
    findings = _check_end(base.model, task) if config.adapter.method == "lora" else []
    targets = []
    if config.adapter.method == "lora":
        names = find_targets(base.model, config.adapter.target_modules, base.head)
        targets = group_targets(base.model, names)
    model = attach(base.model, config.adapter, base.head, embedded.public_name(config.model.path), config.run.seed)
    return BuiltModel(model, base, targets, count_parameters(model), num_base, findings)


def _check_end(model: Any, task: AnyTask) -> list[Finding]:
    """LoRA leaves the output layer as it is: what that cannot say, the model cannot learn to say."""
    if not isinstance(task, CausalLM):
        return []
    count = twins(model, task.renderer.end_id)
    if not count:
        return []
    message = (
        f"pretraining never showed {task.renderer.end}, which ends an answer: {count:,} other tokens have the same "
        "output weights, so LoRA can hardly teach this model to stop"
    )
    return [Finding("end", "warning", message, "use adapter.method=full, or a base whose end token was trained")]


def load_base(section: ModelSection, task: AnyTask, seed: int) -> BaseModel:
    """The model that the task asks for, a classifier's head new."""
    if isinstance(task, CausalLM):
        return load_language_model(section, task.vocab_size)
    return load_classifier(section, task.label_names, task.tokenizer.pad_token_id, seed)
