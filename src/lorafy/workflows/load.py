"""MODEL, loaded from disk: a run, an adapter's folder (of other tools too), a model as it comes.

All of it may be a stranger's. Whether Python code that lies there may run is said by whoever calls, never by a file of
MODEL; the base that a folder names is told, and where it came with the folder it is no pickle. See docs/security.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import ValidationError

from ..adapter_contract import AdapterMethod
from ..config.schema import ModelSection
from ..contracts import Task
from ..inference.trained import Trained
from ..machine.printable import printable
from ..models import embedded
from ..models.load import BaseModel, open_source
from ..models.pickles import pickled_weights, refuse_pickled
from ..models.precision import choose_device, choose_precision
from ..models.shelf import Shelf
from ..models.trained_files import MANIFEST, Manifest, read_manifest, tensor_names
from ..plugins import foreign_method, load_method
from ..run_directory import RunDirectory, read_json
from ..tasks import kind_of_adapter, kind_of_model, load_kind
from ..types import ModelError, Problem, RunError

ADAPTER_CONFIG = "adapter_config.json"


def find_trained(path: Path) -> Path | None:
    """The folder with weights that MODEL means: inside a run directory, or itself. None for a base model.

    Raises RunError for a run whose training is not finished.
    """
    run = RunDirectory(path)
    if run.is_run:
        if run.trained is None:
            fix = f"finish it: lorafy train {path} --resume"
            raise RunError(Problem(str(path), "this run has no trained model yet", fix))
        return run.trained
    is_trained = (path / MANIFEST).is_file() or foreign_method(path) is not None
    return path if is_trained else None


def load_trained(
    path: Path | str, *, trust: bool = False, shelf: Shelf | None = None, base: ModelSection | None = None
) -> Trained:
    """MODEL: a run directory, an adapter folder (ours or any of peft's), or a model (a folder or hub name).

    trust: whether Python code that its folders carry may run; the files' own word for it does not count. shelf: where
    the base's weights may be already, which others share. base: where it lies, whatever the adapter's folder says.
    """
    folder = find_trained(Path(path))
    if folder is None:
        assert shelf is None and base is None, "only what was trained lies on a base"
        return _load_plain(ModelSection(path=str(path), trust_remote_code=trust))
    manifest = read_manifest(folder)
    if manifest is not None:
        return _load_ours(folder, manifest, trust, shelf, base)
    method = foreign_method(folder)
    assert method is not None, "what is no folder of ours is another tool's adapter, or a model"
    return _load_foreign(folder, method, trust, shelf, base)


def _load_ours(
    folder: Path, manifest: Manifest, trust: bool, shelf: Shelf | None, given: ModelSection | None
) -> Trained:
    section = given or _section_of(folder, manifest, trust)
    method = load_method(manifest.method)
    place = method.base_section(section, folder)
    if given is None:
        _look_at_base(section, folder, MANIFEST)
    if place.path != section.path:
        refuse_pickled(folder)
    task = load_kind(manifest.task).restore(manifest, open_source(place, tokenizer_folder=folder))
    base = _load_base(task, place, manifest.seed, shelf)
    if given is not None:
        _require_same_base(folder, manifest, method, base, section)
    if not method.keeps_base and base.new_names:
        raise ModelError(Problem(str(folder), f"missing or misshapen in this folder: {', '.join(base.new_names)}"))
    model = method.load(base.model, folder, manifest.head).eval()
    precision = choose_precision(section.dtype, choose_device())
    shared = shelf is not None
    return Trained(model, task, method, manifest, folder, base, precision, section, shares_base=shared)


def _load_base(task: Task, section: ModelSection, seed: int, shelf: Shelf | None) -> BaseModel:
    base = task.load_base(section, seed, shelf)
    if shelf is not None:
        shelf.share(base.model, base.head)
    _tell_pickle(section)
    return base


def _load_plain(section: ModelSection) -> Trained:
    """A model as it comes: a classifier with the head it has, or a language model, asked without thinking."""
    source = open_source(section)
    task = kind_of_model(source).of_model(source)
    base = task.load_base(section, seed=0)
    _tell_pickle(section)
    precision = choose_precision("auto", choose_device())
    return Trained(base.model.eval(), task, None, None, None, base, precision, section)


def _load_foreign(
    folder: Path, method: AdapterMethod, trust: bool, shelf: Shelf | None, given: ModelSection | None
) -> Trained:
    """An adapter that another tool wrote: base and task from adapter_config.json, number of labels from its head."""
    settings = read_json(folder / ADAPTER_CONFIG)
    base_path = settings.get("base_model_name_or_path")
    if given is None and not base_path:
        raise ModelError(Problem(str(folder), "adapter_config.json names no base model"))
    section = given or ModelSection(path=base_path, trust_remote_code=trust)
    if given is None:
        _look_at_base(section, folder, ADAPTER_CONFIG)
    names = tensor_names(folder / method.weights)  # absent or broken is reported from there
    source = open_source(section)
    task = kind_of_adapter(settings.get("task_type"), source, names).of_adapter(folder, source)
    base = _load_base(task, section, 0, shelf)
    untrained = set(base.new_names) - {name.removeprefix("base_model.model.") for name in names}
    if untrained:
        message = f"neither this adapter nor its base holds {', '.join(sorted(untrained))}"
        fix = "train it again with the whole head in modules_to_save"
        raise ModelError(Problem(str(folder), message, fix))
    model = method.load(base.model, folder, base.head).eval()
    precision = choose_precision(section.dtype, choose_device())
    shared = shelf is not None
    return Trained(model, task, method, None, folder, base, precision, section, shares_base=shared)


def require_same_base(trained: Trained) -> None:
    """Raises ModelError where an adapter lies on another base than it was trained on."""
    if trained.manifest is not None and trained.method is not None and trained.folder is not None:
        _require_same_base(trained.folder, trained.manifest, trained.method, trained.base, trained.section)


def _require_same_base(
    folder: Path, manifest: Manifest, method: AdapterMethod, base: BaseModel, section: ModelSection
) -> None:
    if not method.keeps_base or manifest.base_fingerprint == base.fingerprint:
        return
    message = (
        f"it was trained on other weights than those that {section.path} holds now "
        f"(fingerprint {manifest.base_fingerprint[:12]} then, {base.fingerprint[:12]} now)"
    )
    fix = f"put the weights of {manifest.model['path']} back, or train again"
    raise ModelError(Problem(str(folder), message, fix))


def _section_of(folder: Path, manifest: Manifest, trust: bool) -> ModelSection:
    try:
        return ModelSection(**manifest.model | {"trust_remote_code": trust})
    except (ValidationError, TypeError) as error:
        message = "its section `model` is none that lorafy wrote"
        raise ModelError(Problem(str(folder / MANIFEST), message, "copy it again, or train again")) from error


def _look_at_base(section: ModelSection, folder: Path, file: str) -> None:
    """Tells which base the folder asks for, and refuses a pickle, where it came along or is named relative to wherever
    one stands; tells which one is fetched from the hub. An absolute path elsewhere is this machine's own."""
    place = embedded.resolve(section.path, section.revision)
    base = Path(place)
    if base.is_absolute() and not (base.is_dir() and _came_along(base, folder)):
        return
    kind = "the folder " if base.is_dir() else "from the hub: "
    _tell(f"Base model, as {folder / file} says: {kind}{place}")
    if base.is_dir():
        refuse_pickled(base)


def _came_along(base: Path, folder: Path) -> bool:
    """Whether the folder of a base lies within the folder that names it, or within its run."""
    whole = folder.parent if RunDirectory(folder.parent).is_run else folder
    return base.resolve().is_relative_to(whole.resolve())


def _tell_pickle(section: ModelSection) -> None:
    name = pickled_weights(section)
    if name is not None:
        _tell(f"The weights of {section.path} are a pickle ({name}): only tensors are read from it, no code runs.")


def _tell(text: str) -> None:
    print(printable(text), file=sys.stderr)


VERBS = {"write": "ask it with lorafy generate or lorafy chat", "predict": "use lorafy predict"}
"""What to do with a model of each ability."""


def require_able(name: str, trained: Trained, ability: str | None) -> None:
    kind = trained.task.kind
    if ability is not None and ability not in kind.abilities:
        does = " or ".join(VERBS[known] for known in kind.abilities if known in VERBS)
        raise ModelError(Problem(name, f"this is {kind.noun}", does or None))
