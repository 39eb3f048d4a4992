"""The records of a vision-language model: every picture found and looked at, every bad one named at once."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from lorafy.config import load_config, parse_config
from lorafy.data.corpus import Corpus
from lorafy.data.pictures import PictureRecords, look_at
from lorafy.data.saved import save_encoded
from lorafy.tasks import read_corpus
from lorafy.types import PICTURE_MARK, DataError, Features, Picture, PlacedPicture
from picture_files import animated, exif, png_of_size, quarters, saved, truncated

GOOD, OTHER = saved(quarters()), saved(quarters(8, 8))


def rows(*pictures: Any, question: str = "<image>What?") -> list[dict[str, Any]]:
    talk = [{"role": "user", "content": question}, {"role": "assistant", "content": "A cat."}]
    return [{"messages": talk, "images": several} for several in pictures]


def write(path: Path, content: bytes | list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, list):
        path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    else:
        path.write_bytes(content)
    return path


def read(train: Path | str, task: str = "vision_language", **data: Any) -> Corpus:
    data = {key: str(value) if isinstance(value, Path) else value for key, value in data.items()}
    tree = {"model": {"path": "minilm"}, "task": task, "data": {"train": str(train), **data}}
    return read_corpus(parse_config(tree, "the test"))


def refused(train: Path | str, **more: Any) -> list[Any]:
    with pytest.raises(DataError) as caught:
        read(train, **more)
    return caught.value.problems


def shown(corpus: Corpus, split: str = "train") -> list[Picture]:
    return [picture for row in corpus.splits[split] for picture in row.pictures]


KEEP: dict[str, Any] = {"split": [1, 0, 0]}
"""All rows are train."""


def test_paths_begin_at_the_data_files_folder_and_each_picture_gets_its_facts(tmp_path: Path) -> None:
    write(tmp_path / "data" / "images" / "a.png", GOOD)
    write(tmp_path / "data" / "b.jpg", saved(quarters(), "JPEG", exif=exif(6)))
    absolute = write(tmp_path / "elsewhere" / "c.png", OTHER)
    file = write(
        tmp_path / "data" / "a.jsonl", rows("images/a.png", ["./b.jpg"], str(absolute), None, question="What?")
    )
    corpus = read(file, **KEEP)
    a, b, c = shown(corpus)
    assert (a.name, a.path) == ("images/a.png", str(tmp_path / "data" / "images" / "a.png"))
    assert a.sha256 == hashlib.sha256(GOOD).hexdigest()
    assert (a.width, a.height, b.width, b.height) == (24, 16, 16, 24)
    assert (c.name, c.width) == (str(absolute), 8)
    assert [row.messages[0].content for row in corpus.splits["train"]] == [f"{PICTURE_MARK}What?"] * 3 + ["What?"]


def test_a_folder_of_the_recipes(tmp_path: Path) -> None:
    write(tmp_path / "pictures" / "a.png", GOOD)
    file = write(tmp_path / "data" / "a.jsonl", rows("a.png"))
    assert shown(read(file, images=tmp_path / "pictures", **KEEP))[0].width == 24
    (problem,) = refused(file, images=tmp_path / "nowhere")
    assert (problem.where, problem.message) == ("data.images", f"no such folder: {tmp_path / 'nowhere'}")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model: {path: minilm}\ndata: {train: data/a.jsonl, images: pictures}\n", encoding="utf-8")
    assert load_config(recipe).data.images == str(tmp_path / "pictures")


def test_bytes_need_no_folder_and_equal_bytes_are_equal_pictures(tmp_path: Path) -> None:
    table = {"image": [{"bytes": GOOD, "path": "x.png"}] * 2 + [{"bytes": OTHER, "path": None}], "caption": ["A"] * 3}
    features = datasets.Features(image=datasets.Image(), caption=datasets.Value("string"))
    datasets.Dataset.from_dict(table, features=features).save_to_disk(str(tmp_path / "set"))
    corpus = read(tmp_path / "set", **KEEP)
    first, second, third = shown(corpus)
    assert first.sha256 == second.sha256 != third.sha256
    assert [picture.name for picture in (first, second, third)] == ["x.png", "x.png", "picture 1 of row 3"]
    one, two, other = corpus.splits["train"]
    assert (one.key, one.content) == (two.key, two.content)  # repeated rows are found by what they show
    assert one.key != other.key


def test_the_same_question_about_another_picture_is_another_question(tmp_path: Path) -> None:
    write(tmp_path / "a.png", GOOD)
    write(tmp_path / "copy.png", GOOD)
    write(tmp_path / "b.png", OTHER)
    corpus = read(write(tmp_path / "a.jsonl", rows("a.png", "copy.png", "b.png")), **KEEP)
    a, copy, b = (row.key for row in corpus.splits["train"])
    assert a == copy != b


def test_a_saved_sets_paths_begin_in_its_folder(tmp_path: Path) -> None:
    split = datasets.Dataset.from_list(rows("a.png"))
    datasets.DatasetDict(train=split, test=split).save_to_disk(str(tmp_path / "set"))
    write(tmp_path / "set" / "a.png", GOOD)
    corpus = read(tmp_path / "set", **KEEP)
    assert [shown(corpus, name)[0].width for name in ("train", "test")] == [24, 24]


def test_a_hub_data_sets_paths_need_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = datasets.Dataset.from_list(rows("a.png", "b.png"))
    hub = datasets.DatasetDict(train=split, test=split)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, subset: hub)
    problems = refused("somebody/cats")
    assert [problem.where for problem in problems] == ["data.train", "data.test"]
    assert "somebody/cats[train] is no file or folder here, so a.png (row 1) is nowhere" in problems[0].message
    assert "set data.images" in problems[0].fix
    for name in ("a.png", "b.png"):
        write(tmp_path / name, GOOD)
    assert len(shown(read("somebody/cats", images=tmp_path, **KEEP))) == 2


BAD = {
    "missing.png": (None, "no such file"),
    "empty.png": (b"", "the file is empty"),
    "text.png": (b"hello", "not a picture"),
    "cut.jpg": (truncated(), "the file is broken or cut off"),
    "moving.gif": (animated(), "it holds several frames"),
    "long.png": (saved(quarters(205, 1)), "205 x 1 pixels"),
    "bomb.png": (png_of_size(20_000, 9_000), "more than 179 megapixels"),
}


def test_every_bad_picture_is_named_with_its_rows_at_once(tmp_path: Path) -> None:
    for name, (content, _) in BAD.items():
        if content is not None:
            write(tmp_path / name, content)
    write(tmp_path / "good.png", GOOD)
    train = write(tmp_path / "train.jsonl", rows(*BAD, "good.png", *["cut.jpg"] * 7))
    test = write(tmp_path / "test.jsonl", rows("good.png", "cut.jpg", "gone.png"))
    problems = refused(train, test=test)
    of_train = [problem for problem in problems if problem.where == "data.train"]
    assert len(of_train) == len(BAD)
    for number, (name, (_, message)) in enumerate(BAD.items(), start=1):
        (found,) = [problem for problem in of_train if problem.message.startswith(f"{name}: {message}")]
        rows_named = "rows 4, 9, 10, 11, 12 and 3 more" if name == "cut.jpg" else f"row {number}"
        assert f"({rows_named} of {train})" in found.message
        assert found.fix
    assert [problem.message.split(":")[0] for problem in problems[len(BAD) :]] == ["cut.jpg", "gone.png"]
    assert "set data.images to the folder that the paths begin at" in problems[-1].fix


def test_every_row_with_a_wrong_count_is_named_at_once(tmp_path: Path) -> None:
    write(tmp_path / "a.png", GOOD)
    two = rows(["a.png"], ["a.png", "a.png"], [], ["a.png"], ["a.png", "a.png"])
    (problem,) = refused(write(tmp_path / "a.jsonl", two))
    assert "1 mark <image> in the questions, 2 pictures in the column of pictures (row 2)" in problem.message
    assert ", and so row 3, 5; 3 of 5 rows are like that" in problem.message
    mixed = [*rows(["a.png", "a.png"]), *rows("http://a.org/a.png"), *rows("a.png")]
    kinds = refused(write(tmp_path / "b.jsonl", mixed))
    assert [problem.where for problem in kinds] == ["data.columns.messages", "data.columns.images"]


def test_a_mark_without_a_picture_is_refused(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "<image>What?"}, {"role": "assistant", "content": "<image>"}]
    (problem,) = refused(write(tmp_path / "a.jsonl", [{"messages": talk}] * 3))
    assert "a question holds the mark <image>, and there is no picture for it (row 1)" in problem.message
    talk[0]["content"] = "What?"
    assert len(read(write(tmp_path / "b.jsonl", [{"messages": talk}] * 3), **KEEP).splits["train"]) == 3


def test_a_picture_is_question_enough_and_blank_rows_are_named_beside_bad_pictures(tmp_path: Path) -> None:
    write(tmp_path / "a.png", GOOD)
    captions: list[dict[str, Any]] = [{"image": "a.png", "caption": "A cat."}] * 3
    corpus = read(write(tmp_path / "a.jsonl", captions), **KEEP)
    assert [row.messages[0].content for row in corpus.splits["train"]] == [PICTURE_MARK] * 3
    blank = [*captions, {"image": "b.png", "caption": " "}, {"image": None, "caption": "A cat."}]
    messages = [problem.message for problem in refused(write(tmp_path / "b.jsonl", blank))]
    assert [message.split(" in ")[0] for message in messages[:2]] == [
        "1 of 5 rows without an answer",
        "1 of 5 rows without a question",
    ]
    assert messages[2].startswith("b.png: no such file")


def test_a_language_model_refuses_pictures(tmp_path: Path) -> None:
    write(tmp_path / "a.png", GOOD)
    file = write(tmp_path / "a.jsonl", rows("a.png", None, "a.png", question="What?"))
    (problem,) = refused(file, task="causal_lm")
    assert problem.where == "model.path"
    assert "pictures need a vision-language model; a language model learns from text alone (row 1)" in problem.message
    assert "2 of 3 rows are like that" in problem.message
    with pytest.raises(DataError, match="no effect on causal_lm"):
        read(file, task="causal_lm", max_pixels=65_536)


def test_a_column_of_pictures_has_no_effect_on_labelled_texts(tmp_path: Path) -> None:
    labelled = [{"text": f"t {number}", "label": number % 2, "photo": "a.png"} for number in range(40)]
    file = write(tmp_path / "a.jsonl", labelled)
    (problem,) = refused(file, task="auto", columns={"images": "photo"})
    assert (problem.where, problem.message) == ("data.columns.images", "no effect on data in the format labelled")


def test_bytes_beside_labelled_texts_do_not_matter(tmp_path: Path) -> None:
    table = {
        "image": [GOOD] * 40,
        "text": [f"t {number}" for number in range(40)],
        "label": [number % 2 for number in range(40)],
    }
    features = datasets.Features(
        image=datasets.Image(), text=datasets.Value("string"), label=datasets.ClassLabel(names=["a", "b"])
    )
    datasets.Dataset.from_dict(table, features=features).save_to_disk(str(tmp_path / "set"))
    datasets.Dataset.from_dict(table, features=features).to_parquet(tmp_path / "a.parquet")
    for source in ("set", "a.parquet"):
        corpus = read(tmp_path / source, task="auto")
        assert corpus.task == "classification"
        encoded = {name: [Features([1], [0], row.row) for row in split] for name, split in corpus.splits.items()}
        save_encoded(corpus, encoded, tmp_path / f"encoded {source}")
        assert "image" not in datasets.load_from_disk(str(tmp_path / f"encoded {source}"))["train"].column_names


def test_encoded_rows_name_their_pictures(tmp_path: Path) -> None:
    picture = Picture("images/a.png", path="/images/a.png")
    features = {
        "train": [
            Features([5, 9, 9, 6], [-100, -100, -100, 6], 1, pictures=(PlacedPicture(picture, 1, 1, 2),)),
            Features([5, 6], [-100, 6], 2),
        ]
    }
    found = PictureRecords().to_dataset(None, features, "train")
    assert found["images"][:] == [["images/a.png"], []]
    assert found["labels"][:] == [[-100, -100, -100, 6], [-100, 6]]


def test_pictures_of_the_command_line(tmp_path: Path) -> None:
    write(tmp_path / "a.png", GOOD)
    pictures = [Picture("a.png", path="a.png"), Picture("bytes", data=OTHER)]
    a, b = look_at(pictures, tmp_path)
    assert (a.name, a.path, a.width, b.width) == ("a.png", str(tmp_path / "a.png"), 24, 8)
    with pytest.raises(DataError) as caught:
        look_at([*pictures, Picture("b.png", path="b.png"), Picture("c.png", path="c.png")], tmp_path)
    assert [problem.where for problem in caught.value.problems] == ["b.png", "c.png"]


def test_the_real_rows(shared_data: Path) -> None:
    folder = shared_data / "vlm"
    if not folder.is_dir():
        pytest.skip(f"the real pictures are not here: {folder}")
    corpus = read(folder / "train.jsonl", test=folder / "test.jsonl", **KEEP)
    pictures = [*shown(corpus), *shown(corpus, "test")]
    assert len(pictures) == 57 + 13
    assert len({picture.sha256 for picture in pictures}) == 13
    captions = read(folder / "captions.jsonl", **KEEP)
    assert {picture.sha256 for picture in shown(captions)} == {picture.sha256 for picture in pictures}
    assert all(256 <= max(picture.width, picture.height) <= 480 for picture in pictures)
