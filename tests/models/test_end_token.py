"""What a run says of an end that cannot be learned, or that stands in the texts."""

from __future__ import annotations

from pathlib import Path

from language_models import SUMS, write_rows
from tiny_models import build, make_config


def findings(model: Path, train: Path, **sections: dict) -> list[str]:
    built, prepared = build(make_config(model, train, **sections))
    return [f.message for f in [*prepared.findings, *built.findings] if f.check == "end"]


def test_a_base_that_never_saw_its_end_is_told_under_lora(stories: Path, sums_json: Path) -> None:
    (message,) = findings(stories, sums_json)
    assert message.startswith("pretraining never showed </s>, which ends an answer: 252 other tokens")
    assert findings(stories, sums_json, adapter={"method": "full"}) == []


def test_nothing_is_said_of_a_base_whose_end_is_a_token_of_its_own(
    language_bases: dict[str, Path], sums_json: Path
) -> None:
    assert findings(language_bases["gpt2"], sums_json) == []


def test_a_text_that_holds_the_end_is_told(language_bases: dict[str, Path], tmp_path: Path) -> None:
    rows = [{"text": question, "target": answer} for question, answer in SUMS]
    rows[6]["target"] += "<|endoftext|>Advertisement"
    train, asked = write_rows(tmp_path / "train.json", rows), write_rows(tmp_path / "asked.json", rows[:2])
    found = findings(language_bases["gpt2"], train, data={"validation": str(asked)})
    assert found == ["1 train rows hold the text <|endoftext|>, which ends an answer (row 7, ...)"]
