"""Questions from an argument or a file, and answers to a file."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path

from ..config.schema import Columns, DataSection
from ..data.sources import read_source
from ..plugins import load_plugin
from ..run_directory import write_text
from ..types import ConfigError, DataError, Message, Problem
from .generate import Answer
from .tables import check_output

__all__ = ["check_output", "read_questions", "write_answers"]


def read_questions(prompt: str | None, path: Path | None, system: str | None) -> list[list[Message]]:
    """Messages that end with a question. Raises ConfigError unless exactly one of prompt and file is given."""
    if (prompt is None) == (path is None):
        what = "is missing" if prompt is None else "and --input are both given"
        raise ConfigError(Problem("--prompt", what, "give --prompt TEXT, or --input FILE"))
    head = [] if system is None else [Message("system", system)]
    if prompt is not None:
        if not prompt.strip():
            raise ConfigError(Problem("--prompt", "is empty", "ask something"))
        return [[*head, Message("user", prompt)]]
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
    form = load_plugin("formats", "chat" if "messages" in table.columns else "completion")
    columns = form.resolve_columns(table.columns, Columns(), table.source, answered=False)
    conversations = [
        form.parse(record, columns, table.source, row, {})
        for record, row in zip(table.records, table.rows, strict=True)
    ]
    return [(conversation.row, list(conversation.messages)) for conversation in conversations]


def write_answers(prompts: Sequence[str], answers: Mapping[str, Sequence[Answer]], path: Path) -> None:
    """Writes .csv or .jsonl: a row a prompt, and the text (jsonl: all that is known) of each voice."""
    if path.suffix.lower() == ".jsonl":
        rows = [
            {"prompt": prompt, **{name: asdict(several[index]) for name, several in answers.items()}}
            for index, prompt in enumerate(prompts)
        ]
        write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        return
    sheet = StringIO(newline="")
    writer = csv.writer(sheet, lineterminator="\n")
    writer.writerow(["prompt", *answers])
    for index, prompt in enumerate(prompts):
        writer.writerow([prompt, *(several[index].text for several in answers.values())])
    write_text(path, sheet.getvalue())
