"""A pickle can hold commands: none of them runs, whichever file it is."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from strangers import change_json, write_pickle

from command_line import Outcome
from lorafy.config.schema import RunConfig
from lorafy.run_directory import RunDirectory
from lorafy.types import ModelError, RunError
from lorafy.workflows.load import load_trained
from tiny_models import build, make_config
from trained_runs import Killed, kill_after, train


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """The file that the commands in the pickles write."""
    return tmp_path / "ran"


@pytest.fixture
def base(tmp_path: Path, tiny_bert: Path) -> Path:
    folder = tmp_path / "base"
    shutil.copytree(tiny_bert, folder)
    return folder


def honest_pickle(folder: Path) -> None:
    """The folder's own weights in the old format."""
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def config(base: Path, data: Path) -> RunConfig:
    return make_config(base, data, train={"max_steps": 4, "batch_size": 8, "save_every": 2})


def test_a_recipes_pickle_is_read_without_commands_and_told(
    told: Callable[..., Outcome], base: Path, sms_csv: Path
) -> None:
    honest_pickle(base)
    built, _ = build(config(base, sms_csv))
    notes = [finding.message for finding in built.findings if finding.check == "weights"]
    assert len(notes) == 1 and "pytorch_model.bin" in notes[0] and "no code runs" in notes[0]
    assert "are a pickle (pytorch_model.bin)" in told("predict", base, "a text").stderr


def test_a_recipes_pickle_with_commands_is_refused(base: Path, sms_csv: Path, ran: Path) -> None:
    (base / "model.safetensors").unlink()
    write_pickle(base / "pytorch_model.bin", ran)
    with pytest.raises(ModelError, match="are a pickle that holds more than tensors"):
        build(config(base, sms_csv))
    assert not ran.exists()


def test_a_pickle_that_came_along_is_not_opened(
    base: Path, sms_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(config(base, sms_csv), tmp_path / "run")
    shutil.copytree(base, run.adapter / "base")
    settings = {"path": str(run.adapter / "base"), "dtype": "float32"}
    change_json(run.adapter / "lorafy.json", model=settings)
    assert load_trained(run.path).manifest is not None, "safetensors may come along"
    honest_pickle(run.adapter / "base")
    with pytest.raises(ModelError, match=r"came along with what is loaded, and are a pickle \(pytorch_model.bin\)"):
        load_trained(run.path)
    monkeypatch.chdir(run.adapter)  # a relative path means whatever folder one stands in
    change_json(run.adapter / "lorafy.json", model=settings | {"path": "base"})
    with pytest.raises(ModelError, match="are a pickle"):
        load_trained(run.path)


def test_an_index_names_no_other_files(base: Path, sms_csv: Path, tmp_path: Path) -> None:
    run = train(config(base, sms_csv), tmp_path / "run")
    shutil.copytree(base, run.adapter / "base")
    change_json(run.adapter / "lorafy.json", model={"path": str(run.adapter / "base")})
    weights = (run.adapter / "base" / "model.safetensors").rename(run.adapter / "base" / "one.safetensors")
    index = weights.with_name("model.safetensors.index.json")
    index.write_text('{"weight_map": {"a": "one.bin", "b": "../../two.safetensors"}}', encoding="utf-8")
    with pytest.raises(ModelError, match=r"names other files: \.\./\.\./two.safetensors, one.bin"):
        load_trained(run.path)


def test_an_adapters_pickle_is_refused(told: Callable[..., Outcome], base, sms_csv, tmp_path: Path, ran: Path) -> None:
    run = train(config(base, sms_csv), tmp_path / "run")
    (run.adapter / "adapter_model.safetensors").unlink()
    write_pickle(run.adapter / "adapter_model.bin", ran)
    for path in (run.path, run.adapter):
        done = told("predict", path, "a text")
        assert done.code == 2 and "save it in safetensors format" in done.stderr
    (run.adapter / "lorafy.json").unlink()
    assert told("predict", run.adapter, "a text").code == 2
    assert not ran.exists()


def test_a_fully_trained_models_pickle_is_refused(base: Path, sms_csv: Path, tmp_path: Path, ran: Path) -> None:
    settings = {"max_steps": 2, "batch_size": 8}
    run = train(make_config(base, sms_csv, adapter={"method": "full"}, train=settings), tmp_path / "run")
    (run.model / "model.safetensors").unlink()
    write_pickle(run.model / "pytorch_model.bin", ran)
    with pytest.raises(ModelError, match="are a pickle"):
        load_trained(run.path)
    assert not ran.exists()


def test_a_checkpoint_with_commands_is_refused(
    base: Path, sms_csv: Path, tmp_path: Path, ran: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        kill_after(patch, 3)
        with pytest.raises(Killed):
            train(config(base, sms_csv), tmp_path / "run")
    run = RunDirectory(tmp_path / "run")
    write_pickle(run.checkpoint(2) / "optimizer.pt", ran)
    with pytest.raises(RunError, match=r"optimizer.pt holds more than tensors"):
        train(config(base, sms_csv), tmp_path / "run", resume=True)
    assert not ran.exists()
