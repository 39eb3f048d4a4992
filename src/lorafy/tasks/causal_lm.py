"""Causal language modelling: each target token from the tokens before it; by default the answers alone are targets."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from ..config.schema import GenerationSection, ModelSection, RunConfig
from ..data.conversations import ConversationRecords
from ..data.corpus import Corpus
from ..encoding.conversations import ConversationEncoder
from ..encoding.prompt import make_renderer
from ..evaluation import language
from ..inference.generate import generate
from ..inference.language_model import LanguageModel
from ..inference.trained import Trained
from ..models.load import BaseModel, Source, load_whole, twins
from ..models.shelf import Shelf
from ..objectives.tokens import TokenCrossEntropy
from ..preflight.answers import check_share
from ..report.language import LanguageView
from ..types import (
    Batch,
    Conversation,
    DataError,
    Encoded,
    Features,
    Finding,
    Message,
    ModelError,
    PlacedPicture,
    Problem,
)

GENERATIVE = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
"""Endings of class names in transformers: models that write text."""
LOGITS_BYTES = 2**30
"""Bytes for the logits of one micro-batch, 10 for each: bf16, its fp32 copy and that one's gradient."""
PROBE_EXAMPLES, PROBE_POSITIONS, PROBE_LOGITS = 4, 4, 4_096
"""The probe's size: sequences, positions, and logits a position (a vocabulary has up to 150,000)."""
ANSWER_LENGTH, ANSWER_ROOM = 1.5, 16
"""An answer may be half again as long as the longest reference, and 16 tokens: enough to see that it does not end."""


@dataclass(frozen=True)
class CausalLM:
    """The task with what it needs of the model: encoder (renderer, tokenizer, lengths) and the vocabulary's size."""

    encoder: ConversationEncoder
    vocab_size: int

    name = "causal_lm"
    best_metric = "loss"
    objective = TokenCrossEntropy()
    auto: ClassVar[Any] = AutoModelForCausalLM
    """The class of transformers that makes such models."""

    @property
    def kind(self) -> CausalLMKind:
        """See `Task`."""
        return KIND

    @property
    def patches(self) -> Callable[[PlacedPicture], Any] | None:
        """None: it shows no pictures."""
        return None

    @property
    def tokenizer(self) -> Any:
        """The encoder's tokenizer."""
        return self.encoder.tokenizer

    @property
    def max_length(self) -> int:
        """The longest sequence to train on, in tokens."""
        return self.encoder.max_length

    @property
    def max_tokens(self) -> int:
        """The most padded tokens of one micro-batch, by LOGITS_BYTES; never fewer than one longest sequence."""
        return max(self.max_length, LOGITS_BYTES // (10 * self.vocab_size))

    def encode(self, examples: Sequence[Conversation]) -> Encoded:
        """See `ConversationEncoder.encode`."""
        return self.encoder.encode(examples)

    def collate(self, features: Sequence[Features]) -> Batch:
        """See `ConversationEncoder.collate`."""
        return self.encoder.collate(features)

    def padded_length(self, num_tokens: int) -> int:
        """See `ConversationEncoder.padded_length`."""
        return self.encoder.padded_length(num_tokens)

    def measure(self, model: Any, features: Sequence[Features], precision: Any) -> dict[str, float]:
        """Mean loss over the target tokens, its exponential, and the share of target tokens predicted right."""
        losses, correct, targets = language.token_sums(model, self.encoder, features, precision, self.max_tokens)
        loss = sum(losses) / sum(targets)
        return {"loss": loss, "perplexity": language.perplexity(loss), "accuracy": sum(correct) / sum(targets)}

    def rank(self, metrics: Mapping[str, float]) -> list[float]:
        """The loss with its sign changed: the lower, the better."""
        return [-metrics["loss"]]

    def probe(self, features: Sequence[Features]) -> dict[str, Any]:
        """Inputs for a model: the shortest sequences, with their last supervised positions."""
        batch = self.collate(sorted(features, key=len)[:PROBE_EXAMPLES])
        return {**batch.inputs, "logits_to_keep": batch.inputs["logits_to_keep"][-PROBE_POSITIONS:]}

    def probe_outputs(self, model: Any, inputs: Mapping[str, Any]) -> Any:
        """Logits (B, K, about 4,096): evenly spaced entries of the vocabulary."""
        logits = model(**inputs).logits
        return logits[..., :: -(-logits.shape[-1] // PROBE_LOGITS)].float().cpu()

    def write_reader(self, folder: Path) -> None:
        """Writes the tokenizer."""
        self.tokenizer.save_pretrained(folder)

    def settings(self) -> dict[str, Any]:
        """Fields of the manifest that say how the model is asked."""
        renderer = self.encoder.renderer
        facts = {"system": renderer.system, "thinking": renderer.thinking, "fingerprint": renderer.fingerprint}
        return {"labels": [], "prompt": facts}

    def load_base(self, section: ModelSection, seed: int, shelf: Shelf | None = None) -> BaseModel:
        """The whole model; nothing in it is new."""
        base = load_whole(section, self.auto, self.vocab_size, shelf)
        if "logits_to_keep" not in inspect.signature(base.model.forward).parameters:
            message = f"{type(base.model).__name__} of {section.path} gives logits for all positions only"
            raise ModelError(Problem("model.path", message, "take GPT-2, OPT, Llama, Qwen, or most others"))
        return base

    def check_data(self, corpus: Corpus, encoded: Mapping[str, Encoded]) -> list[Finding]:
        """Findings: how much of the text is learned; and texts that hold the end of an answer: a tokenizer reads its
        text as the end itself, wherever it stands."""
        end, findings = self.encoder.renderer.end, check_share(encoded)
        for name, examples in corpus.splits.items():
            rows = [example.row for example in examples if any(end in message.content for message in example.messages)]
            if rows:
                message = f"{len(rows):,} {name} rows hold the text {end}, which ends an answer (row {rows[0]}, ...)"
                findings.append(Finding("end", "warning", message, "take it out of these texts: it is read as the end"))
        return findings

    def unlearned_tokens(self, model: Any, features: Sequence[Features]) -> list[int]:
        """The end of an answer, where other tokens have the same output weights, and those of them that are targets."""
        end = self.encoder.renderer.end_id
        alike = set(twins(model, end))
        targets = {label for feature in features for label in feature.labels} if alike else set()
        return sorted({end} | (alike & targets)) if alike else []

    def check_model(self, model: Any) -> list[Finding]:
        """A finding where pretraining never showed the end of an answer: with the output layer frozen it cannot be
        learned."""
        renderer, weight = self.encoder.renderer, model.get_output_embeddings().weight
        count = len(twins(model, renderer.end_id))
        if not count or (isinstance(weight, torch.nn.Parameter) and weight.requires_grad):
            return []
        message = (
            f"pretraining never showed {renderer.end}, which ends an answer: {count:,} other tokens have the same "
            "output weights"
        )
        if weight.requires_grad:  # computed out of the frozen table and its trained rows
            message += ". Its row, and the row of each of those that the answers hold, is trained beside LoRA"
            return [Finding("end", "note", message)]
        message += ", so LoRA can hardly teach this model to stop"
        fix = "leave adapter.trainable_token_indices at auto, use adapter.method=full, or a base whose end was trained"
        return [Finding("end", "warning", message, fix)]

    def finish(self, model: Any, validation: Sequence[Features] | None, precision: Any) -> CausalLM:
        """The task as it is, and the model with it."""
        return self

    def refuse_unknown(self, corpus: Corpus, split: str) -> None:
        """Refuses nothing: any text can be scored."""

    def score(self, trained: Trained, examples: Sequence[Conversation], settings: GenerationSection) -> dict[str, Any]:
        """Metrics of what was trained, then of its base on the same questions. Raises DataError where no row fits."""
        encoded = self.encode(examples)
        if not encoded.features:
            raise DataError(Problem("data", f"no row fits into {self.max_length} tokens", "shorten the answers"))
        encoder = self.encoder
        # A question that leaves no room for an answer cannot be asked; it is left out.
        asked = [
            question
            for question in language.questions(examples, settings.evaluate_prompts)
            if len(encoder.ask(question.messages)) + ANSWER_ROOM < encoder.context_length
        ]
        lengths = (len(self.tokenizer(text, verbose=False)["input_ids"]) for a in asked for text in a.references)
        room = min(settings.max_new_tokens, round(ANSWER_LENGTH * max(lengths, default=0)) + ANSWER_ROOM)
        greedy = settings.model_copy(update={"temperature": 0.0, "max_new_tokens": room})

        def measure(model: Any) -> tuple[dict[str, Any], list[Any]]:
            def write(questions: Sequence[Sequence[Message]]) -> Sequence[Any]:
                return generate(model, encoder, questions, greedy, trained.precision)

            return language.score(model, encoder, encoded, asked, write, trained.precision, self.max_tokens)

        trained.merge()
        trained.settle()
        metrics, answers = measure(trained.model)
        base_metrics = base_answers = None
        if trained.folder is not None:
            trained.release()
            base_metrics, base_answers = measure(trained.original())
        return {
            "num_examples": len(examples),
            "num_skipped": len(encoded.skipped),
            "num_truncated": sum(feature.truncated for feature in encoded.features),
            "metrics": metrics,
            "base": base_metrics,
            "samples": language.samples(asked, answers, base_answers),
        }

    def ready(self, trained: Trained, settings: GenerationSection, seed: int) -> LanguageModel:
        """See `Task`."""
        return LanguageModel(trained, self.encoder, settings, seed)


class CausalLMKind:
    """See `TaskKind`."""

    noun = "a language model"
    peft_type = "CAUSAL_LM"
    abilities = ("write",)
    has_head = False
    default_length = 1_024
    records = ConversationRecords()
    view = LanguageView()

    def claims(self, source: Source) -> bool:
        """Whether the model was pretrained to write text after text, and sees nothing."""
        config = source.config
        if source.sees:
            return False
        if config.architectures:
            return any(name.endswith(GENERATIVE) for name in config.architectures)
        kind = config.model_type
        return kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES

    def refuse(self, source: Source) -> Problem:
        """Why a model is none of these."""
        if source.sees:
            message = f"{source.section.path} is a vision-language model, which learns from questions and answers"
            return Problem("model.path", message, "take a language model, or name the columns of questions and answers")
        message = f"{source.section.path} was not made to write text, but the data are questions and answers"
        return Problem("model.path", message, "take a language model, or name data.columns.label")

    def make(self, config: RunConfig, corpus: Corpus, source: Source) -> CausalLM:
        """The task of a recipe. Raises ModelError for a model that does not write."""
        if not self.claims(source):
            raise ModelError(self.refuse(source))
        max_length = source.longest(config.data.max_length, self.default_length)
        renderer = make_renderer(source.tokenizer, system=config.data.system, thinking=config.data.thinking)
        return self._task(source, renderer, max_length, config.data.train_on_prompt)

    def restore(self, manifest: Any, source: Source) -> CausalLM:
        """The task of what was trained. Raises ModelError where its tokenizer asks otherwise than it did then."""
        prompt = manifest.prompt
        assert prompt is not None, "a language model's manifest says how it was asked"
        renderer = make_renderer(source.tokenizer, system=prompt["system"], thinking=prompt["thinking"])
        if renderer.fingerprint != prompt["fingerprint"]:
            message = "its tokenizer or chat template is not the one that it was trained with"
            fix = "copy the folder again, whole; do not edit its tokenizer files"
            raise ModelError(Problem(str(source.tokenizer_folder), message, fix))
        return self._task(source, renderer, manifest.max_length)

    def of_model(self, source: Source) -> CausalLM:
        """The task of a model as it comes, asked without thinking."""
        return self._task(source, make_renderer(source.tokenizer), source.longest(None, self.default_length))

    def of_adapter(self, folder: Path, source: Source) -> CausalLM:
        """The task of another tool's adapter, with its own tokenizer where it has one."""
        if (folder / "tokenizer_config.json").is_file():
            source = Source(source.section, source.config, folder)
        return self.of_model(source)

    def _task(self, source: Source, renderer: Any, max_length: int, train_on_prompt: bool = False) -> CausalLM:
        encoder = ConversationEncoder(renderer, max_length, source.context_length, train_on_prompt)
        return CausalLM(encoder, len(source.tokenizer))

    def check_examples(self, corpus: Corpus) -> list[Finding]:
        """No findings beside those of preflight/."""
        return []

    def probe_examples(self) -> list[Conversation]:
        """Some questions with answers."""
        texts = ("to be or not to be", "that is the question", "?")
        return [
            Conversation((Message("user", text), Message("assistant", text)), "probe", row)
            for row, text in enumerate(texts)
        ]


KIND = CausalLMKind()
