"""What a user may do wrong, through the command line: exit code 2, all mistakes told, no traceback, nothing written."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from command_line import Outcome

GOOD_LINES = "".join(f"{'ham' if i % 2 else 'spam'},text {i}\n" for i in range(40))


def entries(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


@pytest.fixture
def refused(lorafy: Callable[..., Outcome], recipe: Callable[..., Path], tmp_path: Path) -> Callable[..., str]:
    """Trains a recipe that cannot be trained and gives what stderr says, after checking what holds for all of them."""

    def train(tree: dict[str, Any] | str, *overrides: str, verb: str = "train") -> str:
        path = recipe(tree)
        before = entries(tmp_path)
        start = time.monotonic()
        outcome = lorafy(verb, path, *overrides)
        assert outcome.code == 2, outcome.stderr
        assert "Traceback" not in outcome.stderr
        assert outcome.stdout == ""
        assert " problem" in outcome.stderr.splitlines()[0]
        assert entries(tmp_path) == before
        assert time.monotonic() - start < 20
        return outcome.stderr

    return train


@pytest.mark.parametrize("verb", ["train", "prepare", "plan", "config"])
def test_each_verb_tells_all_mistakes_of_a_recipe(verb: str, refused: Callable[..., str]) -> None:
    tree = {"model": "minilm", "data": {"train": "x.csv"}, "adapter": {"r": 0}, "trian": {}, "learning_rte": 1}
    shown = refused(tree, "train.batch_size=many", "a.b", verb=verb)
    assert shown.splitlines()[0] == "6 problems:"
    for expected in (
        "a.b: an override is written section.key=value",
        "model: should be a section with keys below it, but it is 'minilm'",
        "-> write model: {path: minilm}",
        "adapter.r: should be greater than or equal to 1, but it is 0",
        "train.batch_size: should be a valid integer, but it is 'many' in the override train.batch_size=many",
        "trian: unknown key",
        "learning_rte: unknown key",
        "-> did you mean learning_rate?",
    ):
        assert expected in shown


def test_mistakes_in_data_and_model_path_come_together(refused: Callable[..., str], tmp_path: Path) -> None:
    tree = {"model": {"path": "nobody/no-such-model"}, "data": {"train": "sms.csv", "validation": "nobody/no-set"}}
    shown = refused(tree)
    assert shown.splitlines()[0] == "3 problems:"
    assert f"data.train: no such file: {tmp_path / 'sms.csv'}" in shown
    assert "data.validation: 'nobody/no-set' is no file here, and it could not be loaded from the hub" in shown
    assert "model.path: 'nobody/no-such-model' is no folder here, and it could not be loaded from the hub" in shown
    assert "without a network give the folder of a downloaded model, or use minilm" in shown


@pytest.mark.parametrize(
    ("content", "options", "message", "fix"),
    [
        (b"", {}, "the file is empty", ""),
        (b"label,text\n", {}, "a header line but no rows", ""),
        (b"ham,a\n" * 9, {}, "found no column for the text", "its position counted from 0"),
        (GOOD_LINES.replace("spam", "ham"), {}, "every training row has the label 'ham'", "two labels at least"),
        (GOOD_LINES + "ham,\n", {}, "1 of 41 rows without text", "fill them in or remove them"),
        (GOOD_LINES + ",a\n", {}, "1 of 41 rows without a label", "row 42"),
        (GOOD_LINES, {"columns": {"text": "txt"}}, "no column 'txt'", "did you mean text?"),
        (GOOD_LINES, {"labels": ["a", "b"]}, "labels ham, spam of train are neither", "2 names are given: a, b"),
        (GOOD_LINES, {"max_length": 100_000}, "100000 is over the limit", ""),
        (GOOD_LINES, {"split": [1, 0, 0]}, "nothing is held out", "leave data.split something"),
        (GOOD_LINES, {"subset": "sst2"}, "data.subset: no effect", "remove it"),
        (("label,text\n" + "".join(f"{i % 2},第{i}条新闻标题\n" for i in range(40))).encode("gb18030"), {},
         "not utf-8", "set data.encoding=gb18030"),
        (bytes(range(256)) * 20, {}, "not utf-8", "does not look like text"),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_data_that_cannot_be_trained_on(
    content: bytes | str, options: dict[str, Any], message: str, fix: str, refused: Callable[..., str],
    tiny_bert: Path, tmp_path: Path,
) -> None:  # fmt: skip
    raw = content if isinstance(content, bytes) else f"label,text\n{content}".encode()
    (tmp_path / "data.csv").write_bytes(raw)
    shown = refused({"model": {"path": tiny_bert}, "data": {"train": "data.csv", **options}})
    assert message in shown
    assert fix in shown


def test_a_label_only_in_validation_is_refused(refused: Callable[..., str], tiny_bert: Path, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("label,text\n" + GOOD_LINES, encoding="utf-8")
    (tmp_path / "dev.csv").write_text("label,text\nham,a\nphish,b\n", encoding="utf-8")
    shown = refused({"model": {"path": tiny_bert}, "data": {"train": "train.csv", "validation": "dev.csv"}})
    assert "data (labels): validation has labels that train does not show: 'phish' (rows: 1)" in shown


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/nowhere/model", "model.path: no such folder: /nowhere/model"),
        ("./model", "model.path: no such folder: "),
        ("google/no-such-bert", "model.path: 'google/no-such-bert' is no folder here"),
        ("a b/c/d", "model.path: 'a b/c/d' is no folder here"),
        (".", "model.path: no config.json in "),
    ],
)
def test_a_model_that_is_not_there(path: str, message: str, refused: Callable[..., str], sms_csv: Path) -> None:
    assert message in refused({"model": {"path": path}, "data": {"train": sms_csv}})


def test_targets_that_match_nothing_name_the_near_misses(
    refused: Callable[..., str], tiny_bert: Path, sms_csv: Path
) -> None:
    tree = {
        "model": {"path": tiny_bert},
        "data": {"train": sms_csv},
        "adapter": {"target_modules": ["q_lin", "valeu", "LayerNorm"]},
    }
    shown = refused(tree)
    assert shown.splitlines()[0] == "3 problems:"
    assert "adapter.target_modules: 'q_lin' matches no linear layer" in shown
    assert "linear layers of this model: dense, key, query, value" in shown
    assert "'valeu' matches no linear layer\n    -> did you mean value?" in shown
    assert "-> 'LayerNorm' is there, but it is a LayerNorm" in shown


@pytest.mark.parametrize("holds_run", [True, False])
def test_an_output_directory_that_holds_something_is_refused(
    holds_run: bool, refused: Callable[..., str], tiny_bert: Path, sms_csv: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    for name in ("config.yaml", "preflight.json") if holds_run else ("thesis.docx",):
        (folder / name).write_text("precious", encoding="utf-8")
    tree = {"run": {"name": "mine"}, "model": {"path": tiny_bert}, "data": {"train": sms_csv}}
    shown = refused(tree, f"run.output_dir={tmp_path / 'runs'}")
    assert f"{folder}: already holds {'a run' if holds_run else 'files'}" in shown
    assert "choose another name: run.name=" in shown
    assert ("--resume" in shown) == holds_run


@pytest.mark.parametrize("name", ["recipe.yml", "recipes", "nothing"])
def test_a_recipe_that_is_not_there(name: str, lorafy: Callable[..., Outcome], tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    outcome = lorafy("train", tmp_path / name)
    assert outcome.code == 2
    assert "Traceback" not in outcome.stderr
    assert ("this folder holds no run" if name == "recipes" else "no such recipe") in outcome.stderr


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        (["one text", "--input", "a.csv"], b"", "predict: texts and --input are both given"),
        (["one text", "--column", "a"], b"", "--column: no effect without a table as --input"),
        (["--input", "missing.csv"], b"", "--input: no such file"),
        (["--input", "missing.txt"], b"", "--input: no such file: missing.txt"),
        (["--input", "."], b"", "--input: "),
        (["--input", "ok.csv", "--column", "txt"], b"", "--column: no column 'txt'"),
        (["--input", "zh.txt"], b"", "zh.txt: not UTF-8, line 2"),
        ([], "ok\n体育\n".encode("gb18030"), "stdin: not UTF-8, line 2"),
        ([], b"\n \n", "stdin: no text was given"),
    ],
)
def test_texts_that_predict_cannot_read(
    arguments: list[str], stdin: bytes, message: str, lorafy: Callable[..., Outcome], tiny_bert: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("ok.csv").write_text("label,text\n" + GOOD_LINES, encoding="utf-8")
    Path("zh.txt").write_bytes("ok\n体育\n".encode("gb18030"))
    outcome = lorafy("predict", tiny_bert, *arguments, stdin=stdin)
    assert outcome.code == 2
    assert message in outcome.stderr
    assert "Traceback" not in outcome.stderr


@pytest.mark.parametrize("verb", ["evaluate", "verify", "predict"])
def test_a_model_argument_that_is_nothing(verb: str, lorafy: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = lorafy(verb, tmp_path / "no-such-run", *(["a text"] if verb == "predict" else []))
    assert outcome.code == 2
    assert "no-such-run" in outcome.stderr
    assert "Traceback" not in outcome.stderr
