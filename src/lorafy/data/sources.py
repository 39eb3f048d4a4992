"""A file, a folder or a hub name becomes Tables: named columns and records with their line numbers.

Rows are never dropped here: a line that cannot be read is an error that names it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import charset_normalizer

from ..config.schema import DataSection
from ..types import DataError, Problem
from .delimited import name_numbers, read_rows

SPLIT_NAMES = {
    "train": ("train",),
    "validation": ("validation", "valid", "dev", "val", "validation_matched"),
    "test": ("test", "test_matched"),
}
"""What the splits of published data sets are called; the first that is there is taken."""

LIKELY_ENCODINGS = ["gb18030", "big5", "shift_jis", "euc_kr", "cp1252", "cp1251"]
KINDS = ".csv, .tsv, .txt, .json, .jsonl and .parquet files, a saved data set's folder, a hub data set's name"


@dataclass(frozen=True)
class Table:
    """Records of one split. `rows[i]` is the line (or record) number of `records[i]`, counted from 1.

    `label_names`: for columns that hold class indices (Hugging Face's ClassLabel), the names they stand for.
    """

    source: str
    columns: list[str]
    records: Sequence[Mapping[str, Any]]
    rows: Sequence[int]
    label_names: Mapping[str, list[str]] = field(default_factory=dict)


def read_tables(config: DataSection) -> tuple[dict[str, Table], list[Problem]]:
    """The tables of train, validation and test as far as they are given and can be read, and what is wrong."""
    tables: dict[str, Table] = {}
    problems: list[Problem] = []
    for split in ("train", "validation", "test"):
        spec = getattr(config, split)
        if spec is None:
            continue
        try:
            found = read_source(spec, config, split)
        except DataError as error:
            problems += error.problems
            continue
        for name, table in found.items():
            if name == split or (split == "train" and getattr(config, name) is None):
                tables[name] = table
    if config.subset is not None and not any(_is_hub_name(spec) for spec in _specs(config)):
        message = f"no effect, because data.train is no hub data set but {config.train}"
        problems.append(Problem("data.subset", message, "remove it"))
    return tables, problems


def _specs(config: DataSection) -> list[str]:
    return [spec for spec in (config.train, config.validation, config.test) if spec is not None]


def _is_hub_name(spec: str) -> bool:
    return not (Path(spec).is_absolute() or _kind_of(spec) != "nothing")


def _kind_of(spec: str) -> str:
    """`file`, `folder` or `nothing`."""
    try:
        path = Path(spec)
        return "file" if path.is_file() else "folder" if path.is_dir() else "nothing"
    except OSError:  # longer than a file name may be
        return "nothing"


def read_source(spec: str, config: DataSection, split: str) -> dict[str, Table]:
    """Reads one setting data.<split>. A data set with several splits gives them all, under our names."""
    where = f"data.{split}"
    path = Path(spec)
    kind = _kind_of(spec)
    if kind == "file":
        return {split: _read_file(path, config, where)}
    if kind == "folder":
        return _saved_data_set(path, where, split)
    if path.is_absolute():
        raise DataError(Problem(where, f"no such file: {path}", _nearest_file(path)))
    return _hub_data_set(spec, config.subset, where, split)


def _read_file(path: Path, config: DataSection, where: str) -> Table:
    kind = path.suffix.lower()
    if kind == ".parquet":
        return _read_parquet(path, where)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(Problem(where, f"cannot read {path}: {error.strerror}")) from error
    if kind not in (".csv", ".tsv", ".txt", ".json", ".jsonl"):
        if b"\t" not in raw.split(b"\n", 1)[0] or b"\0" in raw[:1000]:
            raise DataError(Problem(where, f"unknown kind of file: {path}", f"lorafy reads {KINDS}"))
        kind = ".tsv"
    text = _decode(raw, path, config.encoding, where)
    if not text.strip():
        raise DataError(Problem(where, f"the file is empty: {path}"))
    if kind in (".json", ".jsonl"):
        table = _read_json(text, path, where, lines=kind == ".jsonl")
    else:
        columns, numbered = read_rows(text, path, where, kind, config.columns.headerless)
        records = [dict(zip(columns, cells, strict=True)) for _, cells in numbered]
        table = Table(str(path), columns, records, [number for number, _ in numbered])
    if not table.records:
        what = "a header line but no rows" if kind in (".csv", ".tsv", ".txt") else "no rows"
        raise DataError(Problem(where, f"the file has {what}: {path}"))
    return table


def _decode(raw: bytes, path: Path, encoding: str, where: str) -> str:
    is_utf8 = encoding.lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig")
    try:
        text = raw.decode("utf-8-sig" if is_utf8 else encoding)
    except LookupError as error:
        fix = "use a name such as utf-8, gb18030, big5, cp1252"
        raise DataError(Problem("data.encoding", f"unknown encoding '{encoding}'", fix)) from error
    except UnicodeError as error:
        line = raw[: error.start if isinstance(error, UnicodeDecodeError) else 0].count(b"\n") + 1
        raise DataError(Problem(where, f"not {encoding}: {path}, line {line}", _encoding_fix(raw))) from error
    if "\0" in text[:1000]:  # UTF-16 without its mark is valid UTF-8, every other character a zero
        raise DataError(Problem(where, f"zero bytes in {path}: it is no text in {encoding}", _encoding_fix(raw)))
    if not is_utf8 and not raw.isascii() and _is_utf8(raw):
        # gb18030 and cp1252 read nearly any bytes, and make nonsense of these without a word.
        raise DataError(Problem("data.encoding", f"{path} is UTF-8, not {encoding}", "remove data.encoding"))
    return text


def _encoding_fix(raw: bytes) -> str:
    guess = _likely_encoding(raw)
    if guess is None:
        return "it does not look like text (a renamed spreadsheet or archive?): save it as csv in UTF-8"
    if guess == "utf-8":
        return "it looks like UTF-8: remove data.encoding"
    return f"it looks like {guess}: set data.encoding={guess}, or save the file as UTF-8"


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _likely_encoding(raw: bytes) -> str | None:
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    zeros = raw[:1000].count(b"\0")
    if zeros > len(raw[:1000]) // 4:
        odd = raw[1:1000:2].count(b"\0")
        return "utf-16-le" if odd > 0.9 * zeros else "utf-16-be" if odd < 0.1 * zeros else None
    if zeros:
        return None
    if _is_utf8(raw):
        return "utf-8"
    best = charset_normalizer.from_bytes(raw[:200_000], cp_isolation=LIKELY_ENCODINGS).best()
    return best.encoding if best else None


def _read_json(text: str, path: Path, where: str, lines: bool) -> Table:
    numbered = _json_lines(text, path, where) if lines else _json_list(text, path, where)
    wrong = [number for number, value in numbered if not isinstance(value, dict)]
    if wrong:
        message = f"not an object in {path}, {name_numbers(wrong, 'line' if lines else 'item')}"
        raise DataError(Problem(where, message, 'write {"text": ..., "label": ...}'))
    columns = list(dict.fromkeys(name for _, value in numbered for name in value))
    return Table(str(path), columns, [value for _, value in numbered], [number for number, _ in numbered])


def _json_list(text: str, path: Path, where: str) -> list[tuple[int, Any]]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg.startswith("Extra data"):  # one object a line, under the name .json
            return _json_lines(text, path, where)
        raise DataError(Problem(where, f"broken json in {path}, line {error.lineno}: {error.msg}")) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
        raise DataError(Problem(where, f"broken json in {path}: {error}")) from error
    if isinstance(values, dict) and isinstance(values.get("data"), list):
        values = values["data"]
    if not isinstance(values, list):
        fix = 'write [{"text": ..., "label": ...}, ...], or one such object a line'
        raise DataError(Problem(where, f"{path} should hold a list of objects", fix))
    return list(enumerate(values, start=1))


def _json_lines(text: str, path: Path, where: str) -> list[tuple[int, Any]]:
    numbered, broken = [], []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                numbered.append((number, json.loads(line)))
            except (ValueError, RecursionError) as error:
                broken.append((number, error.msg if isinstance(error, json.JSONDecodeError) else str(error)))
    if broken:
        message = f"broken json in {path}, {name_numbers([number for number, _ in broken], 'line')}: {broken[0][1]}"
        raise DataError(Problem(where, message, "each line is one complete JSON object"))
    return numbered


def _read_parquet(path: Path, where: str) -> Table:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except pyarrow.ArrowException as error:
        reason = str(error).split("\n")[0]
        raise DataError(Problem(where, f"not a parquet file: {path}", f"write it again; {reason}")) from error
    if not table.num_rows:
        raise DataError(Problem(where, f"the file has no rows: {path}"))
    return Table(str(path), table.column_names, table.to_pylist(), range(1, table.num_rows + 1))


def _saved_data_set(path: Path, where: str, split: str) -> dict[str, Table]:
    import datasets

    if not ((path / "dataset_dict.json").is_file() or (path / "state.json").is_file()):
        raise DataError(Problem(where, f"{path} is a folder, but not a saved data set", f"lorafy reads {KINDS}"))
    try:
        loaded = datasets.load_from_disk(str(path))
    except (OSError, ValueError, LookupError, TypeError) as error:
        message = f"a saved data set that cannot be loaded: {path} ({type(error).__name__}: {error})"
        raise DataError(Problem(where, message, "write it again with save_to_disk")) from error
    return _tables_of(loaded, str(path), where, split)


def _hub_data_set(name: str, subset: str | None, where: str, split: str) -> dict[str, Table]:
    import datasets

    try:
        loaded = datasets.load_dataset(name, subset)
    except (OSError, ValueError, RuntimeError) as error:
        # Not found, offline, no network: OSErrors. A subset is missing or unknown: ValueErrors that list them.
        reason = str(error).strip().split("\n")[0]
        if "config" in reason.lower():
            reason = " ".join(str(error).split())
            raise DataError(Problem("data.subset", f"hub data set {name}: {reason}", "set data.subset")) from error
        message = f"'{name}' is no file here, and it could not be loaded from the hub: {reason}"
        fix = f"check the name and the network, or give a file: lorafy reads {KINDS}"
        raise DataError(Problem(where, message, fix)) from error
    return _tables_of(loaded, name, where, split)


def _tables_of(loaded: Any, source: str, where: str, split: str) -> dict[str, Table]:
    import datasets

    if isinstance(loaded, datasets.Dataset):
        return {split: _table_of(loaded, source)}
    tables = {}
    for ours, theirs in SPLIT_NAMES.items():
        present = next((name for name in theirs if name in loaded), None)
        if present:
            tables[ours] = _table_of(loaded[present], f"{source}[{present}]")
    if split not in tables:
        raise DataError(Problem(where, f"{source} has no split '{split}'; it has {', '.join(loaded)}"))
    return tables


def _table_of(split: Any, source: str) -> Table:
    import datasets

    lists = (datasets.List, datasets.LargeList)
    held = {name: kind.feature if isinstance(kind, lists) else kind for name, kind in split.features.items()}
    names = {name: list(kind.names) for name, kind in held.items() if isinstance(kind, datasets.ClassLabel)}
    columns = [name for name in split.column_names if name not in ("input_ids", "attention_mask", "token_type_ids")]
    records = split.select_columns(columns).to_list()
    return Table(source, columns, records, range(1, len(records) + 1), names)


def _nearest_file(path: Path) -> str:
    import difflib

    if not path.parent.is_dir():
        return f"the folder {path.parent} is not there either"
    near = difflib.get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], n=1)
    return f"did you mean {path.parent / near[0]}?" if near else f"look into {path.parent}"
