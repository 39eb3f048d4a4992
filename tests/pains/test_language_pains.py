"""One test a row of PAINS.md that language models bring, or bring again; each shows the promise kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

import lorafy
from language_models import SUMS, byte_tokenizer, save_language_model, write_rows
from lorafy.config.schema import RunConfig
from lorafy.contracts import Task
from lorafy.inference import generate as generation
from lorafy.run_directory import RunDirectory, read_json
from lorafy.tasks.causal_lm import CausalLM
from lorafy.types import IGNORE_INDEX, Features, ModelError, UserError
from lorafy.workflows.announce import trained_text
from lorafy.workflows.load import load_trained
from lorafy.workflows.prepare import prepare
from tiny_models import build, make_config
from trained_runs import train

END = "<|endoftext|>"
ROWS = [{"text": question, "target": answer} for question, answer in SUMS]


@pytest.fixture(scope="module")
def config(language_bases, sums_json) -> RunConfig:
    """GPT-2: its tokenizer has no padding token, so that the end token pads."""
    settings = {"max_steps": 4, "batch_size": 8, "learning_rate": 1e-2, "evaluate_every": None}
    return make_config(language_bases["gpt2"], sums_json, train=settings, generation={"temperature": 0.0})


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory) -> RunDirectory:
    return train(config, tmp_path_factory.mktemp("pains") / "run")


def targets_of(task: Task, feature: Features) -> str:
    return task.tokenizer.decode([label for label in feature.labels if label != IGNORE_INDEX])


def given_of(feature: Features) -> list[int]:
    return [token for token, label in zip(feature.input_ids, feature.labels, strict=True) if label == IGNORE_INDEX]


def test_01_the_end_is_learned_though_it_pads(config):
    prepared = prepare(config)
    task, features = prepared.task, prepared.features["train"]
    assert isinstance(task, CausalLM)
    assert task.tokenizer.pad_token_id == task.tokenizer.eos_token_id == task.encoder.renderer.end_id
    assert all(feature.labels[-1] == task.encoder.renderer.end_id for feature in features)
    batch = task.collate(features)
    assert (batch.labels == task.encoder.renderer.end_id).sum() == len(features), (
        "an end for each row; padding is no target"
    )
    num_targets = sum(feature.num_targets for feature in features)
    assert (batch.labels != IGNORE_INDEX).sum() == num_targets
    notes = [finding.message for finding in prepared.findings]
    total = sum(map(len, features))
    said = (
        f"{num_targets:,} of {total:,} training tokens are targets ({num_targets / total:.0%}): answers and their end"
    )
    assert said in notes


def test_02_rows_without_a_target_are_refused_before_the_first_step(language_bases, tmp_path: Path):
    rows = [{"text": f"q{number}", "target": "a" * 90} for number in range(20)]
    config = make_config(language_bases["gpt2"], write_rows(tmp_path / "a.json", rows), data={"max_length": 64})
    with pytest.raises(UserError) as caught:
        train(config, tmp_path / "run")
    assert "14 of 14 train rows (100.0%) cannot be used: its answer alone does not fit into 64 tokens (row " in str(
        caught.value
    )
    assert not (tmp_path / "run").exists()


def test_03_the_question_is_cut_and_never_the_answer(language_bases, tmp_path: Path):
    answers = [f"This is answer {number} and it is whole." for number in range(40)]
    rows = [{"text": "why " * (60 if number % 4 == 0 else 2), "target": text} for number, text in enumerate(answers)]
    data = write_rows(tmp_path / "a.json", rows)
    prepared = prepare(make_config(language_bases["gpt2"], data, data={"max_length": 90}))
    features = [feature for split in prepared.features.values() for feature in split]
    assert sorted(targets_of(prepared.task, feature) for feature in features) == sorted(text + END for text in answers)
    assert sum(feature.truncated for feature in features) == 10 and max(map(len, features)) <= 90
    report = prepare(make_config(language_bases["gpt2"], data, data={"max_length": 90})).report()
    assert sum(split["truncated"] for split in report["tokens"].values()) == 10
    assert any("answers stay whole" in f["message"] for f in report["findings"])


def test_04_rows_in_are_rows_kept_plus_rows_skipped_and_named(language_bases, tmp_path: Path):
    rows: list[dict[str, Any]] = list(ROWS)
    rows[5] = {"text": "q", "target": "a" * 90}
    data = write_rows(tmp_path / "a.json", rows)
    held_out = write_rows(tmp_path / "b.json", [{"text": "other", "target": "a"}])
    files = {"validation": str(held_out), "max_length": 64}
    with pytest.raises(UserError, match=r"1 of 40 train rows \(2\.5%\) cannot be used: .*\(row 6\)"):
        prepare(make_config(language_bases["gpt2"], data, data=files))
    prepared = prepare(make_config(language_bases["gpt2"], data, data=files | {"too_long": "skip"}))
    encoded = prepared.encoded["train"]
    kept, skipped = {feature.row for feature in encoded.features}, {skip.row for skip in encoded.skipped}
    assert (kept | skipped, kept & skipped, skipped) == (set(range(1, 41)), set(), {6})
    assert prepared.report()["tokens"]["train"]["skipped"] == 1
    assert any("(row 6)" in finding.message for finding in prepared.findings)


def test_05_every_turn_is_masked_right_and_plan_shows_it(language_bases, tmp_path: Path):
    """The same words stand in question and answer: nothing is found by searching for strings."""
    turns = ["Assistant: yes", "User: no", "yes", "no", "Assistant:\n", "Assistant:\n"]
    rows = []
    for number in range(20):
        texts = [f"{number} {turns[0]}", *turns[1:]]
        roles = ["user", "assistant"] * 3
        rows.append({"messages": [{"role": r, "content": text} for r, text in zip(roles, texts, strict=True)]})
    data = write_rows(tmp_path / "a.jsonl", rows)
    prepared = prepare(make_config(language_bases["gpt2"], data))
    feature = prepared.features["train"][0]
    trained = [f"{text}{END}" for text in turns[1::2]]
    assert targets_of(prepared.task, feature) == "".join(trained)
    shown = trained_text(prepared.task.tokenizer, feature)
    green = [shown.plain[span.start : span.end] for span in shown.spans if "green" in str(span.style)]
    assert green == trained
    assert shown.plain == prepared.task.tokenizer.decode(feature.input_ids)


def test_06_gpt2_gets_its_targets(config):
    built, _ = build(config)
    assert {(group.name, group.kind) for group in built.targets} == {
        (name, "Conv1D") for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    }
    with pytest.raises(ModelError, match="c_attn"):
        build(config.model_copy(update={"adapter": config.adapter.model_copy(update={"target_modules": ["q_proj"]})}))


def test_15_training_generation_and_chat_ask_with_the_same_tokens(finished, config, monkeypatch):
    """And with those of plain transformers, from the template that lies in adapter/."""
    prepared = prepare(config)
    trained = {tuple(given_of(feature)) for feature in prepared.features["train"]}
    asked: list[tuple[int, ...]] = []
    batch = generation._generate_batch

    def spy(model: Any, task: Any, prompts: Any, *rest: Any) -> Any:
        asked.extend(tuple(prompt.input_ids) for prompt in prompts)
        return batch(model, task, prompts, *rest)

    monkeypatch.setattr(generation, "_generate_batch", spy)
    model = lorafy.load(finished.path, ["max_new_tokens=1"])
    questions = [example.messages[0].content for example in prepared.corpus.splits["train"]]
    model.generate(questions)
    assert set(asked) == trained and len(asked) == len(questions)
    model.chat().ask(questions[0])
    assert asked[-1] in trained
    tokenizer: Any = AutoTokenizer.from_pretrained(finished.adapter)
    plain = tokenizer.apply_chat_template([{"role": "user", "content": questions[0]}], add_generation_prompt=True)
    assert tuple(plain["input_ids"]) == asked[-1]


def test_15_another_template_beside_the_adapter_is_refused(finished, tmp_path: Path):
    folder = Path(shutil.copytree(finished.adapter, tmp_path / "adapter"))
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text(encoding="utf-8").replace("Assistant:", "Helper:"), encoding="utf-8")
    with pytest.raises(ModelError, match="its tokenizer or chat template is not the one that it was trained with"):
        lorafy.load(folder)


@pytest.mark.parametrize("thinking", [False, True])
def test_16_thinking_is_one_setting_that_is_saved_with_the_adapter(shared_data: Path, tmp_path: Path, thinking: bool):
    tokenizer = byte_tokenizer(chat=True)
    template = shared_data / "tokenizers" / "qwen2" / "qwen3_chat_template.jinja"
    tokenizer.chat_template = template.read_text(encoding="utf-8")
    base = save_language_model("qwen3", tmp_path / "base", tokenizer)
    rows = [{"text": question, "target": answer} for question, answer in SUMS]
    if thinking:
        rows = [row | {"target": f"<think>\nI add.\n</think>\n\n{row['target']}"} for row in rows]
    data = write_rows(tmp_path / "a.json", rows)
    settings = {"max_steps": 2, "evaluate_every": None}
    config = make_config(base, data, data={"thinking": thinking}, train=settings)
    prepared = prepare(config)
    feature = prepared.features["train"][0]
    trained, given = targets_of(prepared.task, feature), prepared.task.tokenizer.decode(given_of(feature))
    assert trained.startswith("<think>\nI add.\n</think>\n\nIt is ") == thinking
    assert given.endswith("<|im_start|>assistant\n" + ("" if thinking else "<think>\n\n</think>\n\n"))
    assert "think" not in trained or thinking

    run = train(config, tmp_path / "run")
    assert read_json(run.adapter / "lorafy.json")["prompt"]["thinking"] is thinking
    loaded = load_trained(run.path)
    assert isinstance(loaded.task, CausalLM) and loaded.task.encoder.renderer.thinking is thinking
    assert loaded.task.encoder.renderer.question_ids(prepared.corpus.splits["train"][0].messages[:1]) == given_of(
        feature
    )


def test_25_the_vocabulary_keeps_its_size_and_the_adapter_merges(finished, config, tmp_path: Path):
    base = load_trained(config.model.path).model
    assert lorafy.merge(finished.path, tmp_path / "merged")["verification"]["passed"]
    merged = load_trained(tmp_path / "merged").model
    assert torch.equal(merged.get_input_embeddings().weight, base.get_input_embeddings().weight)
    assert torch.equal(merged.get_output_embeddings().weight, base.get_output_embeddings().weight)
    assert json.loads((tmp_path / "merged" / "config.json").read_text(encoding="utf-8"))["vocab_size"] == 257
    assert all(".lora_" in name for name in load_file(finished.adapter / "adapter_model.safetensors"))
    longer = save_language_model("gpt2", tmp_path / "longer")
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(longer)
    with pytest.raises(ModelError, match=r"the tokenizer has 258 tokens, the model of .* knows 257"):
        build(make_config(longer, config.data.train))
