"""Positions of tokens among pictures: three axes, as Qwen2-VL counts them (Wang et al. 2024, section 2.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..types import PlacedPicture


def three_axes(num_tokens: int, pictures: Sequence[PlacedPicture]) -> torch.Tensor:
    """Time, line and column of each token of one sequence: (3, num_tokens).

    A text counts on in all three. A picture stands at one time, its tokens count their line and column from there; the
    text behind it goes on at the greatest of all so far, plus one.
    """
    parts: list[torch.Tensor] = []
    place = position = 0
    for picture in pictures:
        text = picture.start - place
        parts.append(torch.arange(position, position + text).expand(3, -1))
        position += text
        lines = torch.arange(picture.rows).repeat_interleave(picture.columns)
        columns = torch.arange(picture.columns).repeat(picture.rows)
        parts.append(position + torch.stack([torch.zeros_like(lines), lines, columns]))
        position += max(picture.rows, picture.columns)
        place = picture.start + picture.num_tokens
    parts.append(torch.arange(position, position + num_tokens - place).expand(3, -1))
    return torch.cat(parts, 1)
