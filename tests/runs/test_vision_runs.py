"""Whole runs of tiny models that see, on real pictures: resumed, merged, written with, in two processes, broken."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_processes import driver as driver
from test_processes import launch
from transformers import AutoImageProcessor, AutoModelForImageTextToText

from language_models import USERS_TRAIN
from lorafy import api
from lorafy.config import to_yaml
from lorafy.config.schema import GenerationSection, RunConfig
from lorafy.encoding.vision import VisionEncoder
from lorafy.inference.generate import generate
from lorafy.inference.trained import Trained
from lorafy.models.precision import Precision
from lorafy.run_directory import RunDirectory
from lorafy.tasks.vision_language import VisionLanguage
from lorafy.training.display import ProgressDisplay
from lorafy.types import Conversation, DataError, UserError
from lorafy.workflows.load import load_trained
from lorafy.workflows.prepare import prepare
from tiny_models import make_config
from tolerances import FLOAT32_ROUNDING, FLOAT32_UPDATES
from trained_runs import assert_same_run, metrics, train, trained_tensors, whole_and_resumed
from vision_folders import save_vision_model
from vision_models import VISION_MODELS

PLAIN = Precision(torch.float32, torch.device("cpu"))


@pytest.fixture(scope="module", params=list(VISION_MODELS))
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_vision_model(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def rows(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 rows with pictures and 8 without, mixed; the pictures lie beside them."""
    folder = tmp_path_factory.mktemp("rows")
    shutil.copytree(shared_data / "vlm" / "images", folder / "images")
    lines = (shared_data / "vlm" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines[::2][:24]]
    for number in range(8):
        question, answer = f"What is {number} and {number}?", f"{2 * number}."
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        found.insert(3 * number, {"messages": turns, "images": []})
    path = folder / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in found) + "\n", encoding="utf-8")
    return path


def recipe(base: Path, rows: Path, **sections: Any) -> RunConfig:
    steps = {"max_steps": 8, "batch_size": 6, "save_every": 3, "log_every": 2, "evaluate_every": 4}
    return make_config(
        base,
        rows,
        data={"max_pixels": 65_536, "max_length": 500},
        **({"adapter": {"r": 4}} | sections | {"train": steps | sections.get("train", {})}),
    )


def encoder_of(trained: Trained) -> VisionEncoder:
    assert isinstance(trained.task, VisionLanguage)
    return trained.task.encoder


@pytest.fixture(scope="module")
def run(base: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return train(recipe(base, rows), tmp_path_factory.mktemp("run") / "run")


def test_resumed_is_the_same_run_whether_features_are_kept_or_not(
    base: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[RunDirectory] = []
    for keeps in (True, False):
        folder = tmp_path / str(keeps)
        config = recipe(base, rows, train={"keep_picture_features": keeps})
        runs += whole_and_resumed(config, folder, monkeypatch, 5)
    for other in runs[1:]:
        assert_same_run(runs[0], other)
    assert json.loads(runs[0].summary.read_text(encoding="utf-8"))["fast_steps"] == 8


@pytest.mark.parametrize("parts", [["language"], ["language", "vision", "merger"]], ids=len)
def test_the_merged_folder_is_complete_and_the_same_model(
    base: Path, rows: Path, tmp_path: Path, parts: list[str]
) -> None:
    (base / "video_preprocessor_config.json").write_text('{"of": "the base"}', encoding="utf-8")
    run = train(recipe(base, rows, adapter={"r": 4, "parts": parts}), tmp_path / "run")
    result = api.merge(run.path, tmp_path / "merged")
    assert result["verification"]["passed"]
    adapter = load_trained(run.path)
    encoder = encoder_of(adapter)
    merged = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged").eval()
    features = prepare(recipe(base, rows)).features["train"]
    batch = adapter.task.collate(features[:6])
    assert "pixel_values" in batch.inputs
    with torch.inference_mode():
        expected = adapter.model(**batch.inputs).logits
        found = merged(**batch.inputs).logits
    assert (found - expected).abs().max() < FLOAT32_ROUNDING * max(1, expected.abs().max())
    processor = AutoImageProcessor.from_pretrained(tmp_path / "merged", backend="pil")
    assert processor.size.longest_edge == 65_536
    assert (tmp_path / "merged" / "video_preprocessor_config.json").read_text() == '{"of": "the base"}'
    assert (tmp_path / "merged" / "chat_template.jinja").is_file()
    questions = [example.messages[:-1] for example in prepare(recipe(base, rows)).corpus.splits["train"][:6]]
    settings = GenerationSection(max_new_tokens=8, temperature=0.0)
    again = load_trained(tmp_path / "merged")
    assert generate(adapter.model, encoder, questions, settings, PLAIN) == generate(
        again.model, encoder, questions, settings, PLAIN
    )


def test_a_batch_padded_on_the_left_writes_what_each_writes_alone(run: RunDirectory, rows: Path, base: Path) -> None:
    """Among them rows without a picture and of other lengths."""
    trained = load_trained(run.path)
    encoder = encoder_of(trained)
    examples = prepare(recipe(base, rows)).corpus.splits["train"][:10]
    assert {bool(example.pictures) for example in examples} == {True, False}
    questions = [example.messages[:-1] for example in examples]
    settings = GenerationSection(max_new_tokens=12, temperature=0.0)
    together = generate(trained.model, encoder, questions, settings, PLAIN)
    alone = [generate(trained.model, encoder, [one], settings, PLAIN)[0] for one in questions]
    assert together == alone
    blind = [one for one in questions if not any(message.pictures for message in one)]
    assert generate(trained.model, encoder, blind, settings, PLAIN) == [
        answer for answer, one in zip(alone, questions, strict=True) if one in blind
    ]


def test_an_evaluation_measures_base_and_tuned(run: RunDirectory) -> None:
    results = api.evaluate(run.path, ["generation.evaluate_prompts=3", "generation.max_new_tokens=8"])
    assert results["verification"]["passed"]
    assert results["metrics"]["loss"] < results["base"]["loss"]
    assert results["metrics"]["generation"]["num_prompts"] == 3


def test_a_picture_that_goes_away_stops_the_run_with_its_name_and_a_checkpoint(
    base: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data"
    shutil.copytree(rows.parent, folder)
    config = recipe(base, folder / "rows.jsonl", train={"keep_picture_features": False, "kernels": "reference"})
    whole = train(config, tmp_path / "whole")
    moved = tmp_path / "moved"
    shown = ProgressDisplay.on_step

    def on_step(display: ProgressDisplay, stats: Any) -> None:
        shown(display, stats)
        if stats.step == 4:
            (folder / "images").rename(moved)

    with monkeypatch.context() as patch:
        patch.setattr("lorafy.encoding.pictures.KEPT_BYTES", 0)
        patch.setattr(ProgressDisplay, "on_step", on_step)
        with pytest.raises(DataError, match=r"no such file.*\n.*checkpoint is written: lorafy train .* --resume"):
            train(config, tmp_path / "stopped")
    stopped = RunDirectory(tmp_path / "stopped")
    assert stopped.named_step("last") == 4
    assert stopped.trained is None
    moved.rename(folder / "images")
    assert_same_run(train(config, stopped.path, resume=True), whole)


@pytest.mark.parametrize(
    "parts", [pytest.param(["language"], marks=pytest.mark.slow), ["language", "vision", "merger"]], ids=len
)
def test_two_processes_on_mixed_rows_train_as_one(
    base: Path, rows: Path, tmp_path: Path, driver: str, parts: list[str]
) -> None:
    """Steps of three rows: now and then one process has none with a picture."""
    config = recipe(
        base, rows, adapter={"r": 4, "parts": parts}, train={"batch_size": 3, "evaluate_every": None, "warmup": 0}
    )
    path = tmp_path / "recipe.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    alone = train(config, tmp_path / "alone")
    still = config.model_copy(update={"train": config.train.model_copy(update={"learning_rate": 1e-30})})
    start = train(still, tmp_path / "start")
    done = launch(driver, str(path), str(tmp_path / "both"), "0")
    assert done.returncode == 0, done.stderr
    both = RunDirectory(tmp_path / "both")
    ours, theirs, before = trained_tensors(both), trained_tensors(alone), trained_tensors(start)
    for name, tensor in theirs.items():
        # By length: of one value among thousands the gradient may be nothing but rounding, which Adam makes a step of.
        moved = (tensor - before[name]).norm().item()
        assert (ours[name] - tensor).norm().item() < FLOAT32_UPDATES * moved, name
    for left, right in zip(metrics(both), metrics(alone), strict=True):
        assert left.pop("split") == right.pop("split")
        assert left == pytest.approx(right, rel=FLOAT32_UPDATES)


def test_a_literal_picture_in_the_data_is_refused(base: Path, rows: Path, tmp_path: Path) -> None:
    (example, *_) = prepare(recipe(base, rows)).corpus.splits["train"]
    task = prepare(recipe(base, rows)).task
    messages = [replace(message, content=message.content + " <|image_pad|>") for message in example.messages]
    with pytest.raises(UserError, match="which the model reads as a picture"):
        task.encode([Conversation(tuple(messages), "the test", 1)])


def test_the_frameworks_recipe_runs_unchanged(rows: Path, tmp_path: Path) -> None:
    """Its flat file, with Qwen3-VL's name in place of Qwen3's, and data/train.json beside it."""
    save_vision_model("qwen3_vl", tmp_path / "Qwen3-VL-2B-Instruct")
    recipe = tmp_path / "config.yaml"
    recipe.write_text(USERS_TRAIN.replace("./Qwen3-1.7B", "./Qwen3-VL-2B-Instruct"), encoding="utf-8")
    (tmp_path / "data").mkdir()
    shutil.copytree(rows.parent / "images", tmp_path / "data" / "images")
    found = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()[:8]]
    (tmp_path / "data" / "train.json").write_text(json.dumps(found), encoding="utf-8")
    config, _ = api.load_recipe(recipe)
    run = train(config, tmp_path / "output")
    assert json.loads(run.summary.read_text(encoding="utf-8"))["task"] == "vision_language"
    names = {name.split(".lora_")[0].rpartition(".")[2] for name in trained_tensors(run)}
    assert names == {"q_proj", "v_proj"}
    assert not any(".visual." in name for name in trained_tensors(run))
