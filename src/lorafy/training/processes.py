"""The processes that train together, and the device of this one."""

from __future__ import annotations

import os

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, GradientAccumulationPlugin

from ..types import ConfigError, Problem


def make_accelerator() -> Accelerator:
    """The device and the processes. Accumulation and precision are the recipe's, whatever the launcher's file says.

    Raises ConfigError under a launcher that shards the model, or whose processes do not see each other.
    """
    join_processes()
    plugin = GradientAccumulationPlugin(num_steps=1)
    accelerator = Accelerator(mixed_precision="no", gradient_accumulation_plugin=plugin)
    if accelerator.distributed_type not in (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU):
        message = f"lorafy does not train under {accelerator.distributed_type.value}"
        raise ConfigError(Problem("the launcher", message, "use data-parallel processes: torchrun, accelerate launch"))
    launched = int(os.environ.get("WORLD_SIZE", 1))
    if launched != accelerator.num_processes:
        message = f"it started {launched} processes, but they do not see each other"
        raise ConfigError(Problem("the launcher", message, "start lorafy without it"))
    return accelerator


def join_processes() -> None:
    """Joins a launcher's processes; call it before anything else of accelerate.

    Without a GPU accelerate has to be told so: else each process takes itself for the only one, and all write.
    """
    PartialState(cpu="LOCAL_RANK" in os.environ and not torch.cuda.is_available())


def is_main_process() -> bool:
    """Whether this process writes and prints: one of a launcher's processes does, the others only train."""
    return PartialState().is_main_process
