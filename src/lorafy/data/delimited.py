"""Text files become columns and rows of cells, each with its line number: csv, tsv, and the lines of a .txt file."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Sequence
from pathlib import Path

from ..config.schema import Columns
from ..formats import completion
from ..formats.labelled import USUAL_LABEL, USUAL_TEXT
from ..types import DataError, Problem

SHOWN_LINES = 5
SAMPLE_ROWS, SAMPLE_CHARACTERS = 20, 100_000

Rows = list[tuple[int, list[str]]]
"""A line number, counted from 1, and the cells of that line."""


def read_rows(text: str, path: Path, where: str, kind: str, headerless: bool) -> tuple[list[str], Rows]:
    """Names of columns and the rows of a .csv, .tsv or .txt file. Raises DataError with all the lines that are wrong.

    headerless: the recipe counts columns by position, so that the first line is a row too.
    """
    if kind == ".txt" and "\t" not in _lines(text)[0]:
        return _read_plain(text, path, where)
    # TSV has no quoting (as in GLUE and the UCI files): a stray quote must not swallow the lines after it.
    numbered = _read_csv(text, path, where) if kind == ".csv" else _split(text, "\t")
    if not numbered:
        raise DataError(Problem(where, f"the file is empty: {path}"))
    if headerless:
        columns = [str(position) for position in range(len(numbered[0][1]))]
        header = [name.strip().lower() for name in numbered[0][1]]
        has_labels = any(name in USUAL_TEXT for name in header) and any(name in USUAL_LABEL for name in header)
        if has_labels or completion.recognises(header, Columns()):
            message = f"{path} begins with a header line: {', '.join(numbered[0][1])}"
            raise DataError(Problem("data.columns", message, "name columns; positions are for files without one"))
    else:
        columns = [name.strip() for name in numbered.pop(0)[1]]
        repeated = sorted({name for name in columns if name and columns.count(name) > 1})
        if repeated:
            raise DataError(Problem(where, f"columns with the same name in {path}: {', '.join(repeated)}"))
    wrong = [number for number, cells in numbered if len(cells) != len(columns)]
    if wrong:
        fix = "quote cells that hold the separator" if kind == ".csv" else "a cell of a .tsv file holds no tab"
        message = f"{len(columns)} columns expected in {path}, but not so in {name_numbers(wrong, 'line')}"
        raise DataError(Problem(where, message, fix))
    return columns, numbered


def _read_plain(text: str, path: Path, where: str) -> tuple[list[str], Rows]:
    """One text a line; or `meaning||reference`, as the LoRA paper's code keeps the E2E NLG challenge."""
    numbered = [(number, cells) for number, cells in _split(text, "||") if len(cells) > 1 or cells[0].strip()]
    if len(numbered[0][1]) == 1:
        return ["text"], [(number, ["||".join(cells)]) for number, cells in numbered]
    wrong = [number for number, cells in numbered if len(cells) != 2]
    if wrong:
        message = f"one || in each line expected in {path}, but not so in {name_numbers(wrong, 'line')}"
        raise DataError(Problem(where, message, "write meaning||reference; plain texts have no || in their first line"))
    return ["prompt", "completion"], [(number, [cell.strip() for cell in cells]) for number, cells in numbered]


def _split(text: str, separator: str) -> Rows:
    """The cells of each line that is not blank, as they are."""
    return [(number, line.split(separator)) for number, line in enumerate(_lines(text), start=1) if line.strip(" ")]


def _lines(text: str) -> list[str]:
    if "\n" not in text:  # an old Mac's file
        return text.split("\r")
    return [line.rstrip("\r") for line in text.split("\n")]


def _read_csv(text: str, path: Path, where: str) -> Rows:
    limit = csv.field_size_limit(len(text) + 1)
    numbered, start = [], 1
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
        for cells in reader:
            if cells:  # an empty line has none; one of separators alone is a row without text
                numbered.append((start, cells))
            start = reader.line_num + 1
    except csv.Error as error:
        fix = "check the quotes there: a quote inside a quoted cell is written twice"
        raise DataError(Problem(where, f"broken csv in {path}, line {start}: {error}", fix)) from error
    finally:
        csv.field_size_limit(limit)
    return numbered


def _delimiter(text: str) -> str:
    """The separator that gives the first rows the same number of cells; spreadsheets write ; beside decimal commas."""
    sample = io.StringIO(text[:SAMPLE_CHARACTERS], newline="")
    for delimiter in ",;\t":
        sample.seek(0)
        rows = itertools.islice(csv.reader(sample, delimiter=delimiter), SAMPLE_ROWS)
        widths = {len(cells) for cells in rows if any(cells)}
        if len(widths) == 1 and max(widths) > 1:
            return delimiter
    return max(",;\t", key=text.split("\n", 1)[0].count)


def name_numbers(numbers: Sequence[int], noun: str) -> str:
    """`line 3`, `lines 3, 7` or `lines 1, 2, 3, 4, 5 and 12 more`."""
    shown = ", ".join(str(number) for number in numbers[:SHOWN_LINES])
    more = f" and {len(numbers) - SHOWN_LINES:,} more" if len(numbers) > SHOWN_LINES else ""
    return f"{noun if len(numbers) == 1 else noun + 's'} {shown}{more}"
