"""One test a row of PAINS.md, as far as classification is concerned; each shows the promise kept, end to end.

Rows of language models are in test_language_pains.py; 17 concerns images; 18 waits for `plan`.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import lorafy
from lorafy.config import load_config
from lorafy.models.parameters import hold_frozen_weights
from lorafy.run_directory import read_json, read_jsonl
from lorafy.types import ConfigError, ModelError, UserError
from lorafy.workflows.load import load_trained
from lorafy.workflows.prepare import prepare
from tiny_models import build, load_classifier, logits_of, make_config
from tolerances import FLOAT32_ROUNDING
from trained_runs import Killed, assert_same_run, kill_after, train


def write_csv(path: Path, rows: list[tuple[str, str]], encoding: str = "utf-8") -> Path:
    text = "label,text\n" + "".join(f'{label},"{text}"\n' for label, text in rows)
    path.write_text(text, encoding=encoding, newline="\n")
    return path


def test_02_rows_without_a_target_are_refused_before_the_first_step(tiny_bert, sms_rows, tmp_path: Path):
    rows = [("" if index in (3, 7) else label, text) for index, (label, text) in enumerate(sms_rows)]
    with pytest.raises(UserError, match=r"2 of 80 rows without a label .*row 5, 9"):
        train(make_config(tiny_bert, write_csv(tmp_path / "sms.csv", rows)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_04_rows_in_are_rows_kept_plus_rows_named(tiny_bert, sms_rows, tmp_path: Path):
    data = write_csv(tmp_path / "sms.csv", sms_rows)
    report = prepare(make_config(tiny_bert, data, data={"max_rows": 60})).report()
    assert sum(split["rows"] for split in report["splits"].values()) == 60
    assert any("60 of 80 rows of train drawn" in finding["message"] for finding in report["findings"])
    with data.open("a", encoding="utf-8") as file:
        file.write("spam\n")
    with pytest.raises(UserError, match="line 82"):
        prepare(make_config(tiny_bert, data))


def test_06_gpt2_gets_its_targets(base_models, sms_csv):
    built, _ = build(make_config(base_models["gpt2"], sms_csv))
    assert {group.kind for group in built.targets} == {"Conv1D"} and built.parameters.trainable > 0
    with pytest.raises(ModelError, match="c_attn"):
        build(make_config(base_models["gpt2"], sms_csv, adapter={"target_modules": ["q_proj", "v_proj"]}))


def test_07_the_head_is_trained_saved_and_survives_the_merge(finished, short, tmp_path: Path):
    names = set(load_file(finished.adapter / "adapter_model.safetensors"))
    assert {"base_model.model.classifier.weight", "base_model.model.classifier.bias"} <= names
    trained = load_trained(finished.path)
    head = trained.model.get_submodule("base_model.model.classifier.modules_to_save.default").weight
    start = load_classifier(short.model, ["ham", "spam"], 0, short.run.seed).model.classifier.weight
    assert not torch.equal(head, start)
    lorafy.merge(finished.path, tmp_path / "merged")
    assert torch.equal(load_trained(tmp_path / "merged").model.classifier.weight, head)


def test_08_the_merge_is_verified(finished, tmp_path: Path):
    checks = {check["name"]: check for check in lorafy.verify(finished.path)["checks"]}
    assert checks["merged_equals_adapter"]["passed"] and checks["differs_from_base"]["passed"]
    assert checks["merged_equals_adapter"]["figure"] <= FLOAT32_ROUNDING < checks["differs_from_base"]["figure"]
    assert lorafy.merge(finished.path, tmp_path / "merged")["verification"]["passed"]


@pytest.mark.parametrize("change", ["missing", "unexpected"])
def test_09_adapter_keys_that_do_not_fit_are_an_error_that_names_them(finished, tmp_path: Path, change: str):
    folder = Path(shutil.copytree(finished.adapter, tmp_path / "adapter"))
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if "lora_A" in name)
    changed = f"{name.removesuffix('.weight')}.other.weight"
    if change == "unexpected":
        tensors[changed] = tensors[name].clone()
    else:
        del tensors[name]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ModelError) as caught:
        lorafy.load(folder)
    assert (changed if change == "unexpected" else name) in str(caught.value)


def test_10_how_a_step_is_cut_does_not_change_it(short, finished, tmp_path: Path):
    """On a whole run; the gradient itself is held to 1e-12 in tests/training/test_step.py. Dropout 0."""
    runs = []
    for size in (None, 1, 3):
        config = without_dropout(short, tmp_path / f"base-{size}", micro_batch_size=size, max_steps=3)
        runs.append([record["loss"] for record in read_records(train(config, tmp_path / f"run-{size}"))])
    assert runs[1] == pytest.approx(runs[0], rel=FLOAT32_ROUNDING)
    assert runs[2] == pytest.approx(runs[0], rel=FLOAT32_ROUNDING)


def read_records(run) -> list[dict]:
    lines = run.metrics.read_text(encoding="utf-8").splitlines()
    return [record for record in map(json.loads, lines) if record["split"] == "train"]


def without_dropout(config, folder: Path, **settings):
    shutil.copytree(config.model.path, folder)
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    values |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    train_section = {"batch_size": 8, "learning_rate": 2e-2, "log_every": 1, "evaluate_every": None} | settings
    return make_config(folder, config.data.train, adapter={"dropout": 0}, train=train_section)


@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta", "gpt2"])
def test_11_padding_changes_no_logit(base_models, sms_csv, name: str):
    built, prepared = build(make_config(base_models[name], sms_csv))
    features = sorted(prepared.features["train"], key=len)
    shortest, longest = features[0], features[-1]
    assert len(shortest) < len(longest)
    alone = logits_of(built.model, prepared.task.collate([shortest]).inputs)
    beside = logits_of(built.model, prepared.task.collate([shortest, longest]).inputs)[:1]
    torch.testing.assert_close(beside, alone, rtol=FLOAT32_ROUNDING, atol=FLOAT32_ROUNDING)


def test_12_a_resumed_run_is_the_same_run(short, finished, tmp_path: Path, monkeypatch):
    with monkeypatch.context() as patch:
        kill_after(patch, 8)
        with pytest.raises(Killed):
            train(short, tmp_path / "run")
    assert_same_run(train(short, tmp_path / "run", resume=True), finished)


def test_13_adaloras_ranks_change_and_meet_the_budget(short, tmp_path: Path):
    """Where nobody calls the allocator behind an update, every layer keeps the rank that it began with."""
    adapter = {"method": "adalora", "r": 4}
    run = train(make_config(short.model.path, short.data.train, adapter=adapter, train={"max_steps": 10}), tmp_path)
    first, *_, last = [line["ranks"] for line in read_jsonl(run.ranks)]
    assert set(first.values()) == {6} and sum(last.values()) == 4 * len(last) and len(set(last.values())) > 1
    on_disk = load_file(run.adapter / "adapter_model.safetensors")
    assert sorted(len(on_disk[name]) for name in on_disk if name.endswith("lora_E")) == sorted(last.values())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_14_what_is_trained_is_float32(base_models, sms_csv, dtype: str):
    built, _ = build(make_config(base_models["bert"], sms_csv, model={"dtype": dtype}))
    hold_frozen_weights(built.model, getattr(torch, dtype))
    kinds: dict[bool, set[torch.dtype]] = {p.requires_grad: set() for p in built.model.parameters()}
    for parameter in built.model.parameters():
        kinds[parameter.requires_grad].add(parameter.dtype)
    assert kinds[True] == {torch.float32} and getattr(torch, dtype) in kinds[False]


def test_19_utf8_with_a_mark_is_read_and_gb18030_is_named(tiny_bert, tmp_path: Path):
    texts = [("垃圾短信", f"恭喜您中奖第{index}号，请速领取") for index in range(60)]
    texts += [("正常", f"晚上回家吃饭吗{index}，妈妈在等") for index in range(60)]
    prepared = prepare(make_config(tiny_bert, write_csv(tmp_path / "bom.csv", texts, "utf-8-sig")))
    assert prepared.corpus.label_names == ["垃圾短信", "正常"]
    chinese = write_csv(tmp_path / "gb.csv", texts, "gb18030")
    with pytest.raises(UserError, match=r"data\.encoding=gb18030"):
        prepare(make_config(tiny_bert, chinese))
    again = prepare(make_config(tiny_bert, chinese, data={"encoding": "gb18030"}))
    assert again.corpus.splits["train"][0].text == prepared.corpus.splits["train"][0].text


def test_20_a_cpu_is_enough(finished):
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("this machine has more than a CPU")
    summary = read_json(finished.summary)
    assert (summary["status"], summary["device"], summary["num_steps"]) == ("finished", "cpu", 10)


def test_21_an_unknown_key_is_an_error_with_the_nearest_name(recipe):
    path = recipe({"model": {"path": "minilm"}, "data": {"train": "x.csv"}, "train": {"learning_rte": 1e-4}})
    with pytest.raises(ConfigError, match=r"did you mean train\.learning_rate\?"):
        load_config(path)


def test_22_f1_and_the_confusion_matrix_are_built_in(finished, tmp_path: Path):
    run = Path(shutil.copytree(finished.path, tmp_path / "run"))
    metrics = lorafy.evaluate(run)["metrics"]
    assert {"accuracy", "f1_macro", "f1_weighted", "precision_macro", "recall_macro", "per_class"} <= set(metrics)
    assert sum(map(sum, metrics["confusion_matrix"])) == 16
    assert read_json(run / "eval_results.json")["metrics"] == metrics


def test_24_same_seed_same_bytes(short, finished, tmp_path: Path):
    again = train(short, tmp_path / "run")
    name = "adapter_model.safetensors"
    assert (again.adapter / name).read_bytes() == (finished.adapter / name).read_bytes()


def test_25_the_vocabulary_keeps_its_size(finished, short, tmp_path: Path):
    base = load_classifier(short.model, ["ham", "spam"], 0, 0).model.get_input_embeddings().weight
    lorafy.merge(finished.path, tmp_path / "merged")
    assert torch.equal(load_trained(tmp_path / "merged").model.get_input_embeddings().weight, base)
    assert not any("embed" in name for name in load_file(finished.adapter / "adapter_model.safetensors"))
