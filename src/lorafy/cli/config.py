"""lorafy config"""

from __future__ import annotations

from typing import Any

from .arguments import AsJson, Overrides, Recipe, messages, print_json


def config(recipe: Recipe, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Show the recipe with every default, and what each key means."""
    from rich.table import Table
    from rich.text import Text

    from ..config import config_tree, load_config
    from ..config.load import read_recipe
    from ..config.schema import RunConfig
    from ..run_directory import RunDirectory

    path = RunDirectory(recipe).config if recipe.is_dir() else recipe
    if "adapters" in read_recipe(path):
        from ..workflows.adapters import read_adapters

        named = read_adapters(path, overrides or [])
        resolved, tree = named.config, named.tree
    else:
        resolved = load_config(path, overrides or [])
        tree = config_tree(resolved)
    if as_json:
        print_json(tree)
        return
    table = Table("key", "value", "meaning", box=None, header_style="bold")
    for key, value, is_stated, meaning in _rows(RunConfig, tree, resolved, ""):
        stated = "bold green" if is_stated else ""
        table.add_row(key, Text(value, stated), meaning)
    messages().print(table)


def _rows(model: Any, tree: dict[str, Any], resolved: Any, prefix: str) -> list[tuple[str, str, bool, str]]:
    """Dotted key, value, whether the recipe states it, and meaning of every leaf."""
    from pydantic import BaseModel

    rows = []
    for name, field in model.model_fields.items():
        if name not in tree:
            continue
        annotation, value = field.annotation, tree[name]
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            rows += _rows(annotation, value, getattr(resolved, name), f"{prefix}{name}.")
            continue
        text = "null" if value is None else str(value)
        rows.append((f"{prefix}{name}", text, name in resolved.model_fields_set, field.description or ""))
    return rows
