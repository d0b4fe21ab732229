"""How a forward takes images: of which size, and laid out in which way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compress.inputs.ask import options, takes
from compress.inputs.batch import END_TO_END, Batch

PIXELS = "pixel_values"
FRAMES = ("num_frames", "frames_per_clip")
"""What configs call the number of a video's frames."""

USUAL = 224
"""Height and width of an image for a model whose config names none."""

MERGED = 2, 8
"""Patches along a side of an image, after neighbours were merged, for models that take images of any size: of the small
images that are traced, and of those that are calibrated on."""

MOST_TILES = 5
"""Into which a picture as large as one tile may be cut, and itself once more as a whole."""


@dataclass(frozen=True)
class Layout(ABC):
    """What a forward is given for images `[rows, channels, height, width]`, of the `size` (channels, height, width)."""

    size: tuple[int, int, int]

    @abstractmethod
    def lay(self, images: Tensor) -> Batch:
        """The forward's tensors by name; the first dimension of each is the row."""


class Plain(Layout):
    """Images as they are."""

    def lay(self, images: Tensor) -> Batch:
        return {PIXELS: images}


@dataclass(frozen=True)
class Tiled(Layout):
    """A row of images (parts of one picture) for each sample: `[rows, tiles, channels, height, width]`.

    `sized`: with the size of the picture that they are parts of. Without any tiles it is the picture as it is.
    """

    tiles: int = 1
    sized: bool = False

    def lay(self, images: Tensor) -> Batch:
        """Each tile is the whole picture."""
        rows, _, height, width = images.shape
        tiled = images[:, None].expand(-1, self.tiles, -1, -1, -1).contiguous() if self.tiles else images
        sizes = {"image_sizes": torch.tensor([[height, width]]).repeat(rows, 1)} if self.sized else {}
        return {PIXELS: tiled, **sizes}


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


@dataclass(frozen=True)
class Patches(Layout):
    """Patches of all images laid end to end, `[rows · patches, channels · frames · patch²]`, with how many there are
    along time, height and width: images may be of any size. Neighbours that are merged later stand together."""

    patch: int
    frames: int
    merge: int

    def lay(self, images: Tensor) -> Batch:
        rows, channels, height, width = images.shape
        down, across, merge, patch = height // self.patch, width // self.patch, self.merge, self.patch
        film = images[:, None].expand(-1, self.frames, -1, -1, -1)
        parts = film.reshape(
            *(rows, self.frames, channels, down // merge, merge, patch, across // merge, merge, patch)
        ).permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
        flat = parts.reshape(rows, down * across, channels * self.frames * patch * patch)
        return {PIXELS + END_TO_END: flat, "image_grid_thw": torch.tensor([[1, down, across]]).repeat(rows, 1)}


def layouts(model: nn.Module, config: Any, *, small: bool) -> Iterator[Layout]:
    """The ways of giving images that the forward's signature leaves open, the likeliest first; `small` images where
    they may be of any size."""
    vision = getattr(config, "vision_config", config)
    channels = options(vision, "num_channels", "in_channels", "in_chans") or 3
    if takes(model, "image_grid_thw"):
        patch, merge = options(vision, "patch_size") or 14, options(vision, "spatial_merge_size", "merge_size") or 2
        side = patch * merge * MERGED[0 if small else 1]
        yield Patches((channels, side, side), patch, options(vision, "temporal_patch_size") or 1, merge)
        return
    size = channels, *pair(options(vision, "image_size", "img_size") or USUAL)
    if takes(model, "aspect_ratio_ids"):
        yield Aspects(size, options(vision, "max_num_tiles") or 1)
        return
    yield Plain(size)
    yield Tiled(size)
    if takes(model, "image_sizes"):
        yield from (Tiled(size, tiles, sized=True) for tiles in range(MOST_TILES + 1))


def pair(size: Any) -> tuple[int, int]:
    """Height and width, of a number, a pair, or a mapping of both."""
    if isinstance(size, dict):
        sides = [size.get(side, size.get("shortest_edge", USUAL)) for side in ("height", "width")]
        return sides[0], sides[1]
    return (size[0], size[1]) if isinstance(size, list | tuple) else (size, size)
