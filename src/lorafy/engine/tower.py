"""What a model's vision tower makes of pictures: computed where it is trained, else once for each picture and kept."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..types import PlacedPicture

SHARE_OF_FREE = 0.25
"""The share of the free memory that kept features may take; what is more goes to the disk."""

Look = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Patches (N, C), float32, and frames, rows and columns of each picture's (I, 3) -> features (1 + L, P, H): what stands
for the P tokens in the stream, and what is added to them behind each of the first L layers."""


@dataclass
class Tower:
    """Pictures -> features, on the model's device. `frozen`: nothing of it is trained, so that a picture's features are
    computed alone, once, and kept."""

    look: Look
    patches: Callable[[PlacedPicture], torch.Tensor]
    merge: int
    dtype: torch.dtype
    device: torch.device
    frozen: bool
    keeps: bool = True
    store: FeatureStore = field(default_factory=lambda: FeatureStore.within_memory())

    @property
    def remembers(self) -> bool:
        """Whether a picture is looked at once only."""
        return self.frozen and self.keeps

    def __call__(self, pictures: Sequence[PlacedPicture]) -> torch.Tensor:
        """(1 + L, P, H), the pictures one behind the other. Raises DataError where one cannot be read."""
        if self.frozen:
            return torch.cat([self._alone(picture) for picture in pictures], 1)
        return self._look(pictures)

    def _alone(self, picture: PlacedPicture) -> torch.Tensor:
        """Of a product of many rows torch may round one row otherwise than alone, so each picture is looked at alone,
        kept or not: then what is kept equals what is computed, bit for bit."""
        key = f"{picture.picture.sha256}-{picture.rows}x{picture.columns}"
        found = self.store.get(key) if self.remembers else None
        if found is None:
            with torch.no_grad():
                found = self._look([picture])
            if self.remembers:
                self.store.put(key, found)
        return found.to(self.device)

    def _look(self, pictures: Sequence[PlacedPicture]) -> torch.Tensor:
        patches = torch.cat([self.patches(picture) for picture in pictures]).to(self.device)
        grids = [[1, picture.rows * self.merge, picture.columns * self.merge] for picture in pictures]
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            return self.look(patches, torch.tensor(grids, device=self.device))


@dataclass
class FeatureStore:
    """Features by picture: in memory up to `limit_bytes`, on disk beyond it, for as long as the process lives."""

    limit_bytes: int
    held_bytes: int = 0
    disk_bytes: int = 0
    _held: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)
    _on_disk: set[str] = field(default_factory=set, repr=False)
    _folder: tempfile.TemporaryDirectory[str] | None = field(default=None, repr=False)

    @classmethod
    def within_memory(cls) -> FeatureStore:
        """With a share of the memory that is free now."""
        return cls(int(SHARE_OF_FREE * psutil.virtual_memory().available))

    def get(self, key: str) -> torch.Tensor | None:
        """What was put there, bit for bit; None where there is nothing, or the disk gives it back no more."""
        if key in self._held:
            return self._held[key]
        if key not in self._on_disk:
            return None
        try:
            return load_file(self._path(key))["features"]
        except (OSError, SafetensorError):
            self._on_disk.discard(key)
            return None

    def put(self, key: str, features: torch.Tensor) -> None:
        """Keeps a copy in the computer's memory, or on disk; on a full disk nothing is kept."""
        features = features.detach().cpu().contiguous()
        if self.held_bytes + features.nbytes <= self.limit_bytes:
            self._held[key] = features
            self.held_bytes += features.nbytes
            return
        try:
            save_file({"features": features}, self._path(key))
        except (OSError, SafetensorError):
            self._path(key).unlink(missing_ok=True)
            return
        self._on_disk.add(key)
        self.disk_bytes += features.nbytes

    def _path(self, key: str) -> Path:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="lorafy-pictures-", ignore_cleanup_errors=True)
        return Path(self._folder.name) / f"{key}.safetensors"
