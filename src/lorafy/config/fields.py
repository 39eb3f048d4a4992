"""What the sections of the recipe tree are made of: kinds of values, names of plug-ins, what a section refuses."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
)
from pydantic_core import CoreSchema, core_schema

from ..plugins import plugin_names


def _no_boolean(value: Any) -> Any:
    """pydantic takes `true` for 1; in a recipe that is a mistake."""
    if isinstance(value, bool):
        raise ValueError("should be a number")
    return value


def _plain_names(value: dict[str, Any]) -> dict[str, Any]:
    wrong = [name for name in value if not re.fullmatch(r"\w[\w.\-]*", name)]
    refuse([f"{name}: a name is letters, digits, dots, - and _; choose another one" for name in wrong])
    return value


def _three_shares(value: Any) -> Any:
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise ValueError("should be three shares, such as [0.7, 0.1, 0.2] for train, validation and test")
    return value


def refuse(mistakes: list[str]) -> None:
    """Raises what a section's own rules, which look at several keys, find wrong: a line `key: what is wrong` each."""
    if mistakes:
        raise ValueError("\n".join(mistakes))


def repeated(names: Collection[Any] | None) -> list[Any]:
    """Names that stand in the list more than once."""
    return sorted(name for name, count in Counter(list(names or ())).items() if count > 1)


class Plugin:
    """The name of a plug-in: one of lorafy's own, which stand in the reference, or one that another package adds."""

    def __init__(self, seam: str, *names: str):
        self.seam, self.names = seam, names

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._known, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"enum": list(self.names), "type": "string"}

    def _known(self, name: str) -> str:
        if name in self.names or name in plugin_names(self.seam):
            return name
        *first, last = map(repr, self.names)
        raise ValueError(f"should be {', '.join(first)} or {last}")


Integer = Annotated[int, BeforeValidator(_no_boolean)]
Number = Annotated[float, BeforeValidator(_no_boolean)]
Factor = Annotated[float, BeforeValidator(_no_boolean), Field(gt=0)]
Rank = Annotated[int, BeforeValidator(_no_boolean), Field(ge=1)]
Index = Annotated[int, BeforeValidator(_no_boolean), Field(ge=0)]
Every = Annotated[int, BeforeValidator(_no_boolean), Field(ge=1)] | Literal["epoch"] | None
Column = str | Annotated[int, BeforeValidator(_no_boolean), Field(ge=0)] | None
Text = Annotated[str, Field(min_length=1)]
Adapters = Annotated[dict[str, Text], Field(min_length=1), AfterValidator(_plain_names)]
"""Folders by name."""
Split = Annotated[tuple[Number, Number, Number], BeforeValidator(_three_shares)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
