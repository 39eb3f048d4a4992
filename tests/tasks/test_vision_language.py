"""Rows with pictures become features and batches: against transformers' own processor, on real pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import Qwen3VLProcessor

from lorafy.config.schema import ModelSection
from lorafy.models.load import open_source
from lorafy.tasks import kinds, load_kind
from lorafy.types import IGNORE_INDEX, Conversation, ModelError
from tiny_models import make_config
from vision_folders import save_vision_model, vision_tokenizer


class ReferenceProcessor(Qwen3VLProcessor):
    """transformers' own, without the video processor, which needs torchvision."""

    @classmethod
    def get_attributes(cls) -> list[str]:
        return ["image_processor", "tokenizer"]


@pytest.fixture(scope="module")
def base(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qwen3_vl")
    return save_vision_model("qwen3_vl", folder, vision_tokenizer(shared_data))


def prepared(base: Path, rows: Path, **data: Any) -> Any:
    from lorafy.workflows.prepare import prepare

    return prepare(make_config(base, rows, data=data))


@pytest.fixture(scope="module")
def real(base: Path, shared_data: Path) -> Any:
    rows = shared_data / "vlm"
    return prepared(base, rows / "train.jsonl", validation=str(rows / "test.jsonl"), test=str(rows / "test.jsonl"))


def test_every_row_equals_the_processors(base: Path, real: Any, shared_data: Path) -> None:
    """70 of 70: token ids, and pixels bit for bit."""
    task = real.task
    pictures = task.encoder.pictures.processor
    processor = ReferenceProcessor(pictures, task.tokenizer, None, chat_template=task.tokenizer.chat_template)
    folder, equal = shared_data / "vlm", 0
    for split, name in (("train", "train.jsonl"), ("test", "test.jsonl")):
        lines = [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]
        for line, feature in zip(lines, real.features[split], strict=True):
            content = []
            for turn in line["messages"]:
                text = turn["content"].removeprefix("<image>")
                shown = [{"type": "image"}] * turn["content"].count("<image>")
                content.append({"role": turn["role"], "content": [*shown, {"type": "text", "text": text}]})
            text = processor.apply_chat_template(content, tokenize=False)
            images = [on_white(folder / path) for path in line["images"]]
            expected = processor(text=[text], images=images, return_tensors="pt")
            batch = task.collate([feature])
            ids = expected["input_ids"][0].tolist()
            newline = task.tokenizer("\n")["input_ids"]  # the template writes it behind the end of the answer
            assert feature.input_ids == ids[: -len(newline)]
            assert torch.equal(batch.inputs["pixel_values"], expected["pixel_values"])
            assert torch.equal(batch.inputs["image_grid_thw"], expected["image_grid_thw"])
            length = len(feature)
            assert torch.equal(
                batch.inputs["mm_token_type_ids"][0, :length], expected["mm_token_type_ids"][0, :length].int()
            )
            equal += 1
    assert equal == 70


def on_white(path: Path) -> Image.Image:
    image: Image.Image = Image.open(path)
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def test_pictures_are_never_targets(real: Any) -> None:
    task, picture = real.task, real.task.encoder.picture_id
    for features in real.features.values():
        for feature in features:
            assert picture in feature.input_ids
            assert picture not in feature.labels
            answer = task.tokenizer.decode([label for label in feature.labels if label != IGNORE_INDEX])
            assert answer.endswith("<|im_end|>")


def test_whatever_is_trained_pictures_are_no_targets(base: Path, shared_data: Path) -> None:
    found = prepared(base, shared_data / "vlm" / "train.jsonl", train_on_prompt=True)
    special = found.task.tokenizer.convert_tokens_to_ids(["<|image_pad|>", "<|vision_start|>", "<|vision_end|>"])
    for feature in found.features["train"]:
        assert not set(special) & set(feature.labels)
        assert feature.num_targets > 5


def test_a_model_that_sees_gets_this_task(base: Path, real: Any) -> None:
    source = open_source(ModelSection(path=str(base)))
    assert [name for name, kind in kinds().items() if kind.claims(source)] == ["vision_language"]
    assert real.task.name == "vision_language"
    assert real.task.encoder.pictures.max_pixels == 262_144


def test_a_budget_of_pixels_is_kept(base: Path, shared_data: Path) -> None:
    for most in (4_096, 65_536, 100_000):
        found = prepared(base, shared_data / "vlm" / "train.jsonl", max_pixels=most)
        side = found.task.encoder.pictures.side
        sizes = {p.num_tokens * side**2 for f in found.features["train"] for p in f.pictures}
        assert max(sizes) <= most


def test_a_probe_is_shown_as_it_was_recorded_whatever_the_budget(base: Path, shared_data: Path) -> None:
    """Its grid is that of the run's beginning: the same pictures are shown with it, smaller budget or not."""
    pictures = prepared(base, shared_data / "vlm" / "train.jsonl", max_pixels=4_096).task.encoder.pictures
    placed = next(
        picture
        for feature in prepared(base, shared_data / "vlm" / "train.jsonl").features["train"]
        for picture in feature.pictures
        if picture.rows * picture.columns > 4
    )
    assert pictures.grid(placed.picture) != (placed.rows, placed.columns)
    assert len(pictures.patches(placed)) == 4 * placed.rows * placed.columns


def test_what_does_not_fit_is_named(base: Path, shared_data: Path) -> None:
    from lorafy.types import UserError

    with pytest.raises(UserError, match=r"with its pictures it has more than 128 tokens: \d+, \d+ of them pictures'"):
        prepared(base, shared_data / "vlm" / "train.jsonl", max_length=128)


def test_other_models_that_see_are_refused_with_the_reason(base: Path, tmp_path: Path) -> None:
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    config["model_type"] = "gemma3"
    config["architectures"] = ["Gemma3ForConditionalGeneration"]
    config["text_config"]["model_type"] = "gemma3_text"
    config["vision_config"] = {"model_type": "siglip_vision_model"}
    for path in base.iterdir():
        if path.name.startswith(("tokenizer", "vocab", "merges", "chat", "preprocessor")):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    source = open_source(ModelSection(path=str(tmp_path)))
    with pytest.raises(ModelError, match="gemma3 is not read yet"):
        load_kind("vision_language").of_model(source)


@pytest.mark.parametrize("role", ["user", "assistant"])
def test_a_text_that_would_be_read_as_a_picture_is_refused(real: Any, role: str) -> None:
    from dataclasses import replace

    from lorafy.types import DataError

    (example, *_) = real.corpus.splits["train"]
    messages = [replace(m, content=m.content + "<|image_pad|>") if m.role == role else m for m in example.messages]
    with pytest.raises(DataError, match=r"holds the text <\|image_pad\|>"):
        real.task.encode([Conversation(tuple(messages), "the test", 1)])
