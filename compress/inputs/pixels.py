"""How a forward takes images: of which size, and laid out in which way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from compress.inputs.ask import options, takes
from compress.inputs.batch import Batch
from compress.inputs.layout import PIXELS, USUAL, Layout, pair
from compress.inputs.patching import Patches, Strips, patched

FRAMES = ("num_frames", "frames_per_clip")
"""What configs call the number of a video's frames."""

LARGE, TILE_MASK = "high_res_pixel_values", "pixel_attention_mask"

MOST_TILES = 5
"""Into which a picture as large as one tile may be cut, and itself once more as a whole."""


class Plain(Layout):
    """Images as they are."""

    def lay(self, images: Tensor) -> Batch:
        return {PIXELS: images}


@dataclass(frozen=True)
class Tiled(Layout):
    """A row of images (parts of one picture) for each sample: `[rows, tiles, channels, height, width]`.

    `sized`: with the size of the picture that they are parts of; `masked`: with a mask of those that are no padding.
    Without any tiles it is the picture as it is.
    """

    tiles: int = 1
    sized: bool = False
    masked: bool = False

    def lay(self, images: Tensor) -> Batch:
        """Each tile is the whole picture."""
        rows, _, height, width = images.shape
        tiled = images[:, None].expand(-1, self.tiles, -1, -1, -1).contiguous() if self.tiles else images
        sizes = {"image_sizes": torch.tensor([[height, width]]).repeat(rows, 1)} if self.sized else {}
        masks = {TILE_MASK: torch.ones(rows, self.tiles, dtype=torch.bool)} if self.masked else {}
        return {PIXELS: tiled, **sizes, **masks}


@dataclass(frozen=True)
class Film(Layout):
    """A video that does not move for each sample: `[rows, frames, channels, height, width]`, as the argument `name`."""

    frames: int
    name: str = PIXELS

    def lay(self, images: Tensor) -> Batch:
        return {self.name: images[:, None].expand(-1, self.frames, -1, -1, -1).contiguous()}


@dataclass(frozen=True)
class Twice(Layout):
    """Images as they are, and `large` ones of the same for a second tower."""

    large: tuple[int, int] = (USUAL, USUAL)

    def lay(self, images: Tensor) -> Batch:
        return {PIXELS: images, LARGE: nn.functional.interpolate(images, self.large)}


@dataclass(frozen=True)
class Aspects(Layout):
    """Tiles with the number of their arrangement: `[rows, images, tiles, channels, height, width]`."""

    tiles: int = 1

    def lay(self, images: Tensor) -> Batch:
        """The first tile is the picture, the others are masked."""
        rows = len(images)
        tiled = torch.zeros(rows, 1, self.tiles, *images.shape[1:])
        tiled[:, 0, 0] = images
        mask = torch.zeros(rows, 1, self.tiles, dtype=torch.long)
        mask[..., 0] = 1
        return {PIXELS: tiled, "aspect_ratio_ids": torch.ones(rows, 1, dtype=torch.long), "aspect_ratio_mask": mask}


def layouts(model: nn.Module, config: Any, *, small: bool) -> Iterator[Layout]:
    """The ways of giving images that the forward's signature leaves open, the likeliest first; `small` images where
    they may be of any size."""
    vision = getattr(config, "vision_config", config)
    cut_up = list(patched(model, vision, small=small))
    yield from cut_up
    if any(isinstance(layout, Patches | Strips) for layout in cut_up):
        return
    channels = options(vision, "num_channels", "in_channels", "in_chans") or 3
    size = channels, *pair(options(vision, "image_size", "img_size", "max_img_size") or USUAL)
    if takes(model, "aspect_ratio_ids"):
        yield Aspects(size, options(vision, "max_num_tiles") or 1)
        return
    if takes(model, LARGE):
        yield Twice(size, pair(options(getattr(config, "high_res_vision_config", None), "image_size") or USUAL))
        return
    frames = options(config, *FRAMES)
    yield Plain(size)
    yield Tiled(size)
    yield from [Film(size, frames)] if frames else []
    if TILE_MASK in signature(getattr(getattr(model, "model", None), "get_image_features", model.forward)).parameters:
        yield Tiled(size, masked=True)
    if takes(model, "image_sizes"):
        yield from (Tiled(size, tiles, sized=True) for tiles in range(MOST_TILES + 1))
