"""Adapters of classifiers as plain peft and transformers load them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import peft
from transformers import AutoModelForSequenceClassification, AutoTokenizer


def plain_base(folder: Path, base: Path) -> Any:
    """The base as transformers alone loads it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    model.config.pad_token_id = AutoTokenizer.from_pretrained(folder).pad_token_id
    return model


def by_peft(folder: Path, base: Path) -> Any:
    """The adapter on its base, as plain peft loads it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.PeftModel.from_pretrained(plain_base(folder, base), folder)
