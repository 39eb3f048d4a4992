"""A base that answers everything with `Base.`, and a run whose adapter answers everything with `Tuned!`."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from language_models import save_language_model, write_rows
from lorafy.models.trained_files import MANIFEST, PROBE
from lorafy.run_directory import RunDirectory
from tiny_models import make_config
from trained_runs import train

WORDS = [
    "hi",
    "why",
    "what",
    "is",
    "2",
    "and",
    "3",
    "tell",
    "me",
    "a",
    "story",
    "dog",
    "you",
    "are",
    "好",
    "吗",
    "where",
    "q",
]
STEPS = {
    "max_steps": 80,
    "batch_size": 8,
    "learning_rate": 1e-2,
    "warmup": 0.1,
    "evaluate_every": None,
    "save_every": None,
}
GREEDY = {"temperature": 0.0, "max_new_tokens": 12, "evaluate_prompts": 2}


def write_talks(path: Path, answer: str) -> Path:
    """Conversations of one to three turns in which every answer is the same."""
    drawn, rows = random.Random(0), []
    for index in range(150):
        questions = [
            " ".join(drawn.choices(WORDS, k=1 + drawn.randrange(6))).capitalize() for _ in range(index % 3 + 1)
        ]
        turns = [({"role": "user", "content": text}, {"role": "assistant", "content": answer}) for text in questions]
        rows.append({"messages": [message for turn in turns for message in turn]})
    return write_rows(path, rows)


def train_parrot(folder: Path) -> RunDirectory:
    """A tiny Llama over bytes, some seconds."""
    raw = save_language_model("llama", folder / "raw")
    data = write_talks(folder / "base.jsonl", "Base.")
    first = train(make_config(raw, data, adapter={"method": "full"}, train=STEPS), folder / "first")
    own = shutil.ignore_patterns(MANIFEST, PROBE)  # the base is a model like any other
    base = Path(shutil.copytree(first.model, folder / "base", ignore=own))
    data = write_talks(folder / "tuned.jsonl", "Tuned!")
    return train(make_config(base, data, train=STEPS, generation=GREEDY), folder / "run")
