"""Whole runs of language models: tiny ones from a config, and the real pretrained stories260K."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

import lorafy
from language_models import make_language_model, save_language_model, write_rows
from lorafy.adapter_contract import Attachment
from lorafy.config import load_config
from lorafy.config.schema import AdapterSection
from lorafy.inference.language_model import LanguageModel
from lorafy.models.parameters import count_parameters
from lorafy.models.precision import Precision
from lorafy.models.targets import find_targets, group_targets
from lorafy.plugins import load_method
from lorafy.run_directory import RunDirectory, read_json, read_jsonl
from lorafy.tasks import read_corpus
from lorafy.tasks.causal_lm import CausalLM
from lorafy.types import Message
from lorafy.workflows.load import load_trained
from tiny_models import make_config, move_trainable
from tolerances import FLOAT32_ROUNDING
from trained_runs import assert_same_run, train, whole_and_resumed

PLAIN = Precision(torch.float32, torch.device("cpu"))
SHORT: dict[str, Any] = {"max_steps": 12, "batch_size": 8, "learning_rate": 1e-2, "save_every": None, "log_every": 4}
GREEDY: dict[str, Any] = {"temperature": 0.0, "max_new_tokens": 16, "evaluate_prompts": 4}
QUESTIONS = ["What is 2 and 2?", "Tell me a story of a dog named Spot.", "Why?", "你好吗？"]


def whole_run(base: Path, data: Path, folder: Path, **sections: dict[str, Any]) -> lorafy.Run:
    """Training, evaluation from disk, report."""
    config = make_config(base, data, **({"train": SHORT, "generation": GREEDY} | sections))
    train(config, folder / "run")
    lorafy.evaluate(folder / "run", console=Console(quiet=True))
    return lorafy.Run(folder / "run")


@pytest.fixture(scope="module")
def tiny_run(language_bases, sums_json, tmp_path_factory) -> lorafy.Run:
    """A GPT-2. Read it only."""
    return whole_run(language_bases["gpt2"], sums_json, tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def stories_run(stories, sums_json, tmp_path_factory) -> lorafy.Run:
    """Real weights, evaluated in a fresh process as a user's run is. Read it only."""
    place = {"output_dir": str(tmp_path_factory.mktemp("stories")), "name": "run"}
    config = make_config(stories, sums_json, run=place, adapter={"r": 8}, train=SHORT, generation=GREEDY)
    return lorafy.train(config, console=Console(quiet=True))


@pytest.fixture(params=["tiny", "stories"])
def finished(request) -> lorafy.Run:
    return request.getfixturevalue(f"{request.param}_run")


CHECKS = ["file_unchanged", "same_base", "reloaded_equals_memory", "differs_from_base", "merged_equals_adapter"]


def test_a_run_leaves_all_its_files_and_passes_its_verification(finished):
    files = {str(path.relative_to(finished.path)) for path in finished.path.rglob("*") if path.is_file()}
    assert files >= {
        "config.yaml", "environment.json", "preflight.json", "metrics.jsonl", "summary.json", "eval_results.json",
        "report.html", "adapter/adapter_model.safetensors", "adapter/adapter_config.json", "adapter/lorafy.json",
        "adapter/probe.safetensors", "adapter/tokenizer_config.json", "adapter/chat_template.jinja",
    }  # fmt: skip
    verification = finished.results["verification"]
    assert verification["passed"] and [check["name"] for check in verification["checks"]] == CHECKS
    figures = {check["name"]: check["figure"] for check in verification["checks"]}
    assert figures["reloaded_equals_memory"] == 0.0, "one machine, one thread: the same bits"
    assert lorafy.verify(finished.path) == verification
    settings = read_json(finished.path / "adapter" / "adapter_config.json")
    assert settings["task_type"] == "CAUSAL_LM" and settings["bias"] == "none"


def test_the_results_hold_base_and_tuned_side_by_side(finished):
    results = finished.results
    assert set(results) == {
        "task", "split", "dtype", "num_examples", "num_skipped", "num_truncated", "metrics", "base", "samples",
        "verification",
    }  # fmt: skip
    assert (results["task"], results["split"], results["num_examples"]) == ("causal_lm", "test", 8)
    for metrics in (results["metrics"], results["base"]):
        assert set(metrics) == {
            "loss", "loss_interval", "perplexity", "perplexity_interval", "token_accuracy", "num_target_tokens",
            "generation",
        }  # fmt: skip
        assert metrics["loss_interval"][0] <= metrics["loss"] <= metrics["loss_interval"][1]
        assert metrics["perplexity"] == pytest.approx(torch.tensor(metrics["loss"]).exp().item())
        assert set(metrics["generation"]) == {
            "num_prompts", "exact_match", "exact_match_interval", "bleu", "chrf", "rouge_l", "ended", "looped",
            "mean_new_tokens", "tokens_per_second",
        }  # fmt: skip
    assert results["metrics"]["num_target_tokens"] == results["base"]["num_target_tokens"]
    assert results["metrics"]["loss"] < results["base"]["loss"], "it learned"
    assert len(results["samples"]) == results["metrics"]["generation"]["num_prompts"] == 4
    assert set(results["samples"][0]) == {"prompt", "references", "tuned", "base", "row", "ended"}


def test_evaluating_again_gives_the_same_figures(finished, tmp_path: Path):
    run = Path(shutil.copytree(finished.path, tmp_path / "run"))
    again, before = lorafy.evaluate(run, console=Console(quiet=True)), json.loads(json.dumps(finished.results))
    for results in (again, before):
        for metrics in (results["metrics"], results["base"]):
            metrics["generation"].pop("tokens_per_second")
    assert again == before


def test_the_best_validation_lies_on_disk(tiny_run, tmp_path: Path):
    best = read_json(tiny_run.path / "checkpoints" / "best.json")
    examples = read_corpus(load_config(tiny_run.path / "config.yaml")).splits["validation"]
    rows = [{"text": e.messages[0].content, "target": e.answer} for e in examples]
    data = write_rows(tmp_path / "validation.jsonl", rows)
    scored = lorafy.evaluate(tiny_run.path, [f"data.test={data}", "generation.evaluate_prompts=0"])
    assert scored["metrics"]["loss"] == pytest.approx(best["loss"], rel=FLOAT32_ROUNDING)
    assert scored["metrics"]["generation"] is None and scored["samples"] == []
    assert tiny_run.summary["best_metric"] == "loss" and tiny_run.summary["best_value"] == best["loss"]


def in_float32(path: Path | str) -> LanguageModel:
    """A model without a recipe computes in bfloat16 where that is fast; here tokens are compared one by one."""
    trained = replace(load_trained(path), precision=PLAIN)
    assert isinstance(trained.task, CausalLM)
    return LanguageModel(trained, trained.task.encoder)


def texts(model: LanguageModel, **settings: Any) -> list[str]:
    return [answer.text for answer in model.generate(QUESTIONS, **settings)]


def test_a_loaded_run_answers_with_its_own_settings_and_with_others(finished):
    model = lorafy.load(finished.path)
    assert isinstance(model, LanguageModel) and model.has_base
    answers = model.generate(QUESTIONS)
    assert all(answer.num_tokens <= 16 for answer in answers), "the recipe's max_new_tokens"
    assert texts(model) == texts(model), "the recipe's temperature 0"
    assert [answer.num_tokens for answer in model.generate(QUESTIONS, max_new_tokens=1)] <= [1, 1, 1, 1]
    assert texts(model, base=True) != texts(model)
    assert texts(lorafy.load(finished.path, ["max_new_tokens=3"])) == texts(model, max_new_tokens=3)
    turns = [Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "Why?")]
    assert model.generate([turns])[0].num_tokens <= 16


def test_the_base_beside_the_adapter_is_the_base_itself(finished):
    beside = texts(lorafy.load(finished.path), base=True)
    alone = in_float32(load_config(finished.path / "config.yaml").model.path)
    assert not alone.has_base
    assert beside == texts(alone, temperature=0.0, max_new_tokens=16)


def test_the_merged_model_writes_the_same_tokens_as_the_adapter(stories_run, tmp_path: Path):
    """Greedy, float32, real weights; and plain transformers, which knows nothing of us, writes them too."""
    output = tmp_path / "merged"
    assert lorafy.merge(stories_run.path, output)["verification"]["passed"]
    adapter, merged = lorafy.load(stories_run.path), in_float32(output)
    settings = {"temperature": 0.0, "max_new_tokens": 60}
    expected = texts(adapter, **settings)
    assert texts(merged, **settings) == expected
    tokenizer: Any = AutoTokenizer.from_pretrained(output)
    plain = AutoModelForCausalLM.from_pretrained(output, dtype=torch.float32).eval()
    question = [{"role": "user", "content": QUESTIONS[1]}]
    ids = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    written = plain.generate(**ids, max_new_tokens=60, do_sample=False, pad_token_id=2)[0, ids["input_ids"].shape[1] :]
    assert tokenizer.decode(written, skip_special_tokens=True).strip() == expected[1].strip()
    assert not list(output.glob("adapter*"))


def test_plain_peft_reads_our_adapter(stories_run, stories):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = AutoModelForCausalLM.from_pretrained(stories, dtype=torch.float32)
        model = peft.PeftModel.from_pretrained(base, stories_run.path / "adapter").eval()
    probe = load_file(stories_run.path / "adapter" / "probe.safetensors")
    expected = probe.pop("logits")
    with torch.inference_mode():
        assert torch.equal(model(**probe).logits, expected)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_ten_steps_are_five_and_five(tmp_path: Path, monkeypatch, sums_json, method: str):
    """Bit for bit, dropout on in the base and in LoRA; 28 rows are 4 steps an epoch: step 5 is inside one."""
    base = save_language_model("gpt2", tmp_path / "base", dropout=0.2)
    adapter = {"method": method} | ({"dropout": 0.2} if method == "lora" else {})
    settings = {"max_steps": 10, "batch_size": 8, "save_every": 5, "log_every": 3, "evaluate_every": 4}
    config = make_config(base, sums_json, adapter=adapter, train=settings)
    whole, resumed = whole_and_resumed(config, tmp_path, monkeypatch, 8)
    assert_same_run(resumed, whole)
    assert [r["step"] for r in read_jsonl(resumed.metrics) if r["split"] == "train"] == [3, 6, 9, 10]


def test_ten_steps_of_real_weights_are_five_and_five(tmp_path: Path, monkeypatch, sums_json, stories):
    settings = {"max_steps": 10, "batch_size": 4, "save_every": 5, "evaluate_every": None}
    config = make_config(stories, sums_json, adapter={"dropout": 0.1}, train=settings)
    whole, resumed = whole_and_resumed(config, tmp_path, monkeypatch, 7)
    assert_same_run(resumed, whole)


@pytest.fixture(scope="module")
def full_run(language_bases, sums_json, tmp_path_factory) -> lorafy.Run:
    folder = tmp_path_factory.mktemp("full")
    return whole_run(language_bases["llama"], sums_json, folder, adapter={"method": "full"})


def test_full_fine_tuning(full_run):
    assert full_run.summary["trainable_parameters"] == full_run.summary["total_parameters"]
    names = [check["name"] for check in full_run.results["verification"]["checks"]]
    assert names == ["file_unchanged", "reloaded_equals_memory", "differs_from_base"]
    assert full_run.results["verification"]["passed"]
    assert full_run.results["metrics"]["loss"] < full_run.results["base"]["loss"]
    model = lorafy.load(full_run.path)
    tuned = texts(model)
    base = texts(model, base=True)
    alone = in_float32(load_config(full_run.path / "config.yaml").model.path)
    assert base == texts(alone, temperature=0.0, max_new_tokens=16) != tuned
    assert texts(model) == tuned, "the base was asked in between"
    plain = AutoModelForCausalLM.from_pretrained(full_run.path / "model", dtype=torch.float32)
    assert type(plain).__name__ == "LlamaForCausalLM"


def test_an_adapter_of_peft_alone_loads_and_writes(language_bases, tmp_path: Path):
    """Its tokenizer and template are the base's."""
    base_folder = language_bases["llama"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32)
        settings = peft.LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])
        model = peft.get_peft_model(base, settings)
        move_trainable(model, 0.3)
        model.save_pretrained(str(tmp_path / "adapter"))
    loaded = in_float32(tmp_path / "adapter")
    assert isinstance(loaded, LanguageModel) and loaded.has_base
    tokenizer = AutoTokenizer.from_pretrained(base_folder)
    ids = tokenizer("User:\nHi\n\nAssistant:\n", return_tensors="pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        written = model.eval().generate(**ids, max_new_tokens=12, do_sample=False, pad_token_id=256)
    expected = tokenizer.decode(written[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
    (answer,) = loaded.generate(["Hi"], temperature=0.0, max_new_tokens=12)
    assert answer.text == expected
    (base_answer,) = loaded.generate(["Hi"], base=True, temperature=0.0, max_new_tokens=12)
    (alone,) = in_float32(base_folder).generate(["Hi"], temperature=0.0, max_new_tokens=12)
    assert base_answer == alone != answer
    checks = lorafy.verify(tmp_path / "adapter")["checks"]
    assert {check["name"]: check["passed"] for check in checks} == dict.fromkeys(
        ["differs_from_base", "merged_equals_adapter"], True
    )
    assert lorafy.merge(tmp_path / "adapter", tmp_path / "merged")["verification"]["passed"]


def test_chat_speaks_with_adapter_and_base(tiny_run):
    chat = lorafy.load(tiny_run.path).chat()
    tuned = chat.ask("What is 2 and 2?")
    chat.use_base = True
    base = chat.ask_again()
    chat.use_base = False
    assert chat.ask_again() == tuned != base


TRUE_GPT2 = {"c_attn": 589_824, "all": 2_359_296}
"""Of GPT-2 (124M) at r=16. c_attn: 12 layers x 16 x (768 + 2304). All linear: 12 x 16 x (768+2304 + 768+768 + 768+3072
+ 3072+768)."""


def with_lora(model: Any, **settings: Any) -> Any:
    """A language model under an adapter."""
    config = AdapterSection(**settings)
    request = Attachment(config=config, head=[], base_name="gpt2", task_type="CAUSAL_LM", num_steps=1)
    return load_method("lora").attach(model, request).model


def test_the_parameters_of_the_true_gpt2_are_peft_s():
    """124,439,808 parameters by shape, none of them allocated."""
    with torch.device("meta"):
        model = GPT2LMHeadModel(GPT2Config())
        assert sum(p.numel() for p in model.parameters()) == 124_439_808
        targets = group_targets(model, find_targets(model, ["c_attn"], []))
        built = with_lora(model, r=16, alpha=32, target_modules=["c_attn"])
        settings = peft.LoraConfig(task_type="CAUSAL_LM", r=16, target_modules=["c_attn"], fan_in_fan_out=True)
        expected = peft.get_peft_model(GPT2LMHeadModel(GPT2Config()), settings).get_nb_trainable_parameters()
        every = with_lora(GPT2LMHeadModel(GPT2Config()), r=16)
    (group,) = targets
    assert (group.name, group.kind, group.count, group.in_features, group.out_features) == (
        "attn.c_attn", "Conv1D", 12, 768, 2304,
    )  # fmt: skip
    count = count_parameters(built)
    assert (count.trainable, count.total) == expected == (TRUE_GPT2["c_attn"], 125_029_632)
    assert count_parameters(every).trainable == TRUE_GPT2["all"]


def test_lora_on_a_conv1d_is_w_x_plus_b_a_x():
    """GPT-2's weight is (in, out): the merge has to turn B A around."""
    model = make_language_model("gpt2", 260)
    built = with_lora(model, r=4, alpha=6, target_modules=["c_attn"])
    move_trainable(built)
    layer = built.base_model.model.transformer.h[0].attn.c_attn.eval()
    x = torch.randn(3, 32)
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    base = layer.base_layer
    expected = x @ base.weight + base.bias + 6 / 4 * x @ a.T @ b.T
    torch.testing.assert_close(layer(x), expected)
    merged = built.merge_and_unload().transformer.h[0].attn.c_attn
    torch.testing.assert_close(merged(x), expected)


def test_one_run_of_each_architecture_is_verified(language_bases, sums_json, tmp_path: Path):
    for name in ("opt", "qwen3"):
        config = make_config(language_bases[name], sums_json, train=SHORT | {"max_steps": 4}, generation=GREEDY)
        run = train(config, tmp_path / name)
        assert lorafy.verify(run.path)["passed"]
        assert len(lorafy.load(run.path).generate(QUESTIONS[:2])) == 2
        manifest = read_json(RunDirectory(run.path).adapter / "lorafy.json")
        assert set(manifest["prompt"]) >= {"system", "thinking", "fingerprint"}


def identity_rows(shared_data: Path) -> list[dict[str, str]]:
    """91 questions about who answers, half of them Chinese; two stand there twice with two answers."""
    text = (shared_data / "alpaca" / "identity.json").read_text(encoding="utf-8")
    rows = json.loads(text.replace("{{name}}", "Lora").replace("{{author}}", "Ada"))
    first = {row["instruction"]: row for row in reversed(rows)}
    return list(first.values())


@pytest.mark.slow
def test_it_stops(stories, shared_data: Path, tmp_path: Path):
    """Tuned until memorised, 20 of 20 prompts end by the end token, though the base never saw it.

    All weights: in this base 252 tokens have the embedding of </s> (cosine above 0.99), and the table, which is the
    output layer too, is frozen under LoRA: no hidden state can mean the end alone. LoRA (r 16, 5e-3, 60 epochs) wrote
    English answers word for word, then noise: 2 of 19 ended.
    """
    rows = identity_rows(shared_data)
    data = {"validation": str(write_rows(tmp_path / "asked.json", rows[:10] + rows[-10:]))}
    settings = {"num_epochs": 80, "batch_size": 8, "learning_rate": 3e-3, "schedule": "cosine", "evaluate_every": None}
    config = make_config(
        stories,
        write_rows(tmp_path / "train.json", rows),
        data=data,
        adapter={"method": "full"},
        train=settings | {"save_every": None},
        generation={"evaluate_prompts": 20},
    )
    train(config, tmp_path / "run")
    results = lorafy.evaluate(tmp_path / "run", console=Console(quiet=True))
    base, tuned = results["base"]["generation"], results["metrics"]["generation"]
    assert tuned["num_prompts"] == 20 and tuned["ended"] == 1.0
    assert base["ended"] == 0.0
    assert tuned["exact_match"] >= 0.9 and results["metrics"]["loss"] < 0.05, "memorised"
    answers = lorafy.load(tmp_path / "run").generate([row["instruction"] for row in rows], temperature=0.0)
    assert all(answer.ended for answer in answers)

    # On a base whose end token is trained LoRA alone is enough.
    described: dict[str, str] = {}
    for line in (shared_data / "e2e_nlg" / "valid.txt").read_text(encoding="utf-8").splitlines():
        described.setdefault(line.split("||")[0], line)
    (tmp_path / "facts.txt").write_text("\n".join(list(described.values())[::13][:40]) + "\n", encoding="utf-8")
    (tmp_path / "asked.txt").write_text("\n".join(list(described.values())[::13][:20]) + "\n", encoding="utf-8")
    config = make_config(
        tmp_path / "run" / "model",
        tmp_path / "facts.txt",
        data={"validation": str(tmp_path / "asked.txt")},
        train=settings | {"num_epochs": 60, "learning_rate": 5e-3, "save_every": None},
        generation={"evaluate_prompts": 20},
    )
    train(config, tmp_path / "lora")
    written = lorafy.evaluate(tmp_path / "lora", console=Console(quiet=True))["metrics"]["generation"]
    assert (written["num_prompts"], written["ended"]) == (20, 1.0)
    assert written["exact_match"] >= 0.9
