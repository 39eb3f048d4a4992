"""Every recipe for language models trains, evaluates and verifies: its architecture at a tiny size with the real
tokenizer, or the real stories260K, and small local data of the recipe's form."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import lorafy
from language_models import real_tokenizer, save_language_model, write_rows
from lorafy import api
from lorafy.config import load_config
from lorafy.config.schema import RunConfig
from vision_folders import save_vision_model, vision_tokenizer

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
ADVICE = RECIPES / "daily_advice_zh" / "daily_advice_zh.yaml"
PETS = ("cat", "dog", "duck", "frog", "fish", "bird", "pig", "hen")
PLACES = ("garden", "kitchen", "park", "forest", "school", "river")


@pytest.fixture(autouse=True)
def evaluate_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spares each recipe the seconds in which a fresh process imports torch; that process has tests of its own."""

    def evaluate(verb: str, path: Path, what: str, settings: Sequence[str], *, even_failed: bool) -> dict[str, Any]:
        assert verb == "evaluate" and even_failed
        return lorafy.evaluate(path)

    monkeypatch.setattr(api, "run_verb", evaluate)


def train(recipe: Path, folder: Path, *overrides: str, task: str = "causal_lm") -> lorafy.Run:
    small = ["train.num_epochs=1", "generation.evaluate_prompts=2", "generation.max_new_tokens=8"]
    run = lorafy.train(recipe, [f"run.output_dir={folder / 'runs'}", *small, *overrides])
    assert run.results["verification"]["passed"], json.dumps(run.results["verification"], indent=2)
    assert run.results["task"] == task and run.results["base"]["loss"] > 0
    assert run.directory.report.is_file()
    return run


def tiny(name: str, folder: Path, shared_data: Path) -> str:
    """The override that puts a tiny model of this kind in the recipe's place."""
    return f"model.path={save_language_model(name, folder / name, real_tokenizer(shared_data, name))}"


def adapter_config(run: lorafy.Run) -> dict[str, Any]:
    return json.loads((run.directory.adapter / "adapter_config.json").read_text(encoding="utf-8"))


def test_gpt2_eli5(tmp_path: Path, shared_data: Path) -> None:
    lines = (shared_data / "eli5" / "eli5_1k.jsonl").read_text(encoding="utf-8").splitlines()
    pairs = [json.loads(line) for line in lines[:60]]
    rows = [
        {"title": p["question"], "answers": {"text": [p["answer"], "Nobody knows."], "score": [9, 1]}} for p in pairs
    ]
    data = write_rows(tmp_path / "eli5.jsonl", rows)
    run = train(RECIPES / "gpt2_eli5.yaml", tmp_path, tiny("gpt2", tmp_path, shared_data), f"data.train={data}")
    assert run.path.name == "gpt2_eli5-1"
    assert adapter_config(run)["target_modules"] == ["c_attn"] and adapter_config(run)["fan_in_fan_out"]
    assert run.results["num_skipped"] > 0, "answers that do not fit are left out, never cut"
    references = [sample["references"] for sample in run.results["samples"]]
    assert references and all(reference != ["Nobody knows."] for reference in references), "the first answer is learned"


def test_daily_advice_zh(tmp_path: Path, shared_data: Path) -> None:
    run = train(ADVICE, tmp_path, tiny("qwen3", tmp_path, shared_data))
    assert run.path == tmp_path / "runs" / "output", "output_dir of a flat recipe is the run"
    assert run.results["split"] == "validation" and run.results["num_examples"] == 5
    assert run.summary["num_steps"] == 8, "15 rows, 2 at a time"
    assert run.results["num_truncated"] == run.results["num_skipped"] == 0


def test_qwen3_chat(tmp_path: Path, shared_data: Path) -> None:
    def talk(*texts: str) -> dict[str, Any]:
        roles = ("user", "assistant")
        return {"messages": [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]}

    rows = [talk(f"Where is the {pet}?", f"In the {place}.") for pet in PETS[:4] for place in PLACES[:3]]
    rows += [talk(f"Who is there? {n}", "A frog.", "And where?", "In the park.") for n in range(4)]
    data = write_rows(tmp_path / "chat.jsonl", rows)
    run = train(RECIPES / "qwen3_chat.yaml", tmp_path, tiny("qwen3", tmp_path, shared_data), f"data.train={data}")
    assert run.path.name == "qwen3_chat-1"
    assert "<think>" not in run.results["samples"][0]["references"][0]


def test_opt_125m(tmp_path: Path, shared_data: Path) -> None:
    rows = [
        {"instruction": f"Where is the {pet}?", "context": "" if pet == "pig" else f"The {pet} is in the {place}.",
         "response": f"In the {place}.", "category": "closed_qa"}
        for pet in PETS[:5] for place in PLACES[:4]
    ]  # fmt: skip
    data = write_rows(tmp_path / "dolly.jsonl", rows)
    overrides = [tiny("opt", tmp_path, shared_data), f"data.train={data}", "data.max_length=128"]
    run = train(RECIPES / "opt_125m.yaml", tmp_path, *overrides)
    questions = [sample["prompt"] for sample in run.results["samples"]]
    assert any("is in the" in question for question in questions), "the context goes with the instruction"


def seeing(folder: Path, shared_data: Path) -> list[str]:
    """What stands for the hub's Qwen3-VL, which reads more at once, and for a user's pictures."""
    model = save_vision_model("qwen3_vl", folder / "qwen3_vl", vision_tokenizer(shared_data))
    rows = shared_data / "vlm"
    data = [f"data.train={rows / 'train.jsonl'}", f"data.test={rows / 'test.jsonl'}", "data.max_length=500"]
    return [f"model.path={model}", *data]


def test_qwen3_vl(tmp_path: Path, shared_data: Path) -> None:
    overrides = seeing(tmp_path, shared_data)
    run = train(RECIPES / "qwen3_vl.yaml", tmp_path, *overrides, task="vision_language")
    assert run.path.name == "qwen3_vl-1"
    assert run.results["num_examples"] == 13 and run.results["num_skipped"] == 0
    assert not any("visual" in name for name in adapter_config(run)["target_modules"])
    samples = run.results["samples"]
    assert [sample["pictures"][0]["name"] for sample in samples] == ["images/astronaut.jpg", "images/brick.png"]
    assert 'alt="images/astronaut.jpg"' in run.directory.report.read_text(encoding="utf-8")


def test_qwen3_vl_8gb(tmp_path: Path, shared_data: Path) -> None:
    overrides = seeing(tmp_path, shared_data)
    run = train(RECIPES / "qwen3_vl_8gb.yaml", tmp_path, *overrides, task="vision_language")
    processor = json.loads((run.directory.adapter / "preprocessor_config.json").read_text(encoding="utf-8"))
    assert processor["size"]["longest_edge"] == 131_072, "other tools show the pictures as large"


def test_stories(tmp_path: Path, shared_data: Path) -> None:
    lines = [
        f"Once upon a time, a little {pet} lived in a {place}. Every day the {pet} said, hello, {place}! "
        f"And the {place} said, hello, little {pet}!\n"
        for pet in PETS for place in PLACES
    ]  # fmt: skip
    (tmp_path / "stories.txt").write_text("".join(lines), encoding="utf-8")
    overrides = [f"model.path={shared_data / 'stories260K' / 'hf'}", f"data.train={tmp_path / 'stories.txt'}"]
    run = train(RECIPES / "stories.yaml", tmp_path, *overrides, "train.num_epochs=3", "train.batch_size=8")
    assert run.results["metrics"]["loss"] < run.results["base"]["loss"] - 0.3, "real weights learn the style at once"


def test_e2e_nlg(tmp_path: Path, shared_data: Path) -> None:
    overrides = []
    for split, source, count in (("train", "valid", 48), ("validation", "test", 8), ("test", "test", 12)):
        lines = (shared_data / "e2e_nlg" / f"{source}.txt").read_text(encoding="utf-8").splitlines()[-count:]
        path = tmp_path / f"{split}.txt"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        overrides.append(f"data.{split}={path}")
    overrides += [tiny("gpt2", tmp_path, shared_data), "data.max_length=256", "train.warmup=1"]
    run = train(RECIPES / "e2e_nlg.yaml", tmp_path, *overrides)
    assert (run.results["split"], run.results["num_examples"]) == ("test", 12)
    assert any(len(sample["references"]) > 1 for sample in run.results["samples"]), "the references of one meaning"


def adapter(config: RunConfig) -> tuple[Any, ...]:
    section = config.adapter
    return section.r, section.alpha, section.dropout, section.target_modules


def test_recipes_have_the_settings_of_what_they_replace() -> None:
    eli5 = load_config(RECIPES / "gpt2_eli5.yaml")
    assert adapter(eli5) == (16, 32, 0.05, ["c_attn"])
    assert (eli5.data.columns.prompt, eli5.data.columns.completion) == ("title", "answers.text")
    assert (eli5.data.max_rows, eli5.data.max_length, eli5.generation.max_new_tokens) == (1000, 128, 50)
    assert (eli5.train.num_epochs, eli5.train.batch_size, eli5.train.learning_rate) == (1, 4, 2e-4)
    assert (eli5.train.log_every, eli5.train.save_every) == (50, 200)

    advice = load_config(ADVICE)
    assert adapter(advice) == (8, 16, 0.1, ["q_proj", "v_proj"])
    assert (advice.model.path, advice.model.dtype) == (str(ADVICE.parent / "Qwen3-1.7B"), "float16")
    assert (advice.train.num_epochs, advice.train.batch_size, advice.train.learning_rate) == (10, 2, 5e-4)
    assert advice.data.train == str(ADVICE.parent / "data" / "train.json")
    assert advice.data.validation == str(ADVICE.parent / "data" / "validation.json")

    e2e = load_config(RECIPES / "e2e_nlg.yaml")
    assert adapter(e2e) == (4, 32, 0.1, ["c_attn"])
    assert (e2e.train.num_epochs, e2e.train.batch_size, e2e.train.learning_rate) == (5, 8, 2e-4)
    assert (e2e.train.warmup, e2e.train.weight_decay) == (500, 0.01)


def test_the_advice_is_as_long_as_it_says_and_in_one_file_only() -> None:
    splits = {}
    for name in ("train", "validation"):
        rows = json.loads((ADVICE.parent / "data" / f"{name}.json").read_text(encoding="utf-8"))
        assert all(set(row) == {"text", "target"} and 60 <= len(row["target"]) <= 150 for row in rows)
        splits[name] = {text for row in rows for text in row.values()}
        assert len(splits[name]) == 2 * len(rows) == {"train": 30, "validation": 10}[name]
    assert not splits["train"] & splits["validation"]
