"""Pictures of any size, whose neighbouring patches are merged: Qwen2-VL, Qwen2.5-VL, Qwen3-VL and their like."""

from __future__ import annotations

import inspect
import sys

import torch
from torch import Tensor, nn

from compress.registry import token_places
from compress.runtime.tokens.places.kind import Grid, Places, Seen


@token_places.add("merged")
class Merged(Places):
    """Grids given by `image_grid_thw`; the processor puts the patches of a token one after the other."""

    @classmethod
    def fits(cls, core: nn.Module) -> bool:
        return hasattr(core, "get_rope_index")

    @property
    def late(self) -> int:
        return len(getattr(self.tower, "deepstack_visual_indexes", ()))

    def grids(self, seen: Seen) -> list[list[Grid]]:
        sizes: Tensor = seen.given["image_grid_thw"]
        side = int(self.tower.spatial_merge_size)  # pyright: ignore[reportArgumentType]
        units = self._order(sizes).to("cpu")[:, None] * side**2 + torch.arange(side**2)
        seen.order = units.flatten().argsort()
        found, start = [], 0
        for (frames, rows, columns), tokens in zip(sizes.tolist(), seen.counts, strict=True):
            shape = (frames * rows // side, columns // side)
            found.append([Grid(torch.arange(tokens), shape, units[start : start + tokens])])
            start += tokens
        return found

    def _order(self, sizes: Tensor) -> Tensor:
        """Where each token, in the order of the prompts, stands in the tower: Qwen2.5-VL's works window by window."""
        count = int((sizes.prod(-1) // int(self.tower.spatial_merge_size) ** 2).sum())  # pyright: ignore
        windows = getattr(sys.modules[type(self.tower).__module__], "get_vision_window_index", None)
        if windows is None:
            return torch.arange(count)
        wanted = [name for name in inspect.signature(windows).parameters if hasattr(self.tower, name)]
        index, _ = windows(sizes, **{name: getattr(self.tower, name) for name in wanted})
        return torch.as_tensor(index).argsort()
