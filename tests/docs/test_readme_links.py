"""README.md is also the page of the package index, where a relative link leads nowhere."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OURS = re.compile(
    r"https://(?:github\.com/lorafy/lorafy/(?:blob|tree)|raw\.githubusercontent\.com/lorafy/lorafy)/main/(.*)"
)


def links(page: str) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text(encoding="utf-8"))


def test_every_link_of_the_readme_is_whole_and_leads_somewhere() -> None:
    found = links("README.md")
    assert len(found) > 20
    assert [link for link in found if not link.startswith(("https://", "#"))] == []
    ours = [match.group(1).partition("#")[0] for link in found if (match := OURS.match(link))]
    assert len(ours) > 20 and [path for path in ours if not (ROOT / path).exists()] == []


def test_the_chinese_readme_leads_somewhere_too() -> None:
    local = [link.partition("#")[0] for link in links("README.zh-CN.md") if not link.startswith(("https://", "#"))]
    assert [path for path in local if not (ROOT / path).exists()] == []


def test_the_metadata_says_who_and_for_what() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["authors"] and "Typing :: Typed" in project["classifiers"]
    minors = {text.rpartition(" ")[2] for text in project["classifiers"] if "Python :: 3." in text}
    assert minors == {"3.11", "3.12", "3.13"}
