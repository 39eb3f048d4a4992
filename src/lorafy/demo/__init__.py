"""The embedded run: a bundled data set (see SOURCE.md), four messages to try, and the recipe that joins them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

MESSAGES = (
    "Hey, want to grab lunch together?",
    "URGENT! You've won $5000! Click now to claim your prize!",
    "Your parcel is waiting at the post office on Mill Road, bring your ID. Mum x",
    "We reviewed your profile and can offer 300 a day for simple work from home. Interested?",
)


def recipe(output_dir: Path) -> dict[str, Any]:
    return {
        "run": {"output_dir": str(output_dir.resolve())},
        "model": {"path": "minilm"},
        "data": {"train": str(Path(__file__).parent / "sms.csv")},
        "train": {"num_epochs": 5},
    }
