"""Scores what lies on disk and holds it against what training recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from safetensors.torch import load_file

from .adapters import files
from .config.schema import RunConfig
from .data.corpus import Corpus, load_corpus
from .evaluation import language
from .evaluation import verify as verification
from .evaluation.evaluate import evaluate as score_classifier
from .inference.generate import generate
from .models.precision import Precision
from .run_directory import RunDirectory, read_json
from .tasks.causal_lm import CausalLM
from .tasks.classification import Classification
from .trained import Trained, differing_base_logits, load_original
from .training_run import probe_circumstances
from .types import Conversation, DataError, Message, Problem

PLAIN = Precision(torch.float32, torch.device("cpu"))
ANSWER_LENGTH, ANSWER_ROOM = 1.5, 16
"""An answer may be half again as long as the longest reference, and 16 tokens: enough to see that it does not end."""


def score(trained: Trained, config: RunConfig, run: RunDirectory | None) -> dict[str, Any]:
    """eval_results.json. `trained` is verified, merged and left on its device.

    run: whose own data these must be. Raises DataError for data of another task, unknown labels or a changed split.
    """
    config = config.model_copy(update={"task": trained.task.name})
    corpus = load_corpus(config, generative=trained.task.name == "causal_lm")
    split = corpus.scored_split
    if run is not None:
        _require_same_data(run, split, corpus.fingerprint(split))
    found: dict[str, Any] = {"task": trained.task.name, "split": split}
    if isinstance(trained.task, CausalLM):
        found |= _score_language_model(trained, trained.task, corpus.splits[split], config)
    else:
        _require_known_labels(trained.task, corpus, split)
        checks = verify(trained)
        trained.merge()
        trained.place()
        found |= score_classifier(trained.model, trained.task, corpus.splits[split], trained.precision)
        found["verification"] = checks
    return found | {"dtype": trained.precision.name}


def _score_language_model(
    trained: Trained, task: CausalLM, examples: Sequence[Conversation], config: RunConfig
) -> dict[str, Any]:
    """What was trained, then its base on the same questions."""
    encoded = task.encode(examples)
    if not encoded.features:
        raise DataError(Problem("data", f"no row fits into {task.max_length} tokens", "shorten the answers"))
    # A question that leaves no room for an answer cannot be asked; it is left out.
    asked = [
        question
        for question in language.questions(examples, config.generation.evaluate_prompts)
        if len(task.renderer.question_ids(question.messages)) + ANSWER_ROOM < task.context_length
    ]
    longest = max(
        (len(task.tokenizer(text, verbose=False)["input_ids"]) for a in asked for text in a.references), default=0
    )
    room = min(config.generation.max_new_tokens, round(ANSWER_LENGTH * longest) + ANSWER_ROOM)
    settings = config.generation.model_copy(update={"temperature": 0.0, "max_new_tokens": room})

    def measure(model: Any) -> tuple[dict[str, Any], list[Any]]:
        def write(questions: Sequence[Sequence[Message]]) -> Sequence[Any]:
            return generate(model, task, questions, settings, trained.precision)

        return language.score(model, task, encoded, asked, write, trained.precision)

    checks = verify(trained)
    trained.merge()
    trained.settle()
    metrics, answers = measure(trained.model)
    base_metrics = base_answers = None
    if trained.folder is not None:
        trained.release()
        base_metrics, base_answers = measure(load_original(trained))
    return {
        "num_examples": len(examples),
        "num_skipped": len(encoded.skipped),
        "num_truncated": sum(feature.truncated for feature in encoded.features),
        "metrics": metrics,
        "base": base_metrics,
        "samples": language.samples(asked, answers, base_answers),
        "verification": checks,
    }


def verify(trained: Trained) -> dict[str, Any] | None:
    """Every check that the folder allows; None for a model that lorafy did not train. Leaves `trained` merged."""
    manifest, folder = trained.manifest, trained.folder
    if manifest is None or folder is None:
        return None
    probe = load_file(folder / files.PROBE)
    in_memory = probe.pop("logits")
    adapter = trained.logits(probe, PLAIN)
    base = differing_base_logits(trained, probe, PLAIN)
    trained.place()
    reloaded = trained.logits(probe, trained.precision)
    trained.model.to("cpu")
    dtype = manifest.probe["dtype"]
    same = manifest.probe == probe_circumstances(trained.precision)
    checks = [
        verification.check_unchanged(
            files.file_sha256(folder / files.WEIGHTS[manifest.method]), manifest.weights_sha256
        ),
        verification.check_reloaded(reloaded, in_memory, dtype, same),
        verification.check_differs(adapter, base),
    ]
    if manifest.method != "full":
        checks.insert(1, verification.check_base(trained.base.fingerprint, manifest.base_fingerprint))
    if manifest.method == "lora":
        trained.merge()
        checks.append(verification.check_merged(trained.logits(probe, PLAIN), adapter))
    return verification.as_result(checks)


def _require_known_labels(task: Classification, corpus: Corpus, split: str) -> None:
    unknown = sorted({str(example.label) for example in corpus.splits[split]} - set(task.label_names))
    if unknown:
        message = f"labels that this model does not know: {', '.join(unknown[:5])}"
        raise DataError(Problem(f"data.{split}", message, f"it knows {', '.join(task.label_names)}"))


def _require_same_data(run: RunDirectory, split: str, fingerprint: str) -> None:
    recorded = read_json(run.preflight)["splits"].get(split, {}).get("sha256")
    if recorded != fingerprint:
        message = f"the data changed since training: its {split} split is another one, and may hold training rows"
        fix = "put the data back, or name what to score: data.test=FILE"
        raise DataError(Problem(str(run.path), message, fix))
