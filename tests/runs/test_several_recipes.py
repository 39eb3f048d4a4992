"""Recipes over one base, trained in turn: each run is the run that it would have been alone."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import lorafy
from lorafy.models.embedded import resolve
from lorafy.models.load import load_whole, load_with_head
from lorafy.models.shelf import Shelf
from lorafy.types import ModelError, UserError
from lorafy.workflows import train_several
from several import alone, config_of, in_turn, news_csv, sha256
from trained_runs import assert_same_run, kill_after

METHODS = ("lora", "pissa", "none", "full", "olora", "dora", "adalora", "lora")


def adapter_of(method: str) -> dict[str, Any]:
    return {"method": method} if method in ("none", "full") else {"method": method, "r": 4, "dropout": 0.1}


@pytest.mark.parametrize("kernels", ["auto", "reference"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_each_run_is_the_one_it_would_be_alone(
    tiny_bert: Path, sms_csv: Path, tmp_path: Path, kernels: str, dtype: str
) -> None:
    """Methods that change the base's weights stand between others, and heads of two and of four labels."""
    news = news_csv(tmp_path / "news.csv")
    configs = [
        config_of(
            tiny_bert,
            news if index % 2 else sms_csv,
            tmp_path / "together",
            f"run-{index}",
            adapter=adapter_of(method),
            train={"kernels": kernels},
            model={"dtype": dtype},
            run={"seed": index},
        )
        for index, method in enumerate(METHODS)
    ]
    for run, config, method in zip(in_turn(configs), configs, METHODS, strict=True):
        expected = alone(config, tmp_path / "alone")
        assert sha256(run, method) == sha256(expected, method), method
        assert_same_run(run, expected)


def test_minilm_is_the_same_behind_another_head(shared_data: Path, tmp_path: Path) -> None:
    try:
        resolve("minilm", None)
    except ModelError as error:
        pytest.skip(str(error))
    sections: dict[str, Any] = {"train": {"max_steps": 3, "batch_size": 8}, "data": {"max_rows": 60, "max_length": 48}}
    for kernels in ("auto", "reference"):
        sections["train"]["kernels"] = kernels
        folder = tmp_path / kernels
        files = {"one": shared_data / "sst2" / "dev.tsv", "two": shared_data / "agnews" / "test.csv"}
        configs = [config_of("minilm", file, folder / "together", name, **sections) for name, file in files.items()]
        for run, config in zip(in_turn(configs), configs, strict=True):
            assert_same_run(run, alone(config, folder / "alone"))


@pytest.mark.parametrize("name", ["gpt2", "opt", "llama", "qwen3"])
def test_language_models_too(language_bases: dict[str, Path], sums_json: Path, tmp_path: Path, name: str) -> None:
    configs = [
        config_of(language_bases[name], sums_json, tmp_path / "together", f"run-{seed}", run={"seed": seed})
        for seed in (1, 2)
    ]
    for run, config in zip(in_turn(configs), configs, strict=True):
        assert_same_run(run, alone(config, tmp_path / "alone"))


def test_the_base_is_read_once(
    language_bases: dict[str, Path], tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    read = []
    for auto in (AutoModelForCausalLM, AutoModelForSequenceClassification):
        whole = auto.from_pretrained

        def counted(path: Any, *args: Any, whole: Any = whole, **kwargs: Any) -> Any:
            read.append(path)
            return whole(path, *args, **kwargs)

        monkeypatch.setattr(auto, "from_pretrained", counted)
    shelf, section = Shelf(), lorafy_section(language_bases["qwen3"])
    first, again = (load_whole(section, AutoModelForCausalLM, 1, shelf).model for _ in range(2))
    assert len(read) == 1
    assert [p.data_ptr() for p in first.parameters()] == [p.data_ptr() for p in again.parameters()]
    assert not {id(p) for p in first.parameters()} & {id(p) for p in again.parameters()}
    assert again.generation_config.to_dict() == first.generation_config.to_dict()
    section = lorafy_section(tiny_bert)
    heads = [load_with_head(section, {"num_labels": size}, 0, size, shelf) for size in (2, 4)]
    assert len(read) == 2
    expected = load_with_head(section, {"num_labels": 4}, 0, 4)
    assert heads[1].new_names == expected.new_names and heads[1].fingerprint == expected.fingerprint
    for (name, ours), (_, theirs) in zip(
        heads[1].model.named_parameters(), expected.model.named_parameters(), strict=True
    ):
        assert (ours == theirs).all(), name
    assert heads[1].model.config.to_dict() == expected.model.config.to_dict()


def lorafy_section(path: Path) -> Any:
    from lorafy.config.schema import ModelSection

    return ModelSection(path=str(path))


def test_weights_that_were_written_into_are_noticed_and_loaded_again(tiny_bert: Path) -> None:
    shelf, section = Shelf(), lorafy_section(tiny_bert)
    base = load_with_head(section, {"num_labels": 2}, 0, 0, shelf)
    assert not shelf.drop_changed()
    next(base.model.bert.parameters()).data[0, 0] += 1e-6
    assert shelf.drop_changed()
    again = load_with_head(section, {"num_labels": 2}, 0, 0, shelf)
    expected = load_with_head(section, {"num_labels": 2}, 0, 0)
    assert all((a == b).all() for a, b in zip(again.model.parameters(), expected.model.parameters(), strict=True))


def test_a_head_of_the_checkpoint_of_another_size_is_not_lost(tiny_bert: Path, tmp_path: Path) -> None:
    """The base brings a head of three; the first recipe wants two, the second one the three."""
    head = load_with_head(lorafy_section(tiny_bert), {"num_labels": 3}, 0, 7).model
    head.save_pretrained(tmp_path / "three")
    section, shelf = lorafy_section(tmp_path / "three"), Shelf()
    first = load_with_head(section, {"num_labels": 2}, 0, 0, shelf)
    second = load_with_head(section, {"num_labels": 3}, 0, 0, shelf)
    assert first.new_names and not second.new_names
    assert (second.model.classifier.weight == head.classifier.weight).all()
    second.model.classifier.weight.data += 1  # its own, so that it may be trained in place
    assert not shelf.drop_changed()


def test_all_mistakes_come_before_any_training(
    tiny_bert: Path, base_models: dict[str, Path], sms_csv: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    configs = [
        config_of(tiny_bert, sms_csv, runs, "good"),
        config_of(base_models["roberta"], sms_csv, runs, "other-base"),
        config_of(tiny_bert, sms_csv, runs, "no-layer", adapter={"target_modules": ["qery"]}),
        config_of(tiny_bert, tmp_path / "absent.csv", runs, "no-data", model={"dtype": "bfloat16"}),
    ]
    with pytest.raises(UserError) as caught:
        in_turn(configs)
    wheres = [problem.where for problem in caught.value.problems]
    assert wheres[:2] == ["other-base.yaml: model.path", "no-data.yaml: model.dtype"]
    assert any(where.startswith("no-layer.yaml: adapter.target_modules") for where in wheres)
    assert any(where.startswith("no-data.yaml: data.train") for where in wheres)
    assert not runs.exists()


def test_a_run_of_the_same_name_is_refused(tiny_bert: Path, sms_csv: Path, tmp_path: Path) -> None:
    config = config_of(tiny_bert, sms_csv, tmp_path, "one")
    with pytest.raises(UserError, match="would train in the same folder"):
        train_several.check_all(
            [train_several.Planned("a.yaml", config, "a"), train_several.Planned("b.yaml", config, "b")], Shelf()
        )
    with pytest.raises(UserError, match="stands there more than once"):
        train_several.check_all([train_several.Planned("a.yaml", config, "a")] * 2, Shelf())


def test_where_it_stops_it_says_how_to_go_on(
    tiny_bert: Path, sms_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = io.StringIO()
    names = ("first", "second", "third")
    configs = [
        config_of(tiny_bert, sms_csv, tmp_path, name, train={"max_steps": 3 + index, "save_every": 1})
        for index, name in enumerate(names)
    ]
    kill_after(monkeypatch, 4, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        in_turn(configs, Console(file=shown, width=200))
    said = " ".join(shown.getvalue().split())
    assert f"Finished: {tmp_path / 'first'}." in said
    assert f"Stopped: second.yaml. Go on with it: lorafy train {tmp_path / 'second'} --resume" in said
    assert "Still to train: lorafy train third.yaml" in said
    assert not (tmp_path / "third").exists()


def test_the_api_names_the_recipe_of_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(lorafy.ConfigError) as caught:
        from lorafy.api import train_all

        train_all([tmp_path / "absent.yaml", {"model": {"path": "minilm"}}])
    assert [p.where for p in caught.value.problems] == [str(tmp_path / "absent.yaml"), "recipe 2: data"]
