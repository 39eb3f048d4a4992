"""Chinese flows through: real titles, the real Chinese tokenizer, a model made from a config."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertModel

import lorafy
from lorafy import api

LABELS = {"finance": "财经", "sports": "体育", "game": "游戏", "education": "教育"}


@pytest.fixture
def chinese_bert(shared_data: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "bert"
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "tokenizers" / "bert-base-chinese")
    tokenizer.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def titles(shared_data: Path, tmp_path: Path) -> Path:
    """800 real titles of four classes under Chinese label names, in GB18030 as Windows tools write it."""
    rows = (shared_data / "thucnews" / "train_10k.csv").read_text(encoding="utf-8").splitlines()[1:]
    kept = []
    for name, chinese in LABELS.items():
        kept += [f"{chinese},{row.partition(',')[2]}" for row in rows if row.startswith(f"{name},")][:200]
    path = tmp_path / "标题.csv"
    path.write_text("label,text\n" + "\n".join(kept) + "\n", encoding="gb18030")
    return path


def test_chinese_from_file_to_report(chinese_bert: Path, titles: Path, tmp_path: Path) -> None:
    tree = {
        "run": {"name": "新闻", "output_dir": str(tmp_path / "runs")},
        "model": {"path": str(chinese_bert)},
        "data": {"train": str(titles), "encoding": "gb18030"},
        "adapter": {"method": "full"},
        "train": {"learning_rate": 2e-3, "num_epochs": 3},
    }
    prepared = api.prepare(tree)
    example = prepared.corpus.splits["train"][0]
    decoded = prepared.task.tokenizer.decode(prepared.features["train"][0].input_ids, skip_special_tokens=True)
    assert decoded.replace(" ", "") == example.text.replace(" ", "").lower()

    run = lorafy.train(tree)
    assert set(run.results["labels"]) == set(LABELS.values())
    # Four classes, a random start, 560 titles: single characters are enough to be far above chance.
    assert run.results["metrics"]["accuracy_interval"][0] > 0.4
    assert "体育" in run.directory.report.read_text(encoding="utf-8")
    prediction = lorafy.load(run.path).classify(["球队夺得总冠军"])[0]
    assert prediction.label in LABELS.values()
    assert "体育" in json.dumps(prediction.probabilities, ensure_ascii=False)
