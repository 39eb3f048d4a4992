"""Qwen-VL on the fast path: packed rows with pictures against the model's own forward, one row at a time."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from both_paths import CPU, largest_difference
from peft import LoraConfig, get_peft_model

from lorafy.encoding.pictures import PictureEncoder
from lorafy.encoding.prompt import make_renderer
from lorafy.encoding.vision import VisionEncoder
from lorafy.engine.fast_path import build_fast_path
from lorafy.engine.positions import three_axes
from lorafy.kernels import reference
from lorafy.models.parameters import hold_frozen_weights
from lorafy.models.precision import Precision
from lorafy.objectives.tokens import TokenCrossEntropy
from lorafy.training.paths import LARGEST_DIFFERENCE, PlainPath, compare
from lorafy.types import PICTURE_MARK, Conversation, Features, Message, Picture, PlacedPicture
from tolerances import FLOAT32_ROUNDING
from vision_folders import image_processor, vision_tokenizer
from vision_models import VISION_MODELS

pytestmark = pytest.mark.usefixtures("compiler")
FAMILIES = list(VISION_MODELS)


class RandomPictures(PictureEncoder):
    """Pictures that no file holds: patches drawn by their names."""

    def patches(self, placed: PlacedPicture) -> torch.Tensor:
        generator = torch.Generator().manual_seed(int(placed.picture.sha256))
        columns = 3 * 2 * self.processor.patch_size**2
        return torch.randn(4 * placed.num_tokens, columns, generator=generator)


@dataclass(frozen=True)
class Seeing:
    """What the paths ask of a task."""

    encoder: VisionEncoder
    objective = TokenCrossEntropy()
    max_tokens = None

    def collate(self, features: Sequence[Features]) -> Any:
        return self.encoder.collate(features)

    def padded_length(self, num_tokens: int) -> int:
        return self.encoder.padded_length(num_tokens)


def picture(number: int, width: int, height: int) -> Picture:
    return Picture(f"{number}.png", f"{number}.png", None, str(number), width, height)


def talk(row: int, *turns: tuple[str, Sequence[Picture]]) -> Conversation:
    """Questions (with PICTURE_MARKs) and what they show; answers in between."""
    messages: list[Message] = []
    for number, (text, shown) in enumerate(turns):
        messages.append(Message("user", text, tuple(shown)))
        messages.append(Message("assistant", f"answer {number} of {row}"))
    return Conversation(tuple(messages), "the test", row)


def rows() -> list[Conversation]:
    """None, one, two pictures; several turns; a picture late."""
    wide, high, small = picture(1, 320, 128), picture(2, 96, 224), picture(3, 64, 64)
    mark = PICTURE_MARK
    return [
        talk(1, ("no picture here", ())),
        talk(2, (f"{mark}what is this?", [wide])),
        talk(3, (f"{mark}and {mark}?", [high, small])),
        talk(4, (f"{mark}first", [small]), ("no more", ()), (f"late: {mark}", [wide])),
        talk(5, ("words first", ()), (f"then {mark}", [high])),
    ]


def make_encoder(name: str) -> VisionEncoder:
    processor = image_processor(name)
    processor.size = type(processor.size)(shortest_edge=1_024, longest_edge=65_536)
    renderer = make_renderer(vision_tokenizer())
    return VisionEncoder(renderer, 512, 512, pictures=RandomPictures(processor, 65_536))


def adapted(name: str, encoder: VisionEncoder, targets: str) -> Any:
    """A model with LoRA on what the expression names, every weight moved from where architectures start it."""
    tokenizer = encoder.tokenizer
    names = ("vision_start", "vision_end", "image_pad", "video_pad")
    start, end, image, video = tokenizer.convert_tokens_to_ids([f"<|{name}|>" for name in names])
    ids = {"vision_start_token_id": start, "vision_end_token_id": end, "image_token_id": image, "video_token_id": video}
    model: Any = get_peft_model(
        VISION_MODELS[name](len(tokenizer), **ids), LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM")
    )
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


LANGUAGE = r".*language_model.*_proj"
EVERYTHING = r".*(language_model.*_proj|attn\.(qkv|proj)|linear_fc[12]|visual.*mlp\..*_proj|merger\.mlp\.[02])"


def gradients(path: Any, model: Any, groups: Sequence[Sequence[Features]]) -> dict[str, torch.Tensor]:
    """Of the sum over all groups; tensors without one are absent."""
    model.zero_grad(set_to_none=True)
    loss_sum = torch.zeros((), dtype=torch.float64)
    for features in groups:
        for batch in path.batches(features, range(len(features)), None):
            loss = path.loss(batch).loss_sum
            loss.backward()
            loss_sum += loss.item()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {"loss": loss_sum, **found}


@pytest.mark.parametrize("ops", ["reference", "compiled"])
@pytest.mark.parametrize("targets", [LANGUAGE, EVERYTHING], ids=["language", "everything"])
@pytest.mark.parametrize("name", FAMILIES)
def test_packed_rows_equal_each_alone(name: str, targets: str, ops: str) -> None:
    encoder = make_encoder(name)
    model = adapted(name, encoder, targets)
    task = Seeing(encoder)
    features = encoder.encode(rows()).features
    assert [len(feature.pictures) for feature in features] == [0, 1, 2, 2, 1]
    plain = PlainPath(model, task, Precision(torch.float32, CPU), None)  # type: ignore[arg-type]
    fast = build_fast_path(model, task.objective, torch.float32, CPU, None, patches=encoder.pictures.patches)
    if ops == "reference":
        fast = replace(fast, ops=reference)
    alone = gradients(plain, model, [[feature] for feature in features])
    padded = gradients(plain, model, [features])
    packed = gradients(fast, model, [features])
    assert alone.keys() == padded.keys() == packed.keys()
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained == alone.keys() - {"loss"}
    assert (targets == EVERYTHING) == any(".visual." in n for n in trained)
    for other in (padded, packed):
        assert largest_difference(other, alone) < FLOAT32_ROUNDING


@pytest.mark.parametrize("targets", [LANGUAGE, EVERYTHING], ids=["language", "everything"])
@pytest.mark.parametrize("name", FAMILIES)
def test_in_bfloat16_the_paths_agree_as_a_run_asks(name: str, targets: str) -> None:
    """The tower computes under autocast then, on both paths."""
    encoder = make_encoder(name)
    model = adapted(name, encoder, targets)
    hold_frozen_weights(model, torch.bfloat16)
    task = Seeing(encoder)
    plain = PlainPath(model, task, Precision(torch.bfloat16, CPU), None)  # type: ignore[arg-type]
    fast = build_fast_path(model, task.objective, torch.bfloat16, CPU, None, patches=encoder.pictures.patches)
    check = compare(plain, fast, model, encoder.encode(rows()).features)
    assert not check.one_sided
    assert check.difference < LARGEST_DIFFERENCE[torch.bfloat16]


def test_kept_features_are_those_computed(tmp_path: Path) -> None:
    encoder = make_encoder("qwen3_vl")
    model = adapted("qwen3_vl", encoder, LANGUAGE)
    features = encoder.encode(rows()).features
    paths = [
        build_fast_path(
            model,
            TokenCrossEntropy(),
            torch.float32,
            CPU,
            None,
            patches=encoder.pictures.patches,
            keeps_features=keeps,
        )
        for keeps in (True, False)
    ]
    shown = [placed for feature in features for placed in feature.pictures]
    kept, computed = (path.network.tower for path in paths)  # type: ignore[attr-defined]
    kept.store.limit_bytes = 10_000  # the others go to the disk
    first = kept(shown)
    assert kept.store.held_bytes > 0
    assert kept.store.disk_bytes > 0
    again = kept(shown)
    own = [
        model.get_base_model().model.get_image_features(
            encoder.pictures.patches(placed), torch.tensor([encoder.pictures.grid_thw(placed)])
        )
        for placed in shown
    ]
    pooled = torch.cat([torch.cat(one.pooler_output) for one in own])
    added = torch.cat([torch.cat(one.deepstack_features[0]) for one in own])
    for found in (first, again, computed(shown)):
        assert torch.equal(found, torch.stack([pooled, added]))


@pytest.mark.parametrize("name", FAMILIES)
def test_positions_equal_the_models_own(name: str) -> None:
    encoder = make_encoder(name)
    model = adapted(name, encoder, LANGUAGE).get_base_model()
    draw = random.Random(0)
    for row in range(300):
        turns = []
        for _ in range(draw.randint(1, 3)):
            shown = [
                picture(draw.randint(1, 9), draw.randint(28, 400), draw.randint(28, 400))
                for _ in range(draw.randint(0, 3))
            ]
            text = "".join(f"{'x' * draw.randint(0, 5)}{PICTURE_MARK}" for _ in shown) + "y" * draw.randint(0, 5)
            turns.append((text, shown))
        (feature,) = replace(encoder, max_length=10_000).encode([talk(row, *turns)]).features
        ids = torch.tensor([feature.input_ids])
        grids = [encoder.pictures.grid_thw(placed) for placed in feature.pictures]
        found, _ = model.model.get_rope_index(
            ids,
            mm_token_type_ids=(ids == encoder.picture_id).int(),
            image_grid_thw=torch.tensor(grids) if grids else None,
        )
        assert torch.equal(three_axes(len(feature), feature.pictures), found[:, 0])


@pytest.mark.parametrize("name", FAMILIES)
def test_packed_logits_of_the_models_own_forward_equal_each_alone(name: str) -> None:
    """transformers sees where a row begins by the first of four axes, which counts every token."""
    encoder = make_encoder(name)
    model = adapted(name, encoder, LANGUAGE)
    features = encoder.encode(rows()).features
    alone = []
    for feature in features:
        inputs = dict(encoder.collate([feature]).inputs)
        del inputs["logits_to_keep"]
        with torch.no_grad():
            alone.append(model(**inputs).logits[0, : len(feature)])
    shown = [placed for feature in features for placed in feature.pictures]
    counted = torch.cat([torch.arange(len(feature)) for feature in features])
    axes = torch.cat([three_axes(len(feature), feature.pictures) for feature in features], 1)
    with torch.no_grad():
        packed = model(
            input_ids=torch.tensor([[token for feature in features for token in feature.input_ids]]),
            position_ids=torch.cat([counted[None], axes])[:, None],
            pixel_values=torch.cat([encoder.pictures.patches(placed) for placed in shown]),
            image_grid_thw=torch.tensor([encoder.pictures.grid_thw(placed) for placed in shown]),
            use_cache=False,
        ).logits[0]
    expected = torch.cat(alone)
    assert (packed - expected).abs().max().item() < FLOAT32_ROUNDING * max(1.0, expected.abs().max().item())
