"""The recipe: schema.py is the tree, load.py turns YAML and overrides into it."""

from .load import config_tree, load_config, parse_config, to_yaml
from .schema import RunConfig

__all__ = ["RunConfig", "config_tree", "load_config", "parse_config", "to_yaml"]
