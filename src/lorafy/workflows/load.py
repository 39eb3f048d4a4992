"""MODEL, loaded from disk: a run, an adapter's folder (of other tools too), a model as it comes."""

from __future__ import annotations

from pathlib import Path

from ..config.schema import ModelSection
from ..contracts import AdapterMethod
from ..inference.trained import Trained
from ..models.load import open_source
from ..models.precision import choose_device, choose_precision
from ..models.trained_files import MANIFEST, Manifest, read_manifest, tensor_names
from ..plugins import foreign_method, load_method
from ..run_directory import RunDirectory, read_json
from ..tasks import kind_of_adapter, kind_of_model, load_kind
from ..types import ModelError, Problem, RunError


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


def load_trained(path: Path | str) -> Trained:
    """MODEL: a run directory, an adapter folder (ours or any of peft's), or a model (a folder or hub name)."""
    folder = find_trained(Path(path))
    if folder is None:
        return _load_plain(ModelSection(path=str(path)))
    manifest = read_manifest(folder)
    if manifest is not None:
        return _load_ours(folder, manifest)
    method = foreign_method(folder)
    assert method is not None, "what is no folder of ours is another tool's adapter, or a model"
    return _load_foreign(folder, method)


def _load_ours(folder: Path, manifest: Manifest) -> Trained:
    section, method = ModelSection(**manifest.model), load_method(manifest.method)
    place = method.base_section(section, folder)
    task = load_kind(manifest.task).restore(manifest, open_source(place, tokenizer_folder=folder))
    base = task.load_base(place, manifest.seed)
    if not method.keeps_base and base.new_names:
        raise ModelError(Problem(str(folder), f"missing or misshapen in this folder: {', '.join(base.new_names)}"))
    model = method.load(base.model, folder, manifest.head)
    precision = choose_precision(section.dtype, choose_device())
    return Trained(model.eval(), task, method, manifest, folder, base, precision, section)


def _load_plain(section: ModelSection) -> Trained:
    """A model as it comes: a classifier with the head it has, or a language model, asked without thinking."""
    source = open_source(section)
    task = kind_of_model(source).of_model(source)
    base = task.load_base(section, seed=0)
    precision = choose_precision("auto", choose_device())
    return Trained(base.model.eval(), task, None, None, None, base, precision, section)


def _load_foreign(folder: Path, method: AdapterMethod) -> Trained:
    """An adapter that another tool wrote: base and task from adapter_config.json, number of labels from its head."""
    settings = read_json(folder / "adapter_config.json")
    base_path = settings.get("base_model_name_or_path")
    if not base_path:
        raise ModelError(Problem(str(folder), "adapter_config.json names no base model"))
    section = ModelSection(path=base_path)
    names = tensor_names(folder / method.weights)  # absent or broken is reported from there
    task = kind_of_adapter(settings.get("task_type")).of_adapter(folder, open_source(section))
    base = task.load_base(section, seed=0)
    untrained = set(base.new_names) - {name.removeprefix("base_model.model.") for name in names}
    if untrained:
        message = f"neither this adapter nor its base holds {', '.join(sorted(untrained))}"
        fix = "train it again with the whole head in modules_to_save"
        raise ModelError(Problem(str(folder), message, fix))
    model = method.load(base.model, folder, base.head)
    precision = choose_precision("auto", choose_device())
    return Trained(model.eval(), task, method, None, folder, base, precision, section)
