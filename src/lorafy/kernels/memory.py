"""Gives parameters other memory. Nothing else in this package does: no other file assigns to a parameter's `.data`.

What stays: the Parameter itself, the same object under the same name in its model, with its shape and `requires_grad`;
and its values, bit for bit, but in `hold_in`, which rounds them to another dtype. So its model computes what it did,
and what holds the Parameter (the module, peft, an optimizer made before, DistributedDataParallel) goes on holding it.

What changes: the storage that it lies in, so `data_ptr()`, `untyped_storage()`, maybe the strides. What follows:

- A pointer, a view or a `detach()` that was taken before still looks at the old memory, which nobody updates any more.
- Parameters that are joined or flattened share one storage with the whole: to write into one is to write into the
  other, the storage lives as long as any of them, and `torch.save` of one of them writes all of it.
- What gives memory once more ends the sharing without a word: `model.to()` another device or dtype, and `hold_in`. So
  the order is: `hold_in`, the move to the device (accelerate's preparation may be one), then `join` and `flatten`.
- DistributedDataParallel averages into the gradients that `flatten` made as long as it finds them there: they are set
  to zero, never to None, and `gradient_as_bucket_view` stays False, its default; else the flat gradient remains zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


def hold_in(parameter: torch.nn.Parameter, dtype: torch.dtype) -> None:
    """Rounds the values to `dtype`, and lets go of the memory that they lay in."""
    parameter.data = parameter.data.to(dtype)


def lay_out(parameter: torch.nn.Parameter) -> None:
    """Row behind row, where the values lie otherwise."""
    parameter.data = parameter.data.contiguous()


def lie_alone(parameter: torch.nn.Parameter) -> None:
    """A copy of the values, in memory that nothing else looks at."""
    parameter.data = parameter.data.clone()


def join(parameters: Sequence[torch.nn.Parameter], axis: int) -> torch.Tensor:
    """One tensor of matrices that are alike but along `axis`, where they lie side by side; they become its views, so
    that their values are held once. Detached: it is for parameters that are not trained."""
    joined = torch.cat([parameter.detach() for parameter in parameters], axis)
    widths = [parameter.shape[axis] for parameter in parameters]
    for parameter, view in zip(parameters, joined.split(widths, axis), strict=True):
        parameter.data = view
    return joined


def flatten(parameters: Sequence[torch.nn.Parameter]) -> torch.nn.Parameter:
    """One vector that holds the parameters one behind the other; they and their gradients, zero, become its views.

    For an optimizer that updates the vector in place of them.
    """
    flat = torch.nn.Parameter(torch.cat([parameter.detach().flatten() for parameter in parameters]))
    flat.grad = torch.zeros_like(flat)
    sizes = [parameter.numel() for parameter in parameters]
    for parameter, values, grad in zip(parameters, flat.data.split(sizes), flat.grad.split(sizes), strict=True):
        parameter.data = values.view_as(parameter)
        parameter.grad = grad.view_as(parameter)
    return flat
