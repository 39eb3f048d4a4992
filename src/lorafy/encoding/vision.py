"""Conversations with pictures as token ids and batches. A picture's tokens stand where the chat template would put it;
what they mean is computed from its patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch

from ..types import (
    IGNORE_INDEX,
    PICTURE_MARK,
    Batch,
    Conversation,
    DataError,
    Features,
    Message,
    Picture,
    PlacedPicture,
    Problem,
)
from .conversations import ConversationEncoder
from .pictures import PictureEncoder
from .prompt import Piece

START, PICTURE, END = "<|vision_start|>", "<|image_pad|>", "<|vision_end|>"
RESERVED = (START, PICTURE, END, "<|video_pad|>")
"""Texts that Qwen-VL's tokenizers read as pictures, wherever they stand."""


@dataclass(frozen=True)
class VisionEncoder(ConversationEncoder):
    """As a ConversationEncoder, for messages with pictures too, which it neither cuts nor takes as targets."""

    pictures: PictureEncoder = field(kw_only=True)

    sees: ClassVar[bool] = True

    @property
    def picture_id(self) -> int:
        """Id of the token that stands for one part of a picture."""
        return self.tokenizer.convert_tokens_to_ids(PICTURE)

    def _encode(self, example: Conversation) -> list[Features | str]:
        self._refuse_reserved(example.messages)
        if not example.pictures:
            return super()._encode(example)
        too_large = [picture for picture in example.pictures if not self.pictures.fits(picture)]
        if too_large:
            return [f"{too_large[0].name} cannot be shown with {self.pictures.max_pixels:,} pixels (data.max_pixels)"]
        whole = [
            self._seen(self._features(pieces, example.row), example.pictures)
            for pieces in self.renderer.sequences(spoken(example.messages))
        ]
        longest = max(len(feature) for feature in whole)
        if longest > self.max_length:
            shown = sum(picture.num_tokens for picture in max(whole, key=len).pictures)
            return [
                f"with its pictures it has more than {self.max_length} tokens: {longest}, {shown} of them pictures'"
            ]
        return list(whole)

    def ask(self, messages: Sequence[Message]) -> Features:
        """See `ConversationEncoder.ask`."""
        self._refuse_reserved(messages)
        shown = tuple(picture for message in messages for picture in message.pictures)
        return self._seen(super().ask(spoken(messages)), shown)

    def _features(self, pieces: Sequence[Piece], row: int, truncated: bool = False) -> Features:
        """Whatever is trained: the tokens of pictures are no targets."""
        feature = super()._features(pieces, row, truncated)
        never = set(self.tokenizer.convert_tokens_to_ids(list(RESERVED)))
        labels = [
            IGNORE_INDEX if token in never else int(label)
            for token, label in zip(feature.input_ids, feature.labels, strict=True)
        ]
        return replace(feature, labels=labels)

    def _seen(self, feature: Features, shown: Sequence[Picture]) -> Features:
        """The sequence, in which one token stands for each picture so far, with as many as each has; it shows the first
        of `shown`.

        Raises DataError where the chat template writes more of them.
        """
        places = [place for place, token in enumerate(feature.input_ids) if token == self.picture_id]
        if len(places) > len(shown):
            raise DataError(Problem("the chat template", f"writes {len(places)} pictures for {len(shown)}"))
        return self._placed(
            feature,
            [
                (place, 1, PlacedPicture(picture, place, *self.pictures.grid(picture)))
                for place, picture in zip(places, shown, strict=False)
            ],
        )

    def shrunk(self, feature: Features, side: int = 4) -> Features:
        """The sequence with `side` times `side` tokens for each of its pictures: a probe need not be large."""
        return self._placed(
            feature,
            [
                (picture.start, picture.num_tokens, PlacedPicture(picture.picture, 0, side, side))
                for picture in feature.pictures
            ],
        )

    def _placed(self, feature: Features, stretches: Sequence[tuple[int, int, PlacedPicture]]) -> Features:
        """The sequence with the tokens of a picture in place of each stretch: its start, its length, the picture."""
        ids: list[int] = []
        labels: list[Any] = []
        placed: list[PlacedPicture] = []
        done = 0
        for start, length, picture in stretches:
            ids += feature.input_ids[done:start]
            labels += feature.labels[done:start]
            placed.append(replace(picture, start=len(ids)))
            ids += [self.picture_id] * picture.num_tokens
            labels += [IGNORE_INDEX] * picture.num_tokens
            done = start + length
        ids += feature.input_ids[done:]
        labels += feature.labels[done:]
        return replace(feature, input_ids=ids, labels=labels, pictures=tuple(placed))

    def _refuse_reserved(self, messages: Sequence[Message]) -> None:
        """Raises DataError for a text that would be read as a picture."""
        for message in messages:
            found = next((text for text in RESERVED if text in message.content), None)
            if found is not None:
                problem = f"a {message.role} turn holds the text {found}, which the model reads as a picture"
                raise DataError(Problem("data", problem, "take it out; show pictures by <image> or a part of the turn"))

    def collate(self, features: Sequence[Features]) -> Batch:
        """See `ConversationEncoder.collate`. With pictures: `pixel_values` (P, C), all patches one behind the other,
        `image_grid_thw` (I, 3), and `mm_token_type_ids` (B, T), 1 where a token is a picture's."""
        batch = super().collate(features)
        return replace(batch, inputs=batch.inputs | self._pixels(features, batch.inputs["input_ids"]))

    def prompts(self, questions: Sequence[Features]) -> dict[str, torch.Tensor]:
        """See `ConversationEncoder.prompts`; pictures as `collate` gives them."""
        inputs = super().prompts(questions)
        return inputs | self._pixels(questions, inputs["input_ids"])

    def _pixels(self, features: Sequence[Features], ids: torch.Tensor) -> dict[str, torch.Tensor]:
        shown = [picture for feature in features for picture in feature.pictures]
        if not shown:
            return {}
        return {
            "pixel_values": torch.cat([self.pictures.patches(picture) for picture in shown]),
            "image_grid_thw": torch.tensor([self.pictures.grid_thw(picture) for picture in shown]),
            "mm_token_type_ids": (ids == self.picture_id).int(),
        }


def spoken(messages: Sequence[Message]) -> list[Message]:
    """The messages with the chat template's text for a picture in place of each mark."""
    return [
        Message(message.role, message.content.replace(PICTURE_MARK, f"{START}{PICTURE}{END}"))
        if message.pictures
        else message
        for message in messages
    ]
