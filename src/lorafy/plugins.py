"""The whole registry of plug-ins: what a seam's folder holds, and what other packages add to it.

Another package adds one by an entry point of the group `lorafy.<seam>`, such as `lorafy.tasks`, that names its module.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from .adapter_contract import AdapterMethod
from .types import ConfigError, Problem

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


def plugin_names(seam: str) -> list[str]:
    """The names that a seam's folder offers, and those that other packages add to it."""
    folder = Path(__file__).parent / seam
    own = (module.name for module in pkgutil.iter_modules([str(folder)]))
    return sorted({*own, *(entry.name for entry in _added(seam))})


def load_plugin(seam: str, name: str) -> ModuleType:
    """The module `name` of a seam. Raises ConfigError with the names that exist."""
    own = Path(__file__).parent / seam
    # A name may come out of a stranger's file: it is never a path.
    if name.isidentifier() and ((own / f"{name}.py").is_file() or (own / name / "__init__.py").is_file()):
        return importlib.import_module(f"lorafy.{seam.replace('/', '.')}.{name}")
    entry = next((entry for entry in _added(seam) if entry.name == name), None)
    if entry is None:
        raise ConfigError(Problem(seam, f"'{name}' is not one of {', '.join(plugin_names(seam))}"))
    return entry.load()


def load_method(name: str) -> AdapterMethod:
    """adapters/: the method of this name."""
    return load_plugin("adapters", name).METHOD


def foreign_method(folder: Path) -> AdapterMethod | None:
    """The method that loads what another tool wrote in this folder."""
    methods = map(load_method, plugin_names("adapters"))
    return next((method for method in methods if method.claims(folder)), None)


def _added(seam: str) -> Iterator[EntryPoint]:
    """Entry points of other packages for this seam. The import is late: `lorafy --help` needs none of it."""
    import importlib.metadata

    yield from importlib.metadata.entry_points(group=f"lorafy.{seam.replace('/', '.')}")
