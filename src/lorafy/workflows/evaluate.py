"""Scores what lies on disk and holds it against what training recorded."""

from __future__ import annotations

from typing import Any

import torch
from safetensors.torch import load_file

from ..adapter_contract import AdapterMethod
from ..config.schema import RunConfig
from ..evaluation import verify as verification
from ..inference.trained import Trained
from ..kernels.packed import is_packed
from ..machine.environment import processor_name
from ..models.precision import Precision
from ..models.trained_files import PROBE, Manifest, file_sha256
from ..run_directory import RunDirectory, read_json
from ..tasks import read_corpus
from ..types import DataError, Problem

PLAIN = Precision(torch.float32, torch.device("cpu"))


def score(trained: Trained, config: RunConfig, run: RunDirectory | None) -> dict[str, Any]:
    """eval_results.json of a `trained` that is LOADED; afterwards it is not.

    run: whose own data these must be. Raises DataError for data of another task, unknown labels or a changed split.
    """
    task = trained.task
    config = config.model_copy(update={"task": task.name})
    corpus = read_corpus(config)
    split = corpus.scored_split
    if run is not None:
        _require_same_data(run, split, corpus.fingerprint(split))
    task.refuse_unknown(corpus, split)
    ranks = None if trained.method is None else trained.method.ranks(trained.model)
    checks = verify(trained)
    own = {} if ranks is None else {"ranks": ranks}
    found = {"task": task.name, "split": split, **task.score(trained, corpus.splits[split], config.generation)}
    return found | own | {"verification": checks, "dtype": trained.precision.name}


def verify(trained: Trained) -> dict[str, Any] | None:
    """Every check that the folder of a LOADED model allows, which it leaves MERGED; None for a model as it comes.

    Of what another tool wrote nothing was recorded: whether it does something, and whether merging keeps it, is seen on
    a probe that is made here."""
    manifest, method = trained.manifest, trained.method
    if method is None:
        return None
    probe = trained.probe()
    learned = trained.logits(probe, PLAIN)
    base = trained.base_logits(probe, PLAIN)
    checks = [] if manifest is None else _as_recorded(trained, method, manifest, probe)
    checks.append(verification.check_differs(learned, base))
    trained.merge()
    if method.merges and not is_packed(trained.model):  # `lorafy merge` proves that, in the memory that it takes
        checks.append(verification.check_merged(trained.logits(probe, PLAIN), learned))
    return verification.as_result(checks)


def _as_recorded(trained: Trained, method: AdapterMethod, manifest: Manifest, probe: Any) -> list[verification.Check]:
    """The checks against what training wrote down."""
    folder = trained.folder
    assert folder is not None, "a manifest lies in a folder"
    reloaded, in_memory = trained.logits(probe, trained.precision), load_file(folder / PROBE)["logits"]
    same = method.reloads_exactly and manifest.probe == probe_circumstances(trained.precision)
    checks = [verification.check_unchanged(file_sha256(folder / method.weights), manifest.weights_sha256)]
    if method.keeps_base:
        checks.append(verification.check_base(trained.base.fingerprint, manifest.base_fingerprint))
    return [*checks, verification.check_reloaded(reloaded, in_memory, manifest.probe["dtype"], same)]


def probe_circumstances(precision: Precision) -> dict[str, Any]:
    """Facts that decide how products are summed: where all of them are equal, the order is the same."""
    device = torch.cuda.get_device_name() if precision.device.type == "cuda" else processor_name()
    return {
        "dtype": precision.name,
        "device": device,
        "torch": torch.__version__,
        "num_threads": torch.get_num_threads(),
    }


def _require_same_data(run: RunDirectory, split: str, fingerprint: str) -> None:
    recorded = read_json(run.preflight)["splits"].get(split, {}).get("sha256")
    if recorded != fingerprint:
        message = f"the data changed since training: its {split} split is another one, and may hold training rows"
        fix = "put the data back, or name what to score: data.test=FILE"
        raise DataError(Problem(str(run.path), message, fix))
