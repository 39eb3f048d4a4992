"""The reference of the recipe tree as Markdown: `python -m lorafy.config.reference` prints docs/config.md."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from .schema import RunConfig

HEAD = """\
# The recipe: every key

<!-- written by `python -m lorafy.config.reference` from src/lorafy/config/; a test keeps the two equal -->

A recipe is a YAML file. It states only what differs from the defaults. This is a complete one:

```yaml
model: {path: minilm}
data: {train: messages.csv}
```

- **Look at it.** `lorafy config RECIPE` prints every key with its value. What the recipe states is green.
- **Change a key for one run.** Write `section.key=value` after the recipe, such as `lorafy train spam.yaml adapter.r=8`.
  The value is YAML: `train.max_grad_norm=null`, `"adapter.target_modules=[query, value]"` (in quotes, for the shell).
- **Mistakes.** lorafy stops before any work and names all mistakes at once. A key that has no effect is a mistake too.
- **Paths.** A path in a recipe is relative to the recipe's folder. A path on the command line is relative to the current
  folder. Without `run.output_dir`, runs go to `runs/` in the current folder.
- **Names of runs.** `spam.yaml` makes `runs/spam-1`, then `runs/spam-2`: one more than the highest number there.
  `run.name=first-try` gives another name. A folder that holds a run is never written over.
- **Continue a stopped run.** `lorafy train spam.yaml --resume` continues this recipe's run with the highest number,
  `lorafy train runs/spam-1 --resume` that one. A resumed run is the same run: another recipe is refused.
- **Repeat a run.** `lorafy train runs/spam-1` trains its recipe again, beside it, under the next number.

| key | type | default | meaning |
|---|---|---|---|
"""

WORDS = {str: "text", bool: "true or false", int: "whole number", float: "number", type(None): "null"}


def reference() -> str:
    """The whole page."""
    return HEAD + "".join(f"| {' | '.join(row)} |\n" for row in _rows(RunConfig, ""))


def _rows(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str, str]]:
    """Key, type, default and meaning of every leaf, in the order of the schema."""
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from _rows(annotation, f"{prefix}{name}.")
            continue
        kind = ", ".join([_kind(annotation), *_limits(field.metadata)])
        default = "must be given" if field.is_required() else f"`{json.dumps(field.default)}`".replace('"', "")
        yield f"`{prefix}{name}`", kind, default, field.description or ""


def _kind(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in WORDS:
        return WORDS[annotation]
    if origin is Annotated:
        return " ".join([_kind(arguments[0]), *_limits(arguments[1:])])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin is list:
        return f"list of {_kind(arguments[0])}"
    if origin is tuple:
        return f"list of {len(arguments)} numbers"
    return " or ".join(_kind(argument) for argument in arguments)


def _limits(metadata: Sequence[Any]) -> Iterator[str]:
    for item in metadata:
        match item:
            case Ge(ge=limit):
                yield f"at least {limit}"
            case Gt(gt=limit):
                yield f"above {limit}"
            case Lt(lt=limit):
                yield f"below {limit}"
            case FieldInfo():
                yield from _limits(item.metadata)


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")  # type: ignore[union-attr]
    sys.stdout.write(reference())
