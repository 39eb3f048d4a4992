"""The reference of the recipe tree as Markdown: `python -m lorafy.config.reference` prints docs/config.md."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from .flat import FLAT_NAMES
from .schema import RunConfig

HEAD = """\
# The recipe: every key

<!-- written by `python -m lorafy.config.reference` from src/lorafy/config/; a test keeps the two equal -->

A recipe is a YAML file. It states only what differs from the defaults. This is a complete one:

```yaml
model: {path: minilm}
data: {train: messages.csv}
```

The same keys serve classifiers (rows of text and label) and language models (questions and answers, chats, plain text);
`task` and `data.format` say which, and are found by the columns and the model. `generation` is for language models.

- **Look at it.** `lorafy config RECIPE` prints every key with its value. What the recipe states is green.
- **Change a key for one run.** Write `section.key=value` after the recipe: `lorafy train spam.yaml adapter.r=8`. The
  value is YAML: `train.max_grad_norm=null`, `"adapter.target_modules=[query, value]"` (in quotes, for the shell).
  The flat names at the end of this page work too, and so does the spelling `--lora_r 8` or `--adapter.r 8`.
- **Paths.** A path in a recipe is relative to the recipe's folder. A path on the command line is relative to the
  current folder. Without `run.output_dir`, runs go to `runs/` in the current folder.
- **Names of runs.** `spam.yaml` makes `runs/spam-1`, then `runs/spam-2`: one more than the highest number there.
  `run.name=first-try` gives another name. A folder that holds a run is never written over.
- **Continue a stopped run.** `lorafy train spam.yaml --resume` continues this recipe's run with the highest number,
  `lorafy train runs/spam-1 --resume` that one. A resumed run is the same run: another recipe is refused.
- **Repeat a run.** `lorafy train runs/spam-1` trains its recipe again, beside it, under the next number.

| key | type | default | meaning |
|---|---|---|---|
"""

FLAT_HEAD = """
## Flat names

A recipe may use the field's well-known names at its top, and they work as overrides: `lora_r=8`, `--lora_r 8`,
`--lora-r=8`. This is a complete recipe too:

```yaml
model_name_or_path: ./Qwen3-1.7B
output_dir: ./output
learning_rate: 5e-4
lora_r: 8
target_modules: [q_proj, v_proj]
```

- A recipe with at least one flat name is a flat one. Its data are `data/train.json` and, if it exists,
  `data/validation.json` beside the recipe, where it names none.
- Flat names and sections may stand in one recipe. One setting under two names is a mistake, in the recipe as among the
  overrides. An override wins over the recipe in either spelling.
- A run's `config.yaml` has no flat names.

| flat name | key | meaning |
|---|---|---|
"""

WORDS = {"string": "text", "boolean": "true or false", "integer": "whole number", "number": "number", "null": "null"}
LIMITS = {"minimum": "at least", "exclusiveMinimum": "above", "exclusiveMaximum": "below"}
LIMITS |= {"ge": "at least", "gt": "above"}  # pydantic's names for them in an optional key


def reference() -> str:
    """The whole page."""
    schema = RunConfig.model_json_schema()
    flat = (
        (name, ", ".join(f"`{key}`" for key in flat.keys), flat.note or "the same") for name, flat in FLAT_NAMES.items()
    )
    return HEAD + _table(_rows(schema, schema["$defs"], "")) + FLAT_HEAD + _table(flat)


def _table(rows: Iterable[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _rows(section: dict[str, Any], sections: dict[str, Any], prefix: str) -> Iterator[tuple[str, str, str, str]]:
    """Key, type, default and meaning of every leaf, in the order of the schema."""
    for name, node in section["properties"].items():
        if "$ref" in node:
            yield from _rows(sections[node["$ref"].rpartition("/")[2]], sections, f"{prefix}{name}.")
            continue
        default = json.dumps(node["default"]).replace('"', "") if "default" in node else "must be given"
        meaning = node["description"].replace("<", "&lt;")  # a page would take <image> for HTML
        yield f"`{prefix}{name}`", _kind(node), default, meaning


def _kind(node: dict[str, Any]) -> str:
    """A JSON schema's type in plain words."""
    if "anyOf" in node:
        return " or ".join(_kind(branch) for branch in node["anyOf"])
    if "enum" in node or "const" in node:
        return " or ".join(f"`{value}`" for value in node.get("enum", [node.get("const")]))
    if node["type"] == "array":
        return f"list of {_kind(node['items'])}" if "items" in node else f"list of {node['minItems']} numbers"
    if node["type"] == "object":
        return f"mapping of names to {_kind(node['additionalProperties'])}"
    limits = " and ".join(f"{word} {node[key]}" for key, word in LIMITS.items() if key in node)
    return f"{WORDS[node['type']]} {limits}".strip()


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")  # type: ignore[union-attr]
    sys.stdout.write(reference())
