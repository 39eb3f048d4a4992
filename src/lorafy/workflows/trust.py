"""Who may let the Python code of a model run: whoever runs the verb, on the command line or in the recipe that they
name. Nothing that comes with a model, an adapter or a run grants itself anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from ..config import RunConfig, load_config
from ..config.flat import override_name
from ..config.load import normalise_overrides
from ..types import ConfigError, Problem
from .runs import is_config_of_run, refuse_several

TRUST = "model.trust_remote_code"
GIVEN = f"{TRUST}=true"
"""The word for it on a command line."""


def take_trust(overrides: Sequence[str]) -> tuple[list[str], bool | None]:
    """The other overrides, and what these say of the model's code; None where they say nothing."""
    overrides = normalise_overrides(overrides)
    rest = [override for override in overrides if override_name(override) != TRUST]
    said = [override.partition("=")[2] for override in overrides if override_name(override) == TRUST]
    if not said:
        return rest, None
    try:
        value = yaml.safe_load(said[-1])
    except yaml.YAMLError:
        value = None
    if not isinstance(value, bool):
        raise ConfigError(Problem(TRUST, f"should be true or false, but it is {said[-1]}"))
    return rest, value


def trust_for(model: Path | str, said: bool | None) -> bool:
    """Whether code of MODEL may run. said: on the command line. A recipe that stands for its run is the person's own;
    the config.yaml of a run is not: it came with the run."""
    path = Path(model)
    refuse_several(path)
    if said is not None:
        return said
    is_recipe = path.suffix.lower() in (".yaml", ".yml") and path.is_file() and not is_config_of_run(path)
    return is_recipe and load_config(path).model.trust_remote_code


def refuse_own_word(run: Path, config: RunConfig, overrides: Sequence[str]) -> None:
    """Raises ConfigError where the config.yaml of a run that is named by its folder lets code run, and the command line
    does not say so too."""
    if config.model.trust_remote_code and take_trust(overrides)[1] is None:
        message = f"{run / 'config.yaml'} says true, but a run has no say in whether code of its model runs"
        raise ConfigError(Problem(TRUST, message, f"read that code; to run it add {GIVEN}"))
