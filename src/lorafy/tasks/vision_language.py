"""Vision-language modelling: answers about pictures. All that a language model has, and a tower that looks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText

from ..config.schema import DataSection, ModelSection, RunConfig
from ..data.corpus import Corpus
from ..data.pictures import PictureRecords
from ..encoding.pictures import PictureEncoder
from ..encoding.vision import PICTURE, VisionEncoder
from ..models.load import BaseModel, Source
from ..models.parts import parts_of_vision_language
from ..models.shelf import Shelf
from ..objectives.tokens import TokenCrossEntropy
from ..preflight.pictures import check_pictures
from ..report.vision import VisionView
from ..types import Batch, Encoded, Features, Finding, LossOutput, ModelError, PlacedPicture, Problem
from .causal_lm import PROBE_EXAMPLES, PROBE_POSITIONS, CausalLM, CausalLMKind

KNOWN = ("qwen2_5_vl", "qwen3_vl")
"""Models whose pictures lorafy places: positions, tokens and patches differ from family to family."""
VIDEO_CONFIG = "video_preprocessor_config.json"
MAX_PIXELS = DataSection.model_fields["max_pixels"].default
"""The pixels of a picture at most, where nobody says otherwise."""


@dataclass(frozen=True)
class SeenTokenCrossEntropy(TokenCrossEntropy):
    """Cross-entropy of each target token, given those before it and the pictures."""

    def loss(self, model: Any, batch: Batch) -> LossOutput:
        """See `TokenCrossEntropy`. Among several processes every trained tensor takes part in each: one whose rows
        show nothing would leave the others waiting for the tower's gradients."""
        output = super().loss(model, batch)
        among = torch.distributed.is_available() and torch.distributed.is_initialized()
        if "pixel_values" in batch.inputs or not among:
            return output
        unused = sum(p.sum() for name, p in model.named_parameters() if p.requires_grad and ".visual." in name)
        return LossOutput(output.loss_sum + 0.0 * unused, output.score_sum)


@dataclass(frozen=True)
class VisionLanguage(CausalLM):
    """The task with what it needs of the model: encoder (renderer, tokenizer, lengths, pictures), vocabulary, where the
    base lies."""

    encoder: VisionEncoder
    video_config: str | None = None
    """The file of this name as the base has it: transformers' own processor asks for it, lorafy reads no films."""

    name = "vision_language"
    objective = SeenTokenCrossEntropy()
    auto = AutoModelForImageTextToText

    @property
    def kind(self) -> VisionLanguageKind:
        """See `Task`."""
        return KIND

    @property
    def patches(self) -> Callable[[PlacedPicture], torch.Tensor]:
        """See `PictureEncoder.patches`."""
        return self.encoder.pictures.patches

    def probe(self, features: Sequence[Features]) -> dict[str, Any]:
        """Inputs for a model: the shortest sequences, their pictures made small, with their last supervised
        positions."""
        small = sorted(map(self.encoder.shrunk, features), key=len)
        seen, blind = [one for one in small if one.pictures], [one for one in small if not one.pictures]
        chosen = [*seen[: PROBE_EXAMPLES - 1], *blind][:PROBE_EXAMPLES]
        batch = self.collate(chosen)
        return {**batch.inputs, "logits_to_keep": batch.inputs["logits_to_keep"][-PROBE_POSITIONS:]}

    def settings(self) -> dict[str, Any]:
        """Fields of the manifest: how the model is asked, and how large pictures are shown."""
        return {**super().settings(), "settings": {"max_pixels": self.encoder.pictures.max_pixels}}

    def write_reader(self, folder: Path) -> None:
        """Writes the tokenizer and the image processor, whose `size` is what pictures were shown with."""
        super().write_reader(folder)
        self.encoder.pictures.processor.save_pretrained(folder)
        if self.video_config is not None:
            (folder / VIDEO_CONFIG).write_text(self.video_config, encoding="utf-8")

    def load_base(self, section: ModelSection, seed: int, shelf: Shelf | None = None) -> BaseModel:
        """The whole model and its parts; nothing in it is new."""
        base = super().load_base(section, seed, shelf)
        return replace(base, parts=parts_of_vision_language(base.model))

    def check_data(self, corpus: Corpus, encoded: Mapping[str, Encoded]) -> list[Finding]:
        """Findings: as of a language model, and how many tokens are pictures'."""
        return [*super().check_data(corpus, encoded), *check_pictures(encoded)]


class VisionLanguageKind(CausalLMKind):
    """See `TaskKind`."""

    noun = "a vision-language model"
    default_length = 4_096
    records = PictureRecords()
    view = VisionView()

    def claims(self, source: Source) -> bool:
        """Whether the model looks at pictures."""
        return source.sees

    def refuse(self, source: Source) -> Problem:
        """Why a model is none of these."""
        message = f"{source.section.path} sees no pictures"
        return Problem("model.path", message, "take a vision-language model, such as Qwen/Qwen3-VL-2B-Instruct")

    def make(self, config: RunConfig, corpus: Corpus, source: Source) -> VisionLanguage:
        """The task of a recipe. Raises ModelError for a model that sees nothing, or otherwise than those in KNOWN."""
        return self._seeing(super().make(config, corpus, source), source, config.data.max_pixels)

    def restore(self, manifest: Any, source: Source) -> VisionLanguage:
        """The task of what was trained, its pictures as large as then."""
        return self._seeing(super().restore(manifest, source), source, manifest.settings["max_pixels"])

    def of_model(self, source: Source) -> VisionLanguage:
        """The task of a model as it comes."""
        return self._seeing(super().of_model(source), source, MAX_PIXELS)

    def _seeing(self, task: CausalLM, source: Source, max_pixels: int) -> VisionLanguage:
        """The language model's task with pictures."""
        kind, encoder = source.config.model_type, task.encoder
        if kind not in KNOWN:
            message = f"{kind} is not read yet: each family cuts, places and counts pictures in its own way"
            raise ModelError(Problem("model.path", message, f"take one of {', '.join(KNOWN)}"))
        if encoder.tokenizer.convert_tokens_to_ids(PICTURE) != source.config.image_token_id:
            message = (
                f"the tokenizer's {PICTURE} is not the token {source.config.image_token_id} that config.json names"
            )
            raise ModelError(Problem("model.path", message, "take the tokenizer that belongs to this model"))
        processor = source.image_processor
        size = processor.size
        # A small picture is made larger: to less than the budget, whatever its sides are rounded to.
        shortest = min(size.shortest_edge, max_pixels // 2)
        processor.size = type(size)(shortest_edge=shortest, longest_edge=max_pixels)
        pictures = PictureEncoder(processor, max_pixels)
        own = {each.name: getattr(encoder, each.name) for each in fields(encoder)}
        video = source.companion(VIDEO_CONFIG)
        return VisionLanguage(VisionEncoder(**own, pictures=pictures), task.vocab_size, video)


KIND = VisionLanguageKind()
