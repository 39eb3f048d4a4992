"""Puts the parts together: a recipe becomes data, task and model; a folder becomes the model that was trained.

Each part knows nothing of the others; api.py and the verbs build on what is assembled here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from . import preflight
from .adapters import files
from .adapters.attach import ParameterCount, attach, count_parameters
from .adapters.targets import TargetGroup, find_targets, group_targets
from .config.schema import ModelSection, RunConfig
from .data.corpus import Corpus, load_corpus
from .models import embedded
from .models.load import BaseModel, load_classifier, load_tokenizer, longest_text
from .models.precision import Precision, choose_device, choose_precision
from .run_directory import RunDirectory, read_json
from .tasks.classification import Classification
from .types import DataError, Features, Finding, ModelError, Problem, RunError, UserError


@dataclass(frozen=True)
class Prepared:
    """What stands before the first step: examples, their features, and what pre-flight found."""

    corpus: Corpus
    task: Classification
    features: Mapping[str, list[Features]]
    findings: list[Finding]

    def report(self) -> dict[str, Any]:
        """preflight.json."""
        tokens = {}
        for name, encoded in self.features.items():
            lengths = sorted(len(feature) for feature in encoded)
            tokens[name] = {
                "total": sum(lengths),
                "mean": round(sum(lengths) / len(lengths), 1),
                "median": lengths[len(lengths) // 2],
                "longest": lengths[-1],
                "truncated": sum(feature.truncated for feature in encoded),
            }
        findings = [{"check": f.check, "level": f.level, "message": f.message, "fix": f.fix} for f in self.findings]
        return {
            "splits": self.corpus.summary(),
            "labels": self.corpus.label_names,
            "tokens": tokens,
            "max_length": self.task.max_length,
            "findings": findings,
        }


def prepare(config: RunConfig) -> Prepared:
    """Data, tokenizer, features and pre-flight. Raises every mistake found in data and model path together."""
    problems: list[Problem] = []
    corpus = findings = tokenizer = max_length = None
    try:
        corpus = load_corpus(config)
        findings = [*corpus.notes, *preflight.check_corpus(corpus)]
    except DataError as error:
        problems += error.problems
    try:
        tokenizer = load_tokenizer(config.model)
        max_length = longest_text(config.model, tokenizer, config.data.max_length)
    except ModelError as error:
        problems += error.problems
    if problems:
        raise UserError(problems)
    assert corpus is not None and findings is not None and max_length is not None
    task = Classification(tokenizer, corpus.label_names, max_length)
    features = {name: task.encode(examples).features for name, examples in corpus.splits.items()}
    findings += preflight.check_features(features, max_length)
    return Prepared(corpus, task, features, findings)


@dataclass(frozen=True)
class BuiltModel:
    """The model to train, in float32 on the CPU, the base that it was made of, and the layers that got LoRA."""

    model: Any
    base: BaseModel
    targets: list[TargetGroup]
    parameters: ParameterCount


def build_model(config: RunConfig, task: Classification) -> BuiltModel:
    base = load_classifier(config.model, task.label_names, task.tokenizer.pad_token_id, config.run.seed)
    targets = []
    if config.adapter.method == "lora":
        names = find_targets(base.model, config.adapter.target_modules, base.head)
        targets = group_targets(base.model, names)
    model = attach(base.model, config.adapter, base.head, embedded.public_name(config.model.path), config.run.seed)
    return BuiltModel(model, base, targets, count_parameters(model))


@dataclass
class Trained:
    """A model loaded from disk, in float32 on the CPU, its adapter not merged. `manifest` is None for a foreign one."""

    model: Any
    task: Classification
    manifest: files.Manifest | None
    folder: Path | None
    base: BaseModel
    precision: Precision

    def merge(self) -> None:
        self.model = files.merged(self.model)

    def place(self) -> None:
        self.model.to(self.precision.device).eval()

    @torch.inference_mode()
    def logits(self, inputs: Mapping[str, torch.Tensor], precision: Precision) -> torch.Tensor:
        inputs = {name: tensor.to(precision.device) for name, tensor in inputs.items()}
        with precision.autocast():
            return self.task.probe_outputs(self.model, inputs)


def find_trained(path: Path) -> Path | None:
    """The folder with weights that MODEL means: inside a run directory, or itself. None for a base model.

    Raises RunError for a run whose training is not finished.
    """
    run = RunDirectory(path)
    if run.is_run:
        if run.trained is None:
            fix = f"finish it: lorafy train {path} --resume"
            raise RunError(Problem(str(path), "this run has no trained model yet", fix))
        return run.trained
    is_trained = (path / files.MANIFEST).is_file() or (path / "adapter_config.json").is_file()
    return path if is_trained else None


def load_trained(path: Path | str) -> Trained:
    """MODEL: a run directory, an adapter folder (ours or any of peft's), or a classifier (a folder or hub name)."""
    folder = find_trained(Path(path))
    if folder is None:
        return _load_plain(str(path))
    manifest = files.read_manifest(folder)
    if manifest is None:
        return _load_foreign_adapter(folder)
    section = ModelSection(**manifest.model)
    tokenizer = load_tokenizer(ModelSection(path=str(folder)))
    task = Classification(tokenizer, manifest.labels, manifest.max_length)
    source = ModelSection(path=str(folder)) if manifest.method == "full" else section
    base = load_classifier(source, manifest.labels, tokenizer.pad_token_id, manifest.seed)
    model = base.model
    if manifest.method == "full" and base.new_names:
        raise ModelError(Problem(str(folder), f"missing or misshapen in this folder: {', '.join(base.new_names)}"))
    if manifest.method == "lora":
        model = files.load_lora(model, folder)
    elif manifest.method == "none":
        model = files.load_head(model, folder, manifest.head)
    return Trained(model.eval(), task, manifest, folder, base, choose_precision(section.dtype, choose_device()))


def _load_plain(path: str) -> Trained:
    section = ModelSection(path=path)
    labels = _labels_of(section)
    tokenizer = load_tokenizer(section)
    task = Classification(tokenizer, labels, longest_text(section, tokenizer, None))
    base = load_classifier(section, labels, tokenizer.pad_token_id, seed=0)
    return Trained(base.model.eval(), task, None, None, base, choose_precision("auto", choose_device()))


def _load_foreign_adapter(folder: Path) -> Trained:
    """An adapter that another tool wrote: base from adapter_config.json, number of labels from its head."""
    from safetensors.torch import safe_open

    base_path = read_json(folder / "adapter_config.json").get("base_model_name_or_path")
    if not base_path:
        raise ModelError(Problem(str(folder), "adapter_config.json names no base model"))
    section = ModelSection(path=base_path)
    weights = folder / files.WEIGHTS["lora"]
    files.tensor_names(weights)  # absent or broken is reported from there
    with safe_open(weights, framework="pt") as file:
        heads = [name for name in file.keys() if "lora_" not in name and name.endswith("weight")]  # noqa: SIM118
        sizes = {name: file.get_slice(name).get_shape()[0] for name in heads}
    outputs = [size for name, size in sizes.items() if name.split(".")[-2] in ("classifier", "score", "out_proj")]
    if not outputs:
        message = "this adapter carries no classification head"
        raise ModelError(Problem(str(folder), message, "it was trained for another task, or its head was not saved"))
    labels = _labels_of(section)
    if len(labels) != outputs[0]:
        labels = [str(index) for index in range(outputs[0])]
    tokenizer = load_tokenizer(section)
    task = Classification(tokenizer, labels, longest_text(section, tokenizer, None))
    base = load_classifier(section, labels, tokenizer.pad_token_id, seed=0)
    untrained = set(base.new_names) - {name.removeprefix("base_model.model.") for name in files.tensor_names(weights)}
    if untrained:
        message = f"neither this adapter nor its base holds {', '.join(sorted(untrained))}"
        fix = "train it again with the whole head in modules_to_save"
        raise ModelError(Problem(str(folder), message, fix))
    model = files.load_lora(base.model, folder)
    return Trained(model.eval(), task, None, folder, base, choose_precision("auto", choose_device()))


def _labels_of(section: ModelSection) -> list[str]:
    from transformers import AutoConfig

    load_tokenizer(section)  # a path that cannot be loaded is reported from there
    config = AutoConfig.from_pretrained(embedded.resolve(section.path), revision=section.revision)
    return [str(config.id2label[index]) for index in sorted(config.id2label)]


def differing_base_logits(trained: Trained, inputs: Mapping[str, torch.Tensor], precision: Precision) -> torch.Tensor:
    """Logits without what was learned: LoRA switched off, or the base under the trained head, or the new head."""
    manifest = trained.manifest
    assert manifest is not None
    if manifest.method == "lora":
        files.set_lora_enabled(trained.model, False)
        try:
            return trained.logits(inputs, precision)
        finally:
            files.set_lora_enabled(trained.model, True)
    section = ModelSection(**manifest.model)
    base = load_classifier(section, manifest.labels, trained.task.tokenizer.pad_token_id, manifest.seed)
    if manifest.method == "full":
        head = _tensors_below(trained.model, manifest.head)
        base.model.load_state_dict(head, strict=False)
    fresh = Trained(base.model.to(precision.device).eval(), trained.task, manifest, None, base, precision)
    return fresh.logits(inputs, precision)


def _tensors_below(model: Any, modules: Sequence[str]) -> dict[str, torch.Tensor]:
    return {
        name: tensor
        for name, tensor in model.state_dict().items()
        if any(name.startswith(f"{module}.") for module in modules)
    }
