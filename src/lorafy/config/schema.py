"""The recipe tree. Every key has a default but `model.path` and `data.train`. Frozen; `None` means off or automatic.

The descriptions are the reference: `lorafy config RECIPE` prints them beside the values.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from .fields import (
    Adapters,
    Column,
    Every,
    Factor,
    Index,
    Integer,
    Number,
    Plugin,
    Rank,
    Section,
    Split,
    Text,
    refuse,
    repeated,
)


class RunSection(Section):
    name: str | None = Field(
        None,
        pattern=r"^[\w][\w.\-]*$",
        description="folder of this run inside output_dir; default: the recipe's name and the next free number",
    )
    output_dir: str = Field("runs", description="folder that holds the runs")
    seed: Integer = Field(42, ge=0, lt=2**32, description="decides the split, the order, the start values and dropout")


class ModelSection(Section):
    path: Text = Field(description="minilm (built in), a folder, or a Hugging Face hub name")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="precision of the products; auto: bfloat16 where the processor or GPU is fast at it, float16 on "
        "older GPUs, else float32. Trained weights are float32 always",
    )
    quantise: Literal["nf4", "int8"] | None = Field(
        None,
        description="QLoRA: the base's linear layers, frozen, in 4 bits (nf4, its scales quantised too) or 8 (int8), "
        "products in dtype; head, output layer and embeddings are held as without it",
    )
    revision: str | None = Field(None, description="branch, tag or commit of a hub model")
    trust_remote_code: bool = Field(
        False,
        description="run Python code that the model's folder carries; said here or on the command line, never by a run "
        "or an adapter",
    )

    @model_validator(mode="after")
    def _revision_is_of_the_hub(self) -> ModelSection:
        if self.revision is not None and self.path == "minilm":
            refuse(["revision: no effect on the built-in minilm; remove it"])
        return self


class Columns(Section):
    """Names of columns; a dotted path reaches into a nested row (a list's first item is taken); a number is a
    position counted from 0 and says that the file has no header line."""

    text: Column = Field(None, description="the text; default: found by its usual names")
    text_pair: Column = Field(None, description="the second text of a pair, where there is one")
    label: Column | list[Text] = Field(
        None,
        description="the label; default: found by its usual names. A list of columns that hold 0 and 1: several labels "
        "a text (multi_label), named as the columns are",
    )
    prompt: Column = Field(None, description="the question or instruction; default: found by its usual names")
    input: Column = Field(None, description="what the instruction is about, where there is such a column")
    completion: Column = Field(None, description="the answer; default: found by its usual names")
    system: Column = Field(None, description="the system message, where there is such a column")
    messages: Column = Field(None, description="a list of turns with role and content (or from and value)")
    images: Column = Field(
        None,
        description="vision-language: the pictures of a row, a path or a list of them; default: images or image. "
        "<image> in a question stands for the next of them; without such marks all stand before the first question",
    )

    @property
    def headerless(self) -> bool:
        return any(isinstance(column, int) for column in self.model_dump().values())


DEFAULT_SPLIT = (0.7, 0.1, 0.2)


class DataSection(Section):
    train: Text = Field(
        description="csv, tsv, json, jsonl or parquet file, a saved data set's folder, or a hub data set's name"
    )
    validation: Text | None = Field(None, description="the same for validation; default: cut from train")
    test: Text | None = Field(None, description="the same for test; default: cut from train when nothing else is given")
    subset: str | None = Field(None, description="configuration of a hub data set, such as sst2 of nyu-mll/glue")
    format: Annotated[str, Plugin("formats", "auto", "labelled", "completion", "chat", "text")] = Field(
        "auto",
        description="labelled: text and label; completion: question and answer; chat: messages; text: plain text; "
        "auto: by the columns, and by the model where they allow two readings",
    )
    columns: Columns = Field(default_factory=Columns)
    system: Text | None = Field(None, description="language models: system message of rows that have none")
    thinking: bool = Field(
        False, description="language models: the chat template's thinking mode (Qwen3), for training and for talking"
    )
    too_long: Literal["refuse", "skip"] = Field(
        "refuse",
        description="language models: rows whose answer alone is longer than max_length: refuse the run where they are "
        "more than 1 %, or skip them, however many. An answer is never cut",
    )
    train_on_prompt: bool = Field(False, description="language models: learn the questions too, not the answers alone")
    images: Text | None = Field(
        None,
        description="vision-language: the folder where paths of pictures begin; default: that of the data file",
    )
    max_pixels: Integer = Field(
        262_144, ge=1024, description="vision-language: a picture is shown to the model with at most so many pixels"
    )
    labels: list[str] | None = Field(
        None, min_length=2, description="names for numeric labels: the first names label 0, and so on"
    )
    label_separator: Text | None = Field(
        None,
        description="multi_label: what stands between the labels of a row; default: a vertical bar, a semicolon or a "
        "comma, whichever of them comes first in this list and is there",
    )
    max_rows: Integer | None = Field(None, ge=1, description="at most so many rows of train, drawn by the seed")
    split: Split = Field(DEFAULT_SPLIT, description="shares of train, validation and test where lorafy makes the split")
    balance: Literal["downsample"] | None = Field(
        None, description="downsample: draw as many training rows of each label as the rarest has"
    )
    max_length: Integer | None = Field(
        None,
        ge=4,
        description="longest text in tokens; default: the model's limit, at most 512 (language models: 1024)",
    )
    encoding: str = Field("utf-8", description="character encoding of text files, such as gb18030")

    @model_validator(mode="after")
    def _consistent(self) -> DataSection:
        mistakes = []
        if abs(sum(self.split) - 1) > 1e-6 or min(self.split) < 0 or self.split[0] == 0:
            mistakes.append(f"split: the shares {list(self.split)} should add up to 1, with something left to train on")
        if self.validation and self.split != DEFAULT_SPLIT:
            mistakes.append("split: no effect while data.validation is given; remove it")
        twice = repeated(self.labels)
        if twice:
            mistakes.append(f"labels: {', '.join(twice)} stands there more than once; each label has one name")
        refuse(mistakes)
        return self


SCHEDULE = ("tinit", "tfinal", "deltaT")
"""Settings of AdaLoRA alone."""

WHERE = (
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "modules_to_save",
    "trainable_token_indices",
    "parts",
)
"""Settings that say which layers and modules are trained."""

SETTINGS_OF = {
    "adalora": ("r", "alpha", "dropout", *SCHEDULE, *WHERE),
    "full": ("parts",),
    "none": (),
}
"""For methods that know not all of the settings: those that they know. The others know all but SCHEDULE."""


def settings_of(method: str) -> set[str]:
    """The keys of the adapter section that have an effect under this method."""
    return {"method", *SETTINGS_OF.get(method, set(AdapterSection.model_fields) - set(SCHEDULE))}


METHODS = Plugin("adapters", "lora", "adalora", "dora", "pissa", "olora", "loftq", "full", "none")


class AdapterSection(Section):
    method: Annotated[str, METHODS] = Field(
        "lora",
        description="lora; dora: LoRA with a trained length for each output; pissa, olora: LoRA that starts inside the "
        "base's weights (their largest singular values, or their QR); loftq: LoRA on a quantised base that starts "
        "with what quantising lost; adalora: LoRA whose ranks move to the layers that need them; full: train all "
        "weights; none: train the classification head only",
    )
    r: Integer = Field(
        16,
        ge=1,
        description="rank of the LoRA matrices; adalora: their average at the end, 1.5 times that at the start",
    )
    alpha: Number = Field(32, gt=0, description="LoRA's scale is alpha / r")
    dropout: Number = Field(0, ge=0, lt=1, description="dropout on the input of the LoRA matrices")
    target_modules: Literal["auto", "all-linear"] | list[str] = Field(
        "auto", description="layers that get LoRA: auto (all linear layers of the base), or a list of names"
    )
    tinit: Index | None = Field(
        None, description="adalora: steps before the first rank is taken away; default: an eighth of all steps"
    )
    tfinal: Index | None = Field(
        None, description="adalora: last steps, in which the ranks stay as they are; default: half of all steps"
    )
    deltaT: Integer | None = Field(
        None,
        ge=1,
        description="adalora: in between, ranks are given out anew every so many steps; default: about 200 times",
    )
    exclude_modules: list[Text] | None = Field(None, description="names of layers that get none of it all the same")
    layers_to_transform: Index | list[Index] | None = Field(
        None, description="LoRA in these layers of the stack alone, counted from 0"
    )
    rank_pattern: dict[str, Rank] = Field(
        {}, description="another r for some layers, by name or pattern, such as {down_proj: 32}; the first that fits"
    )
    alpha_pattern: dict[str, Factor] = Field({}, description="another alpha for some layers, likewise")
    use_rslora: bool = Field(
        False, description="rsLoRA: the scale is alpha / sqrt(r), so that it does not shrink as the rank grows"
    )
    lr_ratio: Factor = Field(1, description="LoRA+: B learns at so many times the learning rate (the paper: 16)")
    modules_to_save: list[Text] | None = Field(
        None, description="names of modules that are trained whole beside LoRA, and saved with it"
    )
    trainable_token_indices: Literal["auto"] | list[Index] | None = Field(
        "auto",
        description="tokens whose rows of the embeddings and of the output layer are trained beside LoRA; auto: where "
        "pretraining never showed the token that ends an answer, that one and its like in the answers; null: none",
    )
    parts: list[str] | dict[str, Factor] | None = Field(
        None,
        description="vision-language: what is trained of language, vision and merger, the others frozen: a list, or "
        "factors on the learning rate, such as {language: 1, vision: 0.2}; default: language",
    )

    @property
    def factors(self) -> dict[str, float] | None:
        """The parts to train, each with its factor on the learning rate; None: as the model has them."""
        return dict.fromkeys(self.parts, 1.0) if isinstance(self.parts, list) else self.parts

    @property
    def effective(self) -> dict[str, Any]:
        """The settings, by key, that have an effect under the chosen method."""
        tree = self.model_dump(mode="json")
        if self.method not in SETTINGS_OF:
            return {key: value for key, value in tree.items() if key not in SCHEDULE}
        off = {key for key, field in type(self).model_fields.items() if field.default is None and tree[key] is None}
        known = [key for key in SETTINGS_OF[self.method] if key not in off]
        return {"method": self.method} | {key: tree[key] for key in known}

    @model_validator(mode="after")
    def _only_settings_with_an_effect(self) -> AdapterSection:
        mistakes = []
        given = sorted(self.model_fields_set - settings_of(self.method))
        mistakes += [f"{key}: no effect with method: {self.method}; remove it" for key in given]
        if self.parts is not None and not self.parts:
            mistakes.append("parts: there is none; name at least one part, or remove it")
        mistakes += [f"parts: {name} stands there more than once" for name in repeated(self.parts)]
        if self.target_modules == []:
            mistakes.append("target_modules: the list is empty; name at least one layer, or use auto")
        lists = {
            "exclude_modules": self.exclude_modules,
            "layers_to_transform": self.layers_to_transform,
            "modules_to_save": self.modules_to_save,
            "trainable_token_indices": self.trainable_token_indices,
        }
        for key, value in lists.items():
            if isinstance(value, list):
                mistakes += [] if value else [f"{key}: the list is empty; remove it"]
                mistakes += [f"{key}: {name} stands there more than once" for name in repeated(value)]
        refuse(mistakes)
        return self


class TrainSection(Section):
    num_epochs: Number | None = Field(
        None,
        gt=0,
        description="passes over the training split; default: 3, more for small sets (150 steps, 10 passes at most)",
    )
    max_steps: Integer | None = Field(None, ge=1, description="stop after so many optimizer steps, whatever num_epochs")
    batch_size: Integer = Field(32, ge=1, description="examples per optimizer step, over all processes")
    micro_batch_size: Integer | None = Field(
        None,
        ge=1,
        description="at most so many examples at a time; changes memory and speed; default: planned",
    )
    learning_rate: Number | None = Field(
        None,
        gt=0,
        description="peak learning rate; default: 5e-4 for lora, 5e-3 for adalora, 5e-5 for full, 1e-3 for none",
    )
    schedule: Literal["linear", "cosine", "constant"] = Field("linear", description="how the learning rate falls")
    warmup: Number = Field(
        0.06,
        ge=0,
        description="rise of the learning rate at the start: a share of all steps, or a number of steps",
    )
    weight_decay: Number = Field(0.0, ge=0, description="AdamW's weight decay, on matrices only")
    max_grad_norm: Number | None = Field(1.0, gt=0, description="clip the gradient's norm; null: off")
    log_every: Integer = Field(10, ge=1, description="steps between two lines of metrics")
    evaluate_every: Every = Field("epoch", description="a number of steps, epoch, or null")
    save_every: Every = Field("epoch", description="checkpoints: a number of steps, epoch, or null (the end only)")
    keep_checkpoints: Integer = Field(3, ge=1, description="so many of the latest are kept, and the best one")
    early_stopping: Integer | None = Field(
        None, ge=1, description="stop after so many evaluations in a row without a better one"
    )

    kernels: Literal["auto", "reference"] = Field(
        "auto",
        description="auto: the fast path where there is one for the model and the machine and it agrees with the plain "
        "one on the first examples; reference: the model's own code",
    )
    activation_checkpointing: Literal["auto", True, False] = Field(
        "auto",
        description="compute activations again in the backward pass, about a third slower, instead of keeping them; "
        "auto: where they would not fit into the free memory",
    )
    keep_picture_features: bool = Field(
        True,
        description="vision-language: what a frozen vision tower makes of a picture is computed once and kept, in a "
        "quarter of the free memory, and on disk beyond it; false: computed at every step",
    )

    @model_validator(mode="after")
    def _consistent(self) -> TrainSection:
        mistakes = []
        if self.early_stopping is not None and self.evaluate_every is None:
            mistakes.append("early_stopping: no effect while train.evaluate_every is null; give one, or remove this")
        if self.max_steps is not None and self.num_epochs is not None:
            mistakes.append("max_steps: train.num_epochs is given too; give one of them")
        refuse(mistakes)
        return self


class GenerationSection(Section):
    model: str | None = Field(
        None,
        description="what chat, generate and evaluate load when they are given this recipe: an adapter's folder; "
        "default: the recipe's run",
    )
    max_new_tokens: Integer = Field(512, ge=1, description="longest answer in tokens")
    temperature: Number = Field(0.7, ge=0, description="0: always the likeliest token; higher: more varied")
    top_p: Number = Field(0.95, gt=0, le=1, description="sample among the likeliest tokens of this total probability")
    repetition_penalty: Number = Field(1.0, ge=1, description="above 1: tokens that were used become less likely")
    evaluate_prompts: Integer = Field(
        50, ge=0, description="so many prompts of the scored split are answered and compared, always at temperature 0"
    )


class RunConfig(Section):
    run: RunSection = Field(default_factory=RunSection)
    model: ModelSection
    task: Annotated[
        str, Plugin("tasks", "auto", "classification", "multi_label", "regression", "causal_lm", "vision_language")
    ] = Field(
        "auto",
        description="classification: one label a text; multi_label: any number of labels a text; regression: a number "
        "a text; causal_lm: text after text; vision_language: answers about pictures; auto: what columns, labels and "
        "model ask for",
    )
    data: DataSection
    adapter: AdapterSection = Field(default_factory=AdapterSection)
    train: TrainSection = Field(default_factory=TrainSection)
    generation: GenerationSection = Field(default_factory=GenerationSection)
    adapters: Adapters | None = Field(
        None,
        description="several adapters on one base, for predict, generate, chat, evaluate and combine: runs or folders "
        "by name, such as {sentiment: runs/a-1, topic: runs/b-1}; model and data may be left out beside them",
    )
    trackers: list[Annotated[str, Plugin("trackers", "jsonl", "tensorboard")]] = Field(
        ["jsonl", "tensorboard"], description="where metrics go; jsonl is always written"
    )
