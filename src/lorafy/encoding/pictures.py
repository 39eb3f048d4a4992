"""Pictures as a vision-language model takes them: cut into patches, and as so many tokens."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from ..pictures.opening import open_picture
from ..types import Picture, PlacedPicture

KEPT_BYTES = 2**28
"""Patches that are kept for the next time: some 40 pictures of 256 tokens. Decoding one takes about 10 ms."""


@dataclass(frozen=True)
class PictureEncoder:
    """The image processor of a Qwen-VL model, and the most pixels that a picture is shown with.

    processor: transformers' own, by Pillow (torchvision's rounds otherwise), its `size` already lowered to max_pixels.
    """

    processor: Any
    max_pixels: int
    _kept: OrderedDict[tuple[str, int, int], torch.Tensor] = field(default_factory=OrderedDict, repr=False)

    @property
    def side(self) -> int:
        """Pixels of one token's side: `merge_size` patches."""
        return self.processor.patch_size * self.processor.merge_size

    def grid(self, picture: Picture) -> tuple[int, int]:
        """Rows and columns of the tokens that a picture becomes. It has been looked at before."""
        size = self.processor.size
        height, width = smart_resize(
            picture.height, picture.width, self.side, min_pixels=size.shortest_edge, max_pixels=size.longest_edge
        )
        return height // self.side, width // self.side

    def fits(self, picture: Picture) -> bool:
        """Whether it keeps to max_pixels: a picture that is far longer than wide is shown with one row at least."""
        rows, columns = self.grid(picture)
        return rows * columns * self.side**2 <= self.max_pixels

    def patches(self, placed: PlacedPicture) -> torch.Tensor:
        """The patches of a picture (4 · rows · columns, C), float32, the four of a token one behind the other. C: the
        values of a patch, twice, as for two frames of a film. Raises DataError where it cannot be read any more."""
        picture, grid = placed.picture, (placed.rows, placed.columns)
        key = (picture.sha256, *grid)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        image, settings = open_picture(picture), {}
        if grid != self.grid(picture):
            image = image.resize((placed.columns * self.side, placed.rows * self.side))
            # A probe's, however small the pictures of the run are.
            settings["size"] = {"shortest_edge": self.side**2, "longest_edge": image.width * image.height}
        made = self.processor(images=[image], return_tensors="pt", **settings)
        patches, found = made["pixel_values"], made["image_grid_thw"][0].tolist()
        merge = self.processor.merge_size
        assert found == [1, grid[0] * merge, grid[1] * merge], f"{picture.name} came out as {found}, not as {grid}"
        self._kept[key] = patches
        while sum(kept.nbytes for kept in self._kept.values()) > KEPT_BYTES and len(self._kept) > 1:
            self._kept.popitem(last=False)
        return patches

    def grid_thw(self, placed: PlacedPicture) -> list[int]:
        """Frames, rows and columns of its patches, as transformers counts them."""
        merge = self.processor.merge_size
        return [1, placed.rows * merge, placed.columns * merge]
