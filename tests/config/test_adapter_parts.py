"""adapter.parts: a list or factors, in the recipe and on the command line."""

from __future__ import annotations

from typing import Any

import pytest

from lorafy.config import config_tree, parse_config
from lorafy.config.load import apply_overrides
from lorafy.types import ConfigError


def config_of(adapter: dict[str, Any], *overrides: str) -> Any:
    tree: dict[str, Any] = {"model": {"path": "minilm"}, "data": {"train": "x.csv"}, "adapter": adapter}
    return parse_config(tree, "the test", apply_overrides(tree, overrides), overrides)


@pytest.mark.parametrize(
    ("adapter", "overrides", "expected"),
    [
        ({}, [], None),
        ({"parts": ["vision", "language"]}, [], {"vision": 1, "language": 1}),
        ({"parts": {"language": 1, "vision": "2e-1"}}, [], {"language": 1, "vision": 0.2}),
        ({}, ["adapter.parts=[language, merger]"], {"language": 1, "merger": 1}),
        ({"parts": ["language"]}, ["adapter.parts={language: 0.5}"], {"language": 0.5}),
        ({"parts": {"language": 1, "vision": 1}}, ["adapter.parts.vision=0.2"], {"language": 1, "vision": 0.2}),
        ({"method": "full", "parts": ["vision"]}, [], {"vision": 1}),
    ],
)
def test_factors(adapter: dict[str, Any], overrides: list[str], expected: dict[str, float] | None) -> None:
    config = config_of(adapter, *overrides)
    assert config.adapter.factors == expected
    assert parse_config(config_tree(config), "again").adapter.factors == expected


def test_what_a_method_does_not_know_is_not_kept() -> None:
    assert config_of({"method": "full"}).adapter.effective == {"method": "full"}
    assert config_of({"method": "full", "parts": ["vision"]}).adapter.effective == {
        "method": "full",
        "parts": ["vision"],
    }
    assert config_of({"method": "none"}).adapter.effective == {"method": "none"}


@pytest.mark.parametrize(
    ("adapter", "overrides", "expected"),
    [
        ({"parts": []}, [], "adapter.parts: there is none"),
        ({"parts": {}}, [], "adapter.parts: there is none"),
        ({"parts": ["vision", "vision"]}, [], "adapter.parts: vision stands there more than once"),
        ({"parts": "vision"}, [], "a list is written [vision]"),
        ({"parts": {"vision": 0}}, [], "adapter.parts.vision: should be greater than 0, but it is 0"),
        ({"parts": {"vision": True}}, [], "adapter.parts.vision: should be a number"),
        ({"parts": ["language"]}, ["adapter.parts.vision=0.2"], "parts holds a value, not a section"),
        ({"method": "none", "parts": ["language"]}, [], "adapter.parts: no effect with method: none"),
    ],
)
def test_mistakes(adapter: dict[str, Any], overrides: list[str], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(adapter, *overrides)
    assert expected in str(caught.value) and len(caught.value.problems) == 1
