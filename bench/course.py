"""The course's question on real data: does LoRA reach the 95 % that courses promise, and what carries it there?

    python bench/course.py run SETTING sms|sst2 SEED    one training, one JSON line in bench/results/
    python bench/course.py table                        the tables of docs/course-results.md from those lines

SETTING: words         no LoRA: counts of words, logistic regression
         random        LoRA on the small GPT, its base random
         pretrained    LoRA on the small GPT, its base pretrained (next token) on the training texts
         random_fast, pretrained_fast    the same at 1e-3, three times the course's learning rate
         minilm        LoRA r 16 on MiniLM: `lorafy train` with its defaults; minilm_r32, minilm_r64, minilm_full

SMS: as many ham as spam, split 70/10/20 by the seed, repeated messages in one part. SST-2: about 4,000 rows of train to
train on and 570 to validate, none of them in dev, and dev, 872 rows, as the test. All settings of a seed get the same
rows. The test is scored once, at the end; only `minilm*` chooses a checkpoint, by the validation rows.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sklearn.feature_extraction.text import CountVectorizer  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402

from course.tokenizer import ByteLevelBPE  # noqa: E402
from lorafy.data.splits import downsample, sample_stratified, split_stratified  # noqa: E402
from lorafy.evaluation.metrics import wilson_interval  # noqa: E402
from lorafy.machine.environment import describe_environment, package_version, processor_name  # noqa: E402
from lorafy.scratch import (  # noqa: E402
    SimpleGPTForClassification,
    SpamDataset,
    calc_accuracy,
    count_parameters,
    freeze_all_but_lora,
    make_loader,
    pretrain,
    replace_linear_with_lora,
    train_lora_model,
)
from lorafy.types import Example  # noqa: E402

DATA = ROOT.parent / "shared" / "data"
RESULTS = ROOT / "bench" / "results"
LABELS = {"sms": ("ham", "spam"), "sst2": ("0", "1")}
SHARES = (0.7, 0.1, 0.2)
SST2_ROWS = 4_000
PRETRAIN_EPOCHS = 3
GPTS = {  # whether the base is pretrained, and LoRA's learning rate
    "random": (False, 3e-4),
    "pretrained": (True, 3e-4),
    "random_fast": (False, 1e-3),
    "pretrained_fast": (True, 1e-3),
}
ADAPTERS = {
    "minilm": {"method": "lora", "r": 16},
    "minilm_r32": {"method": "lora", "r": 32},
    "minilm_r64": {"method": "lora", "r": 64},
    "minilm_full": {"method": "full"},
}
SETTINGS = ("words", *GPTS, *ADAPTERS)
NAMES = {
    "words": "counts of words, logistic regression",
    "random": "LoRA r 16, small GPT, random base",
    "pretrained": "LoRA r 16, small GPT, base pretrained on the training texts",
    "random_fast": "LoRA r 16, small GPT, random base, 1e-3",
    "pretrained_fast": "LoRA r 16, small GPT, pretrained base, 1e-3",
    "minilm": "LoRA r 16, MiniLM, through lorafy",
    "minilm_r32": "LoRA r 32, MiniLM, through lorafy",
    "minilm_r64": "LoRA r 64, MiniLM, through lorafy",
    "minilm_full": "full fine-tuning, MiniLM, through lorafy",
}

Splits = dict[str, list[Example]]


def read(path: Path, *, label_first: bool, header: bool) -> list[Example]:
    """Two columns parted by a tab. Read by hand: a stray quote would swallow lines in a csv reader."""
    examples = []
    for row, line in enumerate(path.read_text(encoding="utf-8").splitlines()[header:], start=1):
        left, _, right = line.partition("\t")
        label, text = (left, right) if label_first else (right, left)
        examples.append(Example(text, label, path.name, row))
    return examples


def splits_of(data: str, seed: int) -> Splits:
    if data == "sms":
        rows = read(DATA / "sms_spam" / "SMSSpamCollection", label_first=True, header=False)
        parts = split_stratified(downsample(rows, seed), SHARES, seed)
        return dict(zip(("train", "validation", "test"), parts, strict=True))
    test = read(DATA / "sst2" / "dev.tsv", label_first=False, header=True)
    known = {example.key for example in test}
    rows = [e for e in read(DATA / "sst2" / "train.tsv", label_first=False, header=True) if e.key not in known]
    drawn = sample_stratified(rows, round(SST2_ROWS * 8 / 7), seed)
    train, validation = split_stratified(drawn, (7 / 8, 1 / 8), seed)
    return {"train": train, "validation": validation, "test": test}


def score_words(splits: Splits) -> dict:
    """A text is the number of times each word of the training texts occurs in it; their order is lost."""
    model = make_pipeline(CountVectorizer(), LogisticRegression(max_iter=2_000))
    began = time.perf_counter()
    model.fit([e.text for e in splits["train"]], [e.label for e in splits["train"]])
    seconds = time.perf_counter() - began
    accuracy = model.score([e.text for e in splits["test"]], [e.label for e in splits["test"]])
    return {"accuracy": accuracy, "seconds": seconds, "trainable_parameters": model[-1].coef_.size + 1}


def score_gpt(splits: Splits, data: str, seed: int, *, pretrained: bool, learning_rate: float) -> dict:
    """The course's own way: byte-level BPE, rank 16, alpha 32, 3 epochs (at 3e-4 by default), batches of 8."""
    tokenizer = ByteLevelBPE.train([e.text for e in splits["train"]])
    rows = {name: [(e.text, LABELS[data].index(str(e.label))) for e in part] for name, part in splits.items()}
    train = SpamDataset.from_rows(rows["train"], tokenizer)
    validation = SpamDataset.from_rows(rows["validation"], tokenizer, train.max_length)
    test = SpamDataset.from_rows(rows["test"], tokenizer, train.max_length)
    model = SimpleGPTForClassification(tokenizer.vocab_size, train.max_length, seed=seed)
    loader = make_loader(train, shuffle=True, seed=seed)
    result: dict = {}
    if pretrained:
        pretraining = pretrain(model, loader, epochs=PRETRAIN_EPOCHS, seed=seed)
        result = {
            "pretrain_seconds": pretraining.seconds,
            "pretrain_loss_first": statistics.mean(pretraining.losses[:20]),
            "pretrain_loss_last": statistics.mean(pretraining.losses[-20:]),
        }
    replace_linear_with_lora(model, skip=["head"], seed=seed)
    freeze_all_but_lora(model, also=["head"])
    trainable, total = count_parameters(model)
    no_looks = 10**9  # measured before the first and after the last step only
    history = train_lora_model(
        model,
        loader,
        make_loader(validation),
        learning_rate=learning_rate,
        eval_every=no_looks,
        eval_batches=25,
        seed=seed,
    )
    return result | {
        "learning_rate": learning_rate,
        "accuracy": calc_accuracy(make_loader(test, 32), model),
        "train_accuracy": history.train_accuracies[-1],
        "seconds": history.seconds,
        "trainable_parameters": trainable,
        "total_parameters": total,
    }


def score_lorafy(splits: Splits, setting: str, seed: int) -> dict:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for split, examples in splits.items():
            lines = [json.dumps({"text": e.text, "label": e.label}, ensure_ascii=False) for e in examples]
            (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        tree = {
            "run": {"seed": seed, "output_dir": "runs"},
            "model": {"path": "minilm"},
            "data": {split: f"{split}.jsonl" for split in splits},
            "adapter": ADAPTERS[setting],
            "trackers": ["jsonl"],
        }
        recipe = folder / "recipe.yaml"
        recipe.write_text(json.dumps(tree), encoding="utf-8")
        command = [sys.executable, "-m", "lorafy", "train", str(recipe), "--json"]
        done = json.loads(subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", check=True).stdout)
    summary, results = done["summary"], done["results"]
    kept = ("learning_rate", "num_steps", "seconds", "trainable_parameters", "total_parameters", "peak_memory_bytes",
            "bytes_on_disk", "dtype")  # fmt: skip
    verified = results["verification"]["passed"]
    return {"accuracy": results["metrics"]["accuracy"], "verified": verified} | {key: summary[key] for key in kept}


def run(setting: str, data: str, seed: int) -> dict:
    """The line of one training: how many of the test rows are right, and what it cost."""
    splits = splits_of(data, seed)
    cpu_before = cpu_seconds()
    if setting == "words":
        result = score_words(splits)
    elif setting in ADAPTERS:
        result = score_lorafy(splits, setting, seed)
    else:
        pretrained, learning_rate = GPTS[setting]
        result = score_gpt(splits, data, seed, pretrained=pretrained, learning_rate=learning_rate)
    num_test = len(splits["test"])
    num_correct = round(result["accuracy"] * num_test)
    machine = describe_environment()
    return {
        "data": data,
        "setting": setting,
        "seed": seed,
        "rows": {name: len(part) for name, part in splits.items()},
        "num_correct": num_correct,
        "accuracy_interval": wilson_interval(num_correct, num_test),
        **result,
        "cpu_seconds": cpu_seconds() - cpu_before,
        "num_threads": machine["torch"]["num_threads"],
        "versions": {name: package_version(name) for name in ("torch", "transformers", "peft", "scikit-learn")},
    }


def cpu_seconds() -> float:
    """Of this process and of those it waited for (not on Windows): other work on the machine moves it little."""
    return sum(os.times()[:4])


def results_file() -> Path:
    cores = describe_environment()["cores"]
    slug = re.sub(r"[^a-z0-9]+", "_", processor_name().lower()).strip("_")
    return RESULTS / f"course_{cores}core_{slug}.jsonl"


def tables(lines: Iterable[dict]) -> str:
    """Markdown: each setting's accuracy on each data set over the seeds, then what LoRA and full fine-tuning cost."""
    latest = {(line["data"], line["setting"], line["seed"]): line for line in lines}
    groups: dict[tuple[str, str], list[dict]] = {}
    for (data, setting, _), line in latest.items():
        groups.setdefault((data, setting), []).append(line)
    accuracies = ["| data | what | each seed, with its 95 % interval | mean | 95 % reached by |", "|" + "---|" * 5]
    costs = [
        "| data | MiniLM | trained | share | peak memory | CPU seconds | on disk | accuracy, mean |",
        "|" + "---|" * 8,
    ]
    for (data, setting), runs in sorted(groups.items(), key=order):
        runs = sorted(runs, key=lambda run: run["seed"])
        each = ", ".join(f"{percent(run['accuracy'])} ({interval(run)})" for run in runs)
        mean = percent(statistics.mean(run["accuracy"] for run in runs))
        reached = sum(run["accuracy"] >= 0.95 for run in runs)
        accuracies.append(f"| {data} | {NAMES[setting]} | {each} | {mean} | {reached} of {len(runs)} |")
        if setting in ADAPTERS:
            costs.append(f"| {data} | {NAMES[setting].partition(',')[0]} | {cost(runs)} |")
    return "\n".join([*accuracies, "", *costs])


def order(item: tuple[tuple[str, str], list[dict]]) -> tuple[str, int]:
    (data, setting), _ = item
    return data, SETTINGS.index(setting)


def cost(runs: list[dict]) -> str:
    first = runs[0]
    trainable = first["trainable_parameters"]
    share = trainable / first["total_parameters"]
    memory = statistics.mean(run["peak_memory_bytes"] for run in runs) / 2**30
    seconds = statistics.mean(run["cpu_seconds"] for run in runs)
    disk = first["bytes_on_disk"] / 2**20
    accuracy = percent(statistics.mean(run["accuracy"] for run in runs))
    return f"{trainable:,} | {share:.1%} | {memory:.2f} GiB | {seconds:.0f} | {disk:.1f} MiB | {accuracy}"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def interval(run: dict) -> str:
    low, high = run["accuracy_interval"]
    return f"{100 * low:.1f} to {100 * high:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("run")
    one.add_argument("setting", choices=SETTINGS)
    one.add_argument("data", choices=tuple(LABELS))
    one.add_argument("seed", type=int)
    verbs.add_parser("table")
    arguments = parser.parse_args()
    if arguments.verb == "run":
        line = json.dumps(run(arguments.setting, arguments.data, arguments.seed))
        print(line)
        with results_file().open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    else:
        with results_file().open(encoding="utf-8") as file:
            print(tables(json.loads(line) for line in file))


if __name__ == "__main__":
    main()
