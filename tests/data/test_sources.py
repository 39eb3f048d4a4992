"""Every form of data gives the same examples, and what cannot be read is refused with file, line and what to do."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pytest
from pyarrow import parquet

from lorafy.config.schema import DataSection
from lorafy.data.sources import Table, read_source
from lorafy.types import DataError

Load = Callable[..., Any]

ROWS = [
    ("ham", 'He said "hello, you" twice'),
    ("spam", "two\nlines; and a semicolon"),
    ("ham", "naïve 你好 £100"),
    ("spam", "plain"),
] * 10
"""With quotes, separators, line breaks and characters of several alphabets; each text ten times."""


def write(path: Path, content: str | bytes) -> Path:
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content, encoding="utf-8", newline="")
    return path


def quoted(separator: str, rows: list[tuple[str, str]], line_end: str = "\n") -> str:
    lines = [separator.join('"' + cell.replace('"', '""') + '"' for cell in row) for row in [("label", "text"), *rows]]
    return line_end.join(lines) + line_end


def records(rows: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"label": label, "text": text} for label, text in rows]


def as_parquet(path: Path, rows: list[tuple[str, str]]) -> None:
    parquet.write_table(pyarrow.Table.from_pylist(records(rows)), path)


def all_rows(corpus: Any) -> list[tuple[str, str]]:
    examples = [example for split in corpus.splits.values() for example in split]
    return [(example.label, example.text) for example in sorted(examples, key=lambda example: example.row)]


WRITERS: dict[str, Callable[[Path], Any]] = {
    "comma.csv": lambda path: write(path, quoted(",", ROWS)),
    "semicolon.csv": lambda path: write(path, quoted(";", ROWS)),
    "tab.csv": lambda path: write(path, quoted("\t", ROWS)),
    "bom.csv": lambda path: write(path, quoted(",", ROWS).encode("utf-8-sig")),
    "windows.csv": lambda path: write(path, quoted(",", ROWS, "\r\n")),
    "CAPITALS.CSV": lambda path: write(path, quoted(",", ROWS)),
    "list.json": lambda path: write(path, json.dumps(records(ROWS), ensure_ascii=False, indent=1)),
    "data.json": lambda path: write(path, json.dumps({"version": 1, "data": records(ROWS)})),
    "lines.json": lambda path: write(path, "\n".join(json.dumps(record) for record in records(ROWS))),
    "lines.jsonl": lambda path: write(path, "\n\n".join(json.dumps(record) for record in records(ROWS)) + "\n"),
    "arrow.parquet": lambda path: as_parquet(path, ROWS),
    "saved": lambda path: datasets.Dataset.from_list(records(ROWS)).save_to_disk(str(path)),
    "saved_dict": lambda path: datasets.DatasetDict(train=datasets.Dataset.from_list(records(ROWS))).save_to_disk(
        str(path)
    ),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_form_gives_the_same_examples(name: str, tmp_path: Path, load_data: Load) -> None:
    WRITERS[name](tmp_path / name)
    corpus = load_data(tmp_path / name)
    assert all_rows(corpus) == ROWS
    assert corpus.label_names == ["ham", "spam"]


def test_tsv_has_no_quoting_and_rows_are_line_numbers(tmp_path: Path, load_data: Load) -> None:
    """A stray quote must not swallow the lines after it."""
    lines = [f'{"ham" if number % 2 else "spam"}\t"stray {number}' for number in range(40)]
    for name, content in (
        ("a.tsv", "label\ttext\n" + "\n".join(lines)),
        ("mac.tsv", "label\ttext\r" + "\r".join(lines)),
    ):
        corpus = load_data(write(tmp_path / name, content))
        assert [text for _, text in all_rows(corpus)] == [f'"stray {number}' for number in range(40)]
        assert sorted(example.row for split in corpus.splits.values() for example in split) == list(range(2, 42))


def test_the_real_file_without_header_has_all_its_rows(shared_data: Path, load_data: Load) -> None:
    """Read with quoting, as pandas does by default, it gives 5,572."""
    original = load_data(shared_data / "sms_spam" / "SMSSpamCollection", columns={"label": 0, "text": 1})
    as_csv = load_data(shared_data / "sms_spam" / "sms_spam.csv")
    assert len(all_rows(original)) == 5_574
    assert all_rows(original) == all_rows(as_csv)


def test_pairs_nested_columns_and_label_kinds(tmp_path: Path, load_data: Load) -> None:
    nested = [
        {"q": {"title": [f"q {i}", "other"]}, "answers": [{"text": f"a {i}"}], "ok": i % 2 == 0} for i in range(40)
    ]
    path = write(tmp_path / "nested.jsonl", "\n".join(json.dumps(row) for row in nested))
    corpus = load_data(path, columns={"text": "q.title", "text_pair": "answers.text", "label": "ok"})
    example = corpus.splits["train"][0]
    number = example.row - 1
    assert (example.text, example.text_pair) == (f"q {number}", f"a {number}")
    assert corpus.label_names == ["false", "true"]

    for labels, names in (
        ([2.0, 10.0], ["2", "10"]),  # numbers by size, not by the alphabet
        ([1, 0], ["0", "1"]),
        ([-1, 1], ["-1", "1"]),  # a label like any other where some rows have another
        (["b", "a"], ["a", "b"]),
    ):
        table = pyarrow.table({"text": [f"t {i}" for i in range(40)], "label": [labels[i % 2] for i in range(40)]})
        parquet.write_table(table, tmp_path / "labels.parquet")
        assert load_data(tmp_path / "labels.parquet").label_names == names


def read(path: Path, **data: Any) -> Table:
    return read_source(str(path), DataSection(train=str(path), **data), "train")["train"]


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"], ids=repr)
def test_a_txt_file_is_one_text_a_line_and_rows_are_line_numbers(line_end: str, tmp_path: Path) -> None:
    lines = ["  once upon a time", "", "春眠不觉晓， 处处闻啼鸟 ", " \u3000", 'a "quote, a\ttab and || a mark']
    table = read(write(tmp_path / "stories.txt", line_end.join(lines) + line_end))
    assert table.columns == ["text"]
    assert list(table.rows) == [1, 3, 5]
    assert [record["text"] for record in table.records] == [lines[0], lines[2], lines[4]]


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"], ids=repr)
def test_a_txt_file_of_meanings_and_references_has_a_prompt_and_a_completion(line_end: str, tmp_path: Path) -> None:
    """The E2E NLG challenge as the LoRA paper's code keeps it."""
    lines = ["", "name : A | area : x||A is in x . ", "名字 : 甲 || 甲在这里。", "", "a single | stays||b", "||"]
    table = read(write(tmp_path / "e2e.txt", line_end.join(lines)))
    assert table.columns == ["prompt", "completion"]
    assert list(table.rows) == [2, 3, 5, 6]
    assert [tuple(record.values()) for record in table.records] == [
        ("name : A | area : x", "A is in x ."),
        ("名字 : 甲", "甲在这里。"),
        ("a single | stays", "b"),
        ("", ""),
    ]


def test_a_txt_file_with_tabs_is_a_table(tmp_path: Path, load_data: Load) -> None:
    lines = [f"{'ham' if number % 2 else 'spam'}\ta || b {number}" for number in range(40)]
    named = load_data(write(tmp_path / "named.txt", "label\ttext\n" + "\n".join(lines)))
    bare = load_data(write(tmp_path / "bare.txt", "\n".join(lines)), columns={"label": 0, "text": 1})
    assert all_rows(named) == all_rows(bare) == [tuple(line.split("\t")) for line in lines]


def test_a_txt_file_in_another_encoding_is_named_and_then_works(tmp_path: Path) -> None:
    path = write(tmp_path / "poem.txt", "春眠不觉晓，处处闻啼鸟。\n夜来风雨声，花落知多少。\n".encode("gb18030"))
    with pytest.raises(DataError, match=r"set data\.encoding=gb18030"):
        read(path)
    assert read(path, encoding="gb18030").records[1] == {"text": "夜来风雨声，花落知多少。"}


def test_the_real_meanings_and_references(shared_data: Path) -> None:
    for name, rows in (("test.txt", 4_693), ("valid.txt", 4_672)):
        table = read(shared_data / "e2e_nlg" / name)
        assert (table.columns, len(table.records)) == (["prompt", "completion"], rows)
        assert list(table.rows) == list(range(1, rows + 1))
        assert all(cell and cell == cell.strip() for record in table.records for cell in record.values())
        assert all(record["prompt"].startswith("name : ") for record in table.records)


def test_an_object_around_the_list_is_looked_through(tmp_path: Path) -> None:
    rows = [{"question": "你好？", "answer": "你好！"}, {"question": "q", "answer": "a"}]
    table = read(write(tmp_path / "a.json", json.dumps({"version": 1, "data": rows}, ensure_ascii=False)))
    assert list(table.records) == rows


def saved_glue(folder: Path) -> Path:
    """Like GLUE's SST-2: class indices with names that are not in alphabetical order, and a test split of -1."""
    features = datasets.Features(
        {
            "sentence": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["positive", "negative"]),
            "idx": datasets.Value("int32"),
        }
    )

    def split(name: str, rows: int, label: Callable[[int], int]) -> Any:
        columns = {
            "sentence": [f"{name} {i}" for i in range(rows)],
            "label": [label(i) for i in range(rows)],
            "idx": list(range(rows)),
        }
        return datasets.Dataset.from_dict(columns, features=features)

    splits = datasets.DatasetDict(
        train=split("train", 60, lambda i: i % 2),
        validation=split("dev", 20, lambda i: i % 2),
        test=split("hidden", 30, lambda i: -1),
    )
    splits.save_to_disk(str(folder))
    return folder


def test_a_saved_set_keeps_its_splits_and_label_order_and_an_unlabelled_test_is_not_scored(
    tmp_path: Path, load_data: Load
) -> None:
    corpus = load_data(saved_glue(tmp_path / "glue"))
    assert {name: len(rows) for name, rows in corpus.splits.items()} == {"train": 60, "validation": 20}
    assert corpus.label_names == ["positive", "negative"]
    assert [example.label for example in corpus.splits["train"][:2]] == ["positive", "negative"]
    assert corpus.scored_split == "validation"
    assert [note.message for note in corpus.notes] == ["the test split has no labels (30 rows): not scored"]
    # The same by names of splits: only what is asked for is taken.
    only = load_data(tmp_path / "glue", validation=tmp_path / "glue")
    assert sorted(only.splits) == ["train", "validation"]


def test_an_unlabelled_file_of_minus_ones_is_not_scored_either(tmp_path: Path, load_data: Load) -> None:
    train = write(tmp_path / "train.csv", "label,text\n" + "".join(f"{i % 2},t {i}\n" for i in range(40)))
    test = write(tmp_path / "test.csv", "label,text\n" + "".join(f"-1,x {i}\n" for i in range(9)))
    corpus = load_data(train, test=test)
    assert corpus.notes[0].message == "the test split has no labels (9 rows): not scored"
    assert corpus.notes[0].fix == "give labelled data as data.test"
    assert {name: len(rows) for name, rows in corpus.splits.items()} == {"train": 28, "validation": 4, "test": 8}
    assert corpus.label_names == ["0", "1"]


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("gb18030", "{}号新闻的标题，体育频道"),
        ("big5", "第{}條新聞標題，臺灣的讀者很多"),
        ("utf-16", "message {} with a mark"),
        ("utf-16-le", "message {} without a mark"),
        ("cp1252", "café numéro {} – déjà vu à l’hôtel"),
    ],
)
def test_another_encoding_is_named_and_then_works(encoding: str, text: str, tmp_path: Path, load_data: Load) -> None:
    body = "label,text\n" + "".join(f"{i % 2},{text.format(i)}\n" for i in range(40))
    path = write(tmp_path / "data.csv", body.encode(encoding))
    with pytest.raises(DataError) as caught:
        load_data(path)
    assert f"it looks like {encoding}: set data.encoding={encoding}" in str(caught.value)
    assert str(path) in str(caught.value)
    assert [text for _, text in all_rows(load_data(path, encoding=encoding))] == [text.format(i) for i in range(40)]


def test_utf8_read_as_another_encoding_is_refused_instead_of_garbled(tmp_path: Path, load_data: Load) -> None:
    path = write(tmp_path / "data.csv", "label,text\n" + "".join(f"{i % 2},café {i}\n" for i in range(40)))
    for encoding in ("cp1252", "ascii", "utf-16", "gb18030"):
        with pytest.raises(DataError, match=r"remove data\.encoding"):
            load_data(path, encoding=encoding)
    with pytest.raises(DataError, match=r"data\.encoding: unknown encoding 'utf-99'"):
        load_data(path, encoding="utf-99")


GOOD_LINES = "".join(f"{'ham' if i % 2 else 'spam'},text {i}\n" for i in range(40))
NOISE = random.Random(0).randbytes(5_000)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "data.train: the file is empty: {path}"),
        ("a.csv", b"\xef\xbb\xbf", "the file is empty: {path}"),
        ("a.csv", "\n \n", "the file is empty: {path}"),
        ("a.csv", "label,text\n", "the file has a header line but no rows: {path}"),
        ("a.json", "[]", "the file has no rows: {path}"),
        ("a.csv", "label,text\n" + GOOD_LINES + "ham\n", "2 columns expected in {path}, but not so in line 42"),
        ("a.csv", "label,text\n" + "ham,a,b\n" * 9, "but not so in lines 2, 3, 4, 5, 6 and 4 more"),
        ("a.csv", 'label,text\nham,"open\n' + GOOD_LINES, "broken csv in {path}, line 2: unexpected end of data"),
        ("a.csv", 'label,text\nham,x\nham,"a" b\n', "broken csv in {path}, line 3"),
        ("a.csv", "text,text\nham,a\n", "columns with the same name in {path}: text"),
        ("a.tsv", "label\ttext\nham\ta\tb\n", "a cell of a .tsv file holds no tab"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text":\n\nxx\n', "broken json in {path}, lines 2, 4"),
        ("a.jsonl", '{"text": "a", "label": 1}\n["a"]\n', "not an object in {path}, line 2"),
        ("a.jsonl", '{"text": "a", "label": ' + "9" * 5000 + "}\n", "broken json in {path}, line 1"),
        ("a.json", '[{"text": "a"},\n{"text":}]', "broken json in {path}, line 2"),
        ("a.json", '{"text": ["a"], "label": [1]}', "should hold a list of objects"),
        ("a.json", '["a", "b"]', "not an object in {path}, items 1, 2"),
        ("a.json", "[" * 100_000, "broken json in {path}"),
        ("a.csv", NOISE, "it does not look like text (a renamed spreadsheet or archive?)"),
        ("a.jsonl", NOISE, "it does not look like text"),
        ("a.parquet", NOISE, "not a parquet file: {path}"),
        ("a.parquet", b"", "not a parquet file: {path}"),
        ("a.xlsx", NOISE, "unknown kind of file: {path}"),
        ("a.csv.gz", NOISE, "unknown kind of file: {path}"),
        ("a.md", "one text\n", "unknown kind of file: {path}"),
        ("a", "name : Blue Spice||A coffee shop .\n", "unknown kind of file: {path}"),
        ("a.txt", "\n \n", "the file is empty: {path}"),
        ("a.txt", "label\ttext\n", "the file has a header line but no rows: {path}"),
        ("a.txt", NOISE, "it does not look like text"),
        ("a.txt", "a||b\n\nno mark\na||b||c\n||\n", "one || in each line expected in {path}, but not so in lines 3, 4"),
        ("a.txt", "a||b||c\na||b\n", "but not so in line 1"),
        ("a.csv", "x" * 10_000_000, "the file has a header line but no rows"),
        ("a.jsonl", "x" * 10_000_000, "broken json in {path}, line 1"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_file_that_cannot_be_read_is_refused(
    name: str, content: str | bytes, message: str, tmp_path: Path, load_data: Load
) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(DataError) as caught:
        load_data(path)
    (problem,) = caught.value.problems
    assert message.format(path=path) in str(problem)
    assert problem.where == "data.train"


@pytest.mark.parametrize("content", [None, "{}", '{"splits": ["train"]}', "no json"])
def test_a_folder_that_is_no_saved_set(content: str | None, tmp_path: Path, load_data: Load) -> None:
    if content is not None:
        write(tmp_path / "dataset_dict.json", content)
    message = "is a folder, but not a saved data set" if content is None else "saved data set that cannot be loaded"
    with pytest.raises(DataError, match=f"data.train: .*{message}"):
        load_data(tmp_path)


def test_missing_files_are_told_together_with_the_nearest_name_and_other_mistakes(
    tmp_path: Path, load_data: Load
) -> None:
    train = write(tmp_path / "train.csv", "label,text\n" + GOOD_LINES)
    with pytest.raises(DataError) as caught:
        load_data(train, validation=tmp_path / "trian.csv", test=tmp_path / "no" / "x.csv", columns={"text": "txt"})
    shown = {problem.where: (problem.message, problem.fix) for problem in caught.value.problems}
    assert shown == {
        "data.validation": (f"no such file: {tmp_path / 'trian.csv'}", f"did you mean {train}?"),
        "data.test": (
            f"no such file: {tmp_path / 'no' / 'x.csv'}",
            f"the folder {tmp_path / 'no'} is not there either",
        ),
        "data.columns.text": (f"no column 'txt' in {train}; it has label, text", "did you mean text?"),
    }


@pytest.mark.parametrize("name", ["nobody/no-such-set", "imdb", "a/b/c/d", "x" * 5000], ids=lambda name: name[:20])
def test_a_hub_name_without_a_network_is_plain_and_quick(name: str, load_data: Load) -> None:
    start = time.monotonic()
    with pytest.raises(DataError) as caught:
        load_data(name)
    assert time.monotonic() - start < 5
    assert f"data.train: '{name}' is no file here, and it could not be loaded from the hub" in str(caught.value)
    assert "or give a file: lorafy reads .csv, .tsv, .txt, .json, .jsonl and .parquet" in str(caught.value)


def test_a_subset_of_a_file_has_no_effect_and_is_refused(sms_csv: Path, load_data: Load) -> None:
    with pytest.raises(DataError, match=r"data\.subset: no effect.*\n.*remove it"):
        load_data(sms_csv, subset="sst2")


def test_positions_on_a_file_with_a_header_line_are_refused(sms_csv: Path, load_data: Load) -> None:
    """Else `label` would silently become a class."""
    with pytest.raises(DataError, match=r"data\.columns: .* begins with a header line: label, text"):
        load_data(sms_csv, columns={"label": 0, "text": 1})


def test_positions_on_a_file_whose_header_line_names_questions_and_answers_are_refused(tmp_path: Path) -> None:
    """Else the names would be learned as a question and an answer."""
    path = write(tmp_path / "a.csv", "Instruction,output\nSay hi.,Hi.\n")
    with pytest.raises(DataError, match=r"data\.columns: .* begins with a header line: Instruction, output"):
        read(path, columns={"prompt": 0, "completion": 1})
