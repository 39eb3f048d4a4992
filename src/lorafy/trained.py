"""What was trained, loaded from disk: a run, an adapter's folder (of peft too), a model; and the base beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from .adapters import files
from .adapters.attach import hold_frozen_weights
from .assemble import AnyTask, load_base
from .config.schema import ModelSection
from .models import embedded
from .models.load import BaseModel, context_length, is_generative, load_tokenizer, longest_text
from .models.precision import Precision, choose_device, choose_precision
from .prompt import Renderer, make_renderer
from .run_directory import RunDirectory, read_json
from .tasks.causal_lm import CausalLM
from .tasks.classification import Classification
from .types import Conversation, Example, Message, ModelError, Problem, RunError


@dataclass
class Trained:
    """A model loaded from disk, in float32 on the CPU, its adapter not merged. `manifest` is None for a foreign one."""

    model: Any
    task: AnyTask
    manifest: files.Manifest | None
    folder: Path | None
    base: BaseModel
    precision: Precision
    section: ModelSection
    """Where the base lies."""

    def merge(self) -> None:
        self.model = files.merged(self.model)

    def place(self) -> None:
        self.model.to(self.precision.device).eval()

    def settle(self) -> None:
        """Places the model for use alone, its weights in the products' dtype: not to be merged or compared after."""
        self.model.requires_grad_(False)
        hold_frozen_weights(self.model, self.precision.dtype)
        self.place()

    def release(self) -> None:
        """Frees the weights: two models of some billion values do not fit beside each other."""
        self.model, self.base = None, replace(self.base, model=None)

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
    """MODEL: a run directory, an adapter folder (ours or any of peft's), or a model (a folder or hub name)."""
    folder = find_trained(Path(path))
    if folder is None:
        return _load_plain(ModelSection(path=str(path)))
    manifest = files.read_manifest(folder)
    if manifest is None:
        return _load_foreign_adapter(folder)
    section = ModelSection(**manifest.model)
    task = _task_of(manifest, folder, section)
    base = load_base(ModelSection(path=str(folder)) if manifest.method == "full" else section, task, manifest.seed)
    model = base.model
    if manifest.method == "full" and base.new_names:
        raise ModelError(Problem(str(folder), f"missing or misshapen in this folder: {', '.join(base.new_names)}"))
    if manifest.method == "lora":
        model = files.load_lora(model, folder)
    elif manifest.method == "none":
        model = files.load_head(model, folder, manifest.head)
    precision = choose_precision(section.dtype, choose_device())
    return Trained(model.eval(), task, manifest, folder, base, precision, section)


def _task_of(manifest: files.Manifest, folder: Path, section: ModelSection) -> AnyTask:
    tokenizer = load_tokenizer(ModelSection(path=str(folder)))
    if manifest.task == "classification":
        return Classification(tokenizer, manifest.labels, manifest.max_length)
    assert manifest.prompt is not None, "a language model's manifest says how it was asked"
    renderer = make_renderer(tokenizer, system=manifest.prompt["system"], thinking=manifest.prompt["thinking"])
    if renderer.fingerprint != manifest.prompt["fingerprint"]:
        message = "its tokenizer or chat template is not the one that it was trained with"
        raise ModelError(Problem(str(folder), message, "copy the folder again, whole; do not edit its tokenizer files"))
    return _language_task(section, tokenizer, renderer, manifest.max_length)


def _language_task(section: ModelSection, tokenizer: Any, renderer: Renderer, max_length: int | None) -> CausalLM:
    context = context_length(section, tokenizer)
    return CausalLM(
        renderer, max_length or longest_text(section, tokenizer, None, "causal_lm"), context, len(tokenizer)
    )


def _load_plain(section: ModelSection) -> Trained:
    """A model as it comes: a classifier with the head it has, or a language model, asked without thinking."""
    tokenizer = load_tokenizer(section)
    task: AnyTask
    if is_generative(section):
        task = _language_task(section, tokenizer, make_renderer(tokenizer), None)
    else:
        task = Classification(tokenizer, _labels_of(section), longest_text(section, tokenizer, None))
    base = load_base(section, task, seed=0)
    return Trained(base.model.eval(), task, None, None, base, choose_precision("auto", choose_device()), section)


def _load_foreign_adapter(folder: Path) -> Trained:
    """An adapter that another tool wrote: base and task from adapter_config.json, number of labels from its head."""
    settings = read_json(folder / "adapter_config.json")
    base_path = settings.get("base_model_name_or_path")
    if not base_path:
        raise ModelError(Problem(str(folder), "adapter_config.json names no base model"))
    section = ModelSection(path=base_path)
    names = files.tensor_names(folder / files.WEIGHTS["lora"])  # absent or broken is reported from there
    if settings.get("task_type") == "CAUSAL_LM":
        own_tokenizer = (folder / "tokenizer_config.json").is_file()
        tokenizer = load_tokenizer(ModelSection(path=str(folder)) if own_tokenizer else section)
        task: AnyTask = _language_task(section, tokenizer, make_renderer(tokenizer), None)
    else:
        task = Classification(load_tokenizer(section), _foreign_labels(folder, section), 0)
        task = replace(task, max_length=longest_text(section, task.tokenizer, None))
    base = load_base(section, task, seed=0)
    untrained = set(base.new_names) - {name.removeprefix("base_model.model.") for name in names}
    if untrained:
        message = f"neither this adapter nor its base holds {', '.join(sorted(untrained))}"
        fix = "train it again with the whole head in modules_to_save"
        raise ModelError(Problem(str(folder), message, fix))
    model = files.load_lora(base.model, folder)
    return Trained(model.eval(), task, None, folder, base, choose_precision("auto", choose_device()), section)


def _foreign_labels(folder: Path, section: ModelSection) -> list[str]:
    from safetensors.torch import safe_open

    with safe_open(folder / files.WEIGHTS["lora"], framework="pt") as file:
        heads = [name for name in file.keys() if "lora_" not in name and name.endswith("weight")]  # noqa: SIM118
        sizes = {name: file.get_slice(name).get_shape()[0] for name in heads}
    outputs = [size for name, size in sizes.items() if name.split(".")[-2] in ("classifier", "score", "out_proj")]
    if not outputs:
        message = "this adapter carries no classification head"
        raise ModelError(Problem(str(folder), message, "it was trained for another task, or its head was not saved"))
    labels = _labels_of(section)
    return labels if len(labels) == outputs[0] else [str(index) for index in range(outputs[0])]


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
    base = load_base(trained.section, trained.task, manifest.seed)
    if manifest.method == "full":
        head = _tensors_below(trained.model, manifest.head)
        base.model.load_state_dict(head, strict=False)
    fresh = Trained(
        base.model.to(precision.device).eval(), trained.task, manifest, None, base, precision, trained.section
    )
    return fresh.logits(inputs, precision)


def load_original(trained: Trained) -> Any:
    """The base model as it was before training, ready for use on the device."""
    seed = 0 if trained.manifest is None else trained.manifest.seed
    base = load_base(trained.section, trained.task, seed)
    original = replace(trained, model=base.model, base=base)
    original.settle()
    return original.model


def probe_inputs(trained: Trained) -> dict[str, torch.Tensor]:
    """The probe that lies beside the weights, or for another tool's adapter one that is made here."""
    from safetensors.torch import load_file

    path = None if trained.folder is None else trained.folder / files.PROBE
    if path is not None and path.is_file():
        return {name: tensor for name, tensor in load_file(path).items() if name != "logits"}
    texts = ("to be or not to be", "that is the question", "?")
    examples: list[Any] = [Example(text, None, "probe", row) for row, text in enumerate(texts)]
    if trained.task.name == "causal_lm":
        examples = [
            Conversation((Message("user", text), Message("assistant", text)), "probe", row)
            for row, text in enumerate(texts)
        ]
    return trained.task.probe(trained.task.encode(examples).features)


def _tensors_below(model: Any, modules: Sequence[str]) -> dict[str, torch.Tensor]:
    return {
        name: tensor
        for name, tensor in model.state_dict().items()
        if any(name.startswith(f"{module}.") for module in modules)
    }
