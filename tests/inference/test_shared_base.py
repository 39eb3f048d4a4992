"""Several adapters on one base: each answers as it would alone, and the base is in memory once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import lorafy
from lorafy.inference.adapters import Adapters
from lorafy.models.embedded import resolve
from lorafy.run_directory import RunDirectory
from lorafy.types import ConfigError, ModelError
from several import alone, config_of, folder_of, news_csv

TEXTS = ["win a free phone , call now", "ok", "see you at lunch tomorrow", "", "the bank in item 3"]
METHODS = {
    "plain": {"method": "lora", "r": 4},
    "rslora": {"method": "lora", "r": 8, "use_rslora": True, "rank_pattern": {"query": 2}},
    "dora": {"method": "dora", "r": 4},
    "pissa": {"method": "pissa", "r": 4},
    "adalora": {"method": "adalora", "r": 4},
    "head": {"method": "none"},
}


@pytest.fixture(scope="module")
def runs(tiny_bert: Path, sms_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunDirectory]:
    """A run of each method, of two and of four labels in turn. Read them only."""
    folder = tmp_path_factory.mktemp("runs")
    news = news_csv(folder / "news.csv")
    return {
        name: alone(
            config_of(tiny_bert, news if index % 2 else sms_csv, folder, name, adapter=adapter, run={"seed": index}),
            folder,
        )
        for index, (name, adapter) in enumerate(METHODS.items())
    }


def of(runs: dict[str, RunDirectory], **sections: Any) -> dict[str, Any]:
    return {"adapters": {name: str(run.path) for name, run in runs.items()}, **sections}


def models_of(adapters: Adapters) -> list[Any]:
    """The torch models behind them."""
    found = []
    for name in adapters:
        model = adapters.adapter(name)
        found.append(model._trained.model if hasattr(model, "_trained") else model._speakers._trained.model)
    return found


def num_bytes(models: Sequence[Any]) -> int:
    """Of all Parameters and buffers, memory that several look at counted once."""
    tensors = [tensor for model in models for tensor in (*model.parameters(), *model.buffers())]
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors if tensor.numel()}.values())


def assert_one_base(adapters: Adapters, base_bytes: int, own_bytes: int) -> None:
    """All models together hold one base and what is their own; each of them alone holds the whole base."""
    models = models_of(adapters)
    assert all(num_bytes([model]) >= base_bytes for model in models)
    assert num_bytes(models) <= base_bytes + own_bytes


def test_every_method_beside_the_others_says_what_it_says_alone(runs: dict[str, RunDirectory]) -> None:
    together = lorafy.load(of(runs))
    assert together.names == list(runs) and len(together) == len(runs)
    expected = {name: lorafy.load(run.path).predict(TEXTS) for name, run in runs.items()}
    for _ in range(2):  # one after the other, and again
        for name in (*reversed(together.names), *together.names):
            assert together.adapter(name).predict(TEXTS) == expected[name], name
    assert together.adapter("plain").labels != together.adapter("rslora").labels


def test_the_base_is_in_memory_once(runs: dict[str, RunDirectory]) -> None:
    together = lorafy.load(of(runs))
    base = num_bytes([lorafy.load(runs["head"].path)._trained.model])
    own = sum(file.stat().st_size for run in runs.values() for file in folder_of(run).glob("*.safetensors"))
    # peft keeps a copy of each head beside the trained one, and AdaLoRA a number a layer.
    assert_one_base(together, base - 4096, 2 * own)
    first, *others = models_of(together)
    name = "encoder.layer.0.attention.self.query"
    weights = {next(p for n, p in model.named_parameters() if name in n and n.endswith("weight") and "lora_" not in n)
               for model in (first, *others)}  # fmt: skip
    assert len(weights) == 1, "the same Parameter, so that a move to a GPU moves it once"


def test_minilm_with_two_heads(shared_data: Path, tmp_path: Path) -> None:
    try:
        resolve("minilm", None)
    except ModelError as error:
        pytest.skip(str(error))
    files = {"sentiment": shared_data / "sst2" / "dev.tsv", "topic": shared_data / "agnews" / "test.csv"}
    sections = {"train": {"max_steps": 3, "batch_size": 8}, "data": {"max_rows": 60, "max_length": 48}}
    runs = {
        name: alone(config_of("minilm", file, tmp_path, name, **sections), tmp_path) for name, file in files.items()
    }
    together = lorafy.load(of(runs))
    texts = ["a fine film with a few long scenes", "Stocks rose on Wall Street", "it is dull"]
    for name, run in runs.items():
        assert together.adapter(name).predict(texts) == lorafy.load(run.path).predict(texts)
    sizes = [len(together.adapter(name).labels) for name in runs]
    assert sizes == [2, 4]
    adapters = sum((folder_of(run) / "adapter_model.safetensors").stat().st_size for run in runs.values())
    assert_one_base(together, 90_000_000, adapters + 100_000 + 1_700_000)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_language_models_with_and_without_trained_rows(stories: Path, tmp_path: Path, dtype: str) -> None:
    """One trains the row of the end token too. In bfloat16 the output layer, tied, gets a copy: one for both."""
    lines = "".join(f"Tell of {name}||Once {name} went home.\n" for name in ("Tom", "Lily", "Ben", "Sue", "Max") * 6)
    (tmp_path / "tales.txt").write_text(lines, encoding="utf-8")
    rows = {"rows": {}, "plain": {"trainable_token_indices": None, "r": 4}}
    runs = {
        name: alone(
            config_of(stories, tmp_path / "tales.txt", tmp_path, name, adapter=adapter, model={"dtype": dtype}),
            tmp_path,
        )
        for name, adapter in rows.items()
    }
    tensors = (folder_of(runs["rows"]) / "adapter_model.safetensors").read_bytes()
    assert b"trainable_tokens_delta" in tensors
    settings = {"max_new_tokens": 12, "temperature": 0.0}
    together = lorafy.load(of(runs))
    questions = ["Tell of Ben", "Tell of a dog that went home"]
    for _ in range(2):
        for name, run in runs.items():
            expected = lorafy.load(run.path)
            for base in (False, True):
                here = together.adapter(name).generate(questions, base=base, **settings)
                assert here == expected.generate(questions, base=base, **settings), (name, base)
    single = num_bytes(models_of(lorafy.load(of({"plain": runs["plain"], "again": runs["plain"]})))[:1])
    own = sum((folder_of(run) / "adapter_model.safetensors").stat().st_size for run in runs.values())
    assert num_bytes(models_of(together)) <= single + own


def test_the_recipe_says_how_all_are_asked(stories: Path, tmp_path: Path) -> None:
    lines = "".join(f"Who is {number}||Tom went home.\n" for number in range(20))
    (tmp_path / "tales.txt").write_text(lines, encoding="utf-8")
    config = config_of(stories, tmp_path / "tales.txt", tmp_path, "one", generation={"max_new_tokens": 3})
    run = alone(config, tmp_path)
    tree = of({"one": run})
    assert lorafy.load(tree).adapter("one").generate(["Who"])[0].num_tokens <= 3
    assert lorafy.load(tree, ["generation.max_new_tokens=1"]).adapter("one").generate(["Who"])[0].num_tokens <= 1
    stated = {**tree, "generation": {"max_new_tokens": 2, "temperature": 0}}
    assert lorafy.load(stated).adapter("one").generate(["Who"])[0].num_tokens <= 2


def test_the_recipe_may_say_where_the_base_lies(runs: dict[str, RunDirectory], tiny_bert: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(tiny_bert, moved)
    two = {name: runs[name] for name in ("plain", "dora")}
    together = lorafy.load(of(two, model={"path": str(moved), "dtype": "float32"}))
    assert together.adapter("dora").predict(TEXTS) == lorafy.load(runs["dora"].path).predict(TEXTS)


def problems_of(recipe: dict[str, Any]) -> list[tuple[str, str]]:
    with pytest.raises((ConfigError, ModelError)) as caught:
        lorafy.load(recipe)
    return [(problem.where, problem.message) for problem in caught.value.problems]


def test_what_cannot_lie_beside_others_is_refused(
    runs: dict[str, RunDirectory], tiny_bert: Path, base_models: dict[str, Path], sms_csv: Path, tmp_path: Path
) -> None:
    full = alone(config_of(tiny_bert, sms_csv, tmp_path, "full", adapter={"method": "full"}), tmp_path)
    ours = {"plain": runs["plain"]}
    found = problems_of({"adapters": {"full": str(full.path), "gone": str(tmp_path / "gone"), "x": str(tmp_path)}})
    assert [where for where, _ in found] == ["adapters.full", "adapters.gone", "adapters.x"]
    assert "whole model (full fine-tuning)" in found[0][1] and "no run or adapter" in found[1][1]
    other = alone(config_of(base_models["distilbert"], sms_csv, tmp_path, "other"), tmp_path)
    ((where, message),) = problems_of(of(ours | {"other": other}))
    assert where == "adapters.other" and "model.path" in message
    ((where, message),) = problems_of(of(ours, model={"path": str(base_models["bert"]), "quantise": None}) | {
        "model": {"path": str(_changed(tiny_bert, tmp_path / "changed"))}})  # fmt: skip
    assert where == "adapters.plain" and "trained on other weights" in message
    assert problems_of({"adapters": {}})[0][0] == "adapters"
    with pytest.raises(ConfigError, match="there is no adapter 'plan'"):
        lorafy.load(of(ours)).adapter("plan")


def _changed(base: Path, folder: Path) -> Path:
    from transformers import BertModel

    model = BertModel.from_pretrained(base)
    with torch.no_grad():
        next(model.parameters()).add_(1e-3)
    shutil.copytree(base, folder)
    model.save_pretrained(folder)
    return folder


def test_an_adapter_of_another_tool_that_changes_the_base_is_refused(
    runs: dict[str, RunDirectory], tiny_bert: Path, tmp_path: Path
) -> None:
    """peft takes PiSSA's start out of the base where it loads such a folder, and puts trained biases into it."""
    from peft import LoraConfig, get_peft_model
    from transformers import BertForSequenceClassification, BertTokenizer

    ways: dict[str, dict[str, Any]] = {"pissa": {"init_lora_weights": "pissa"}, "bias": {"bias": "all"}}
    for name, settings in ways.items():
        model = get_peft_model(
            BertForSequenceClassification.from_pretrained(tiny_bert),
            LoraConfig(task_type="SEQ_CLS", target_modules=["query"], modules_to_save=["classifier"], **settings),
        )
        for parameter in model.parameters():
            parameter.data += 0.01 * parameter.requires_grad
        model.save_pretrained(str(tmp_path / name))
        BertTokenizer.from_pretrained(tiny_bert).save_pretrained(tmp_path / name)
        config = tmp_path / name / "adapter_config.json"
        written = json.loads(config.read_text(encoding="utf-8")) | {"base_model_name_or_path": str(tiny_bert)}
        config.write_text(json.dumps(written), encoding="utf-8")
        recipe = {"adapters": {"plain": str(runs["plain"].path), name: str(tmp_path / name)}}
        ((where, message),) = problems_of(recipe)
        assert where == f"adapters.{name}" and "changes the base's own weights" in message
