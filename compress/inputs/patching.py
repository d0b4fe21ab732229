"""Images that a forward takes cut into patches, of any size: how the patches lie, and what tells of their grid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn

from compress.inputs.ask import main_input, needs, options, takes
from compress.inputs.batch import END_TO_END, SIDE_BY_SIDE, Batch
from compress.inputs.layout import PIXELS, Layout, pair

FLAT = "flattened_patches"
"""Patches that say themselves where they lie."""

GRIDS = "image_grid_thw", "grid_thw"
"""What forwards call how many patches there are along time, height and width."""

POSITIONS, SHAPES = "pixel_position_ids", ("pixel_attention_mask", "spatial_shapes")
"""The column and row of each patch; which are no padding, and how many there are along height and width."""

MERGED = 2, 8
"""Patches along a side of an image, after neighbours were merged: of the small images that are traced, and of those
that are calibrated on."""


@dataclass(frozen=True)
class Patches(Layout):
    """Patches of all images laid end to end, `[rows · patches, channels · frames · patch²]`, with how many there are
    along time, height and width: images may be of any size. Neighbours that are merged later stand together.

    `square`: each is `[channels, patch, patch]`. `pixels`, `grid` and `merges` are the arguments; the last tells how
    many patches along a side are merged, where that is not "".
    """

    patch: int
    frames: int
    merge: int
    square: bool = False
    pixels: str = PIXELS
    grid: str = GRIDS[0]
    merges: str = ""

    def lay(self, images: Tensor) -> Batch:
        rows, channels, height, width = images.shape
        down, across, merge, patch = height // self.patch, width // self.patch, self.merge, self.patch
        film = images[:, None].expand(-1, self.frames, -1, -1, -1)
        parts = film.reshape(
            *(rows, self.frames, channels, down // merge, merge, patch, across // merge, merge, patch)
        ).permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
        one = (channels * self.frames, patch, patch) if self.square else (channels * self.frames * patch * patch,)
        grid = {self.grid: torch.tensor([[1, down, across]]).repeat(rows, 1)}
        merges = {self.merges: torch.full((rows,), merge)} if self.merges else {}
        return {self.pixels + END_TO_END: parts.reshape(rows, down * across, *one), **grid, **merges}


@dataclass(frozen=True)
class Tokens(Layout):
    """A square of patches for each token that stands for a part of an image, of all images end to end:
    `[rows · tokens, side, side, channels]`, with how many tokens there are along time, height and width."""

    side: int
    grid: str = GRIDS[0]

    def lay(self, images: Tensor) -> Batch:
        rows, channels, height, width = images.shape
        down, across, side = height // self.side, width // self.side, self.side
        parts = images.reshape(rows, channels, down, side, across, side).permute(0, 2, 4, 3, 5, 1)
        grid = torch.tensor([[1, down, across]]).repeat(rows, 1)
        return {PIXELS + END_TO_END: parts.reshape(rows, down * across, side, side, channels), self.grid: grid}


@dataclass(frozen=True)
class Strips(Layout):
    """Patches of all images side by side, `[1, channels, patch, rows · patches · patch]`, and `target_sizes`, how many
    there are along height and width."""

    patch: int

    def lay(self, images: Tensor) -> Batch:
        rows, channels, height, width = images.shape
        down, across, patch = height // self.patch, width // self.patch, self.patch
        parts = images.reshape(rows, channels, down, patch, across, patch).permute(0, 1, 3, 2, 4, 5)
        sizes = torch.tensor([[down, across]], dtype=torch.int32).repeat(rows, 1)
        strip = parts.reshape(rows, channels, patch, down * across * patch)
        return {PIXELS + SIDE_BY_SIDE: strip, "target_sizes": sizes}


@dataclass(frozen=True)
class Rows(Layout):
    """A row of patches for each image, `[rows, patches, patch² · channels]`, of which none is padding.

    `places` are the arguments that tell where they lie: a mask and the grid, or the column and row of each.
    """

    patch: int
    places: tuple[str, ...]

    def lay(self, images: Tensor) -> Batch:
        rows, channels, height, width = images.shape
        down, across, patch = height // self.patch, width // self.patch, self.patch
        parts = images.reshape(rows, channels, down, patch, across, patch).permute(0, 2, 4, 3, 5, 1)
        columns = torch.arange(across).repeat(down)
        told = {
            "pixel_attention_mask": torch.ones(rows, down * across, dtype=torch.long),
            "spatial_shapes": torch.tensor([[down, across]]).repeat(rows, 1),
            POSITIONS: torch.stack([columns, torch.arange(down).repeat_interleave(across)], 1).repeat(rows, 1, 1),
        }
        flat = parts.reshape(rows, down * across, patch * patch * channels)
        return {PIXELS: flat, **{name: told[name] for name in self.places}}


@dataclass(frozen=True)
class Numbered(Layout):
    """A row of patches for each image, `[rows, patches, 2 + patch² · channels]`: first its row and column, from 1."""

    patch: int

    def lay(self, images: Tensor) -> Batch:
        down, across = images.shape[2] // self.patch, images.shape[3] // self.patch
        flat = Rows(self.size, self.patch, ()).lay(images)[PIXELS]
        places = torch.cartesian_prod(torch.arange(1, down + 1), torch.arange(1, across + 1))
        return {FLAT: torch.cat([places.to(flat).expand(len(flat), -1, -1), flat], 2)}


def wants_patches(model: nn.Module) -> bool:
    """Whether a model reads images alone, and has to be told how they were cut."""
    alone = not takes(model, "input_ids") and (takes(model, PIXELS) or takes(model, "hidden_states"))
    told = any(name in needs(model) for name in (*GRIDS, *SHAPES, POSITIONS))
    return (alone and (told or takes(model, "target_sizes"))) or main_input(model) == FLAT


def patched(model: nn.Module, vision: Any, *, small: bool) -> Iterator[Layout]:
    """The ways of giving patches that the forward's signature leaves open; none where it takes whole images. `vision`
    is the part of the config that tells of images."""
    channels = options(vision, "num_channels", "in_channels", "in_chans") or 3
    patch = pair(options(vision, "patch_size") or 14)[0]
    merge = pair(options(vision, "spatial_merge_size", "merge_size", "merge_kernel_size") or 2)[0]
    side = patch * merge * MERGED[0 if small else 1]
    size = channels, side, side
    if main_input(model) == FLAT:
        wide = options(vision, "patch_embed_hidden_size") or channels * patch * patch
        patch = isqrt(wide // channels)
        yield Numbered((channels, 2 * patch, 2 * patch), patch)
        return
    if takes(model, "target_sizes"):
        yield Strips(size, patch)
    for places in (SHAPES, (POSITIONS,)):
        if takes(model, *places):
            yield Rows(size, patch, places)
    grid = next((name for name in GRIDS if takes(model, name)), None)
    if grid is None:
        return
    name = PIXELS if takes(model, PIXELS) else "hidden_states"
    merges = next((name for name in ("merge_sizes", "image_merge_sizes") if takes(model, name)), "")
    for frames in dict.fromkeys((options(vision, "temporal_patch_size") or 1, 1, 2)):  # some configs do not say it
        yield Patches(size, patch, frames, merge, False, name, grid, merges)
    yield Patches(size, patch, 1, merge, True, name, grid, merges)
    if name == PIXELS:
        yield Tokens(size, patch * merge, grid)
