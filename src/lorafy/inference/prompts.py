"""Questions from an argument or a file, and answers to a file."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path
from typing import Any

from ..config.schema import Columns, DataSection
from ..data.sources import read_source
from ..pictures.placing import as_written
from ..plugins import load_plugin
from ..run_directory import write_text
from ..types import ConfigError, DataError, Message, Problem
from .generate import Answer
from .showing import Shown, all_pictures, seen, user_turn
from .tables import check_output, spreadsheet_cell

__all__ = ["answer_records", "check_output", "read_questions", "write_answers"]

MOST_ROWS = 20
"""Rows that are named one by one where many cannot be used."""


def read_questions(
    prompt: str | None, path: Path | None, system: str | None, images: Sequence[Shown] = ()
) -> list[list[Message]]:
    """Messages that end with a question, their pictures looked at; `images` are the prompt's.

    Raises ConfigError unless exactly one of prompt and file is given (pictures alone are a prompt too), and DataError
    with every row and picture that cannot be used.
    """
    if path is not None and images:
        message = "no effect with --input, whose rows name their own pictures"
        raise ConfigError(Problem("--image", message, "give a column images, or ask with --prompt"))
    if path is None and images:
        prompt = prompt or ""
    if (prompt is None) == (path is None):
        what = "is missing" if prompt is None else "and --input are both given"
        raise ConfigError(Problem("--prompt", what, "give --prompt TEXT, or --input FILE"))
    head = [] if system is None else [Message("system", system)]
    if prompt is not None:
        if not prompt.strip() and not images:
            raise ConfigError(Problem("--prompt", "is empty", "ask something"))
        return seen([[*head, user_turn(prompt, images, "--image")]])
    assert path is not None
    questions = _questions_of(path)
    empty = [row for row, messages in questions if not messages[-1].content.strip()]
    if empty:
        shown = ", ".join(map(str, empty[:5])) + (", ..." if len(empty) > 5 else "")
        raise DataError(Problem(str(path), f"{len(empty):,} rows without a question: row {shown}", "fill them in"))
    return [messages if messages[0].role == "system" else [*head, *messages] for _, messages in questions]


def _questions_of(path: Path) -> list[tuple[int, list[Message]]]:
    try:
        table = read_source(str(path.absolute()), DataSection(train=str(path)), "test")["test"]
    except DataError as error:
        raise DataError(replace(problem, where="--input") for problem in error.problems) from error
    if list(table.columns) == ["text"]:  # a line a question
        return [
            (row, [Message("user", str(record["text"]))]) for record, row in zip(table.records, table.rows, strict=True)
        ]
    chat = load_plugin("formats", "chat")
    form = chat if chat.recognises(table.columns, Columns()) else load_plugin("formats", "completion")
    columns = form.resolve_columns(table.columns, Columns(), table.source, answered=False)
    found, problems = [], []
    for record, row in zip(table.records, table.rows, strict=True):
        try:
            conversation = form.parse(record, columns, table.source, row, {})
        except DataError as error:
            problems += error.problems
            continue
        found.append((conversation.row, list(conversation.messages)))
    if problems:
        more = [Problem(str(path), f"{len(problems):,} rows are like that; the others are not named")]
        raise DataError([*problems[:MOST_ROWS], *(more if len(problems) > MOST_ROWS else [])])
    folder = path.absolute() if path.is_dir() else path.absolute().parent
    rows, conversations = [row for row, _ in found], [messages for _, messages in found]
    return list(zip(rows, seen(conversations, folder), strict=True))


def answer_records(
    questions: Sequence[Sequence[Message]], answers: Mapping[str, Sequence[Answer]]
) -> list[dict[str, Any]]:
    """For each question its text, with <image> where a picture stands, and all that is known of each voice's answer;
    with `images`, the names of its pictures, where any question shows some."""
    shown = [[picture.name for picture in all_pictures(messages)] for messages in questions]
    with_images = any(shown)
    return [
        {
            "prompt": as_written(messages[-1]),
            **({"images": shown[index]} if with_images else {}),
            **{voice: asdict(several[index]) for voice, several in answers.items()},
        }
        for index, messages in enumerate(questions)
    ]


def write_answers(questions: Sequence[Sequence[Message]], answers: Mapping[str, Sequence[Answer]], path: Path) -> None:
    """Writes .csv or .jsonl: a row a question, as `answer_records` has it; csv: the text of each voice, and a list of
    names, in JSON, as the cell of pictures."""
    records = answer_records(questions, answers)
    if path.suffix.lower() == ".jsonl":
        write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in records))
        return
    sheet = StringIO(newline="")
    writer = csv.writer(sheet, lineterminator="\n")
    writer.writerow(["prompt", *(["images"] if "images" in records[0] else []), *answers])
    for record in records:
        images = [json.dumps(record["images"], ensure_ascii=False)] if "images" in record else []
        cells = [record["prompt"], *images, *(record[voice]["text"] for voice in answers)]
        writer.writerow([spreadsheet_cell(cell) for cell in cells])
    write_text(path, sheet.getvalue())
