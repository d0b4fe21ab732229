"""The pixels behind visual tokens."""

from __future__ import annotations

from math import isqrt

from torch import Tensor

from compress.runtime.tokens.places.kind import Seen


def patch_pixels(seen: Seen, units: Tensor, prefix: int) -> Tensor:
    """Grey pixels of each token's patches, float32 `[n, pixels]`, from 0 for the darkest of the call to 1.

    `units` `[n, patches]` as `Grid` has them.
    """
    grey = _patches(seen, prefix).mean(1).flatten(1)
    low, high = grey.min(), grey.max()
    return ((grey - low) / (high - low).clamp_min(1e-12))[units].flatten(1)


def coloured(seen: Seen, units: Tensor, prefix: int, shape: tuple[int, int]) -> Tensor:
    """The picture of a grid of `shape` rows and columns, float32 `[height, width, channels]`, each channel from 0 for
    its lowest value to 1."""
    patches = _patches(seen, prefix)
    rows, columns = shape
    side = isqrt(units.shape[1])
    # [rows, columns, side, side, channels, height, width] → [rows, side, height, columns, side, width, channels]
    tokens = patches[units.to(patches.device)].unflatten(1, (side, side)).unflatten(0, (rows, columns))
    tokens = tokens.permute(0, 2, 5, 1, 3, 6, 4)
    picture = tokens.flatten(3, 5).flatten(0, 2)
    low, high = picture.amin((0, 1)), picture.amax((0, 1))
    return (picture - low) / (high - low).clamp_min(1e-12)


def _patches(seen: Seen, prefix: int) -> Tensor:
    """Every patch that the tower ran over, float32 `[patches, channels, height, width]`.

    Pixels come as pictures `[…, channels, height, width]`, or as patches `[patches, channels · frames · height ·
    width]`, of which the first frame is taken.
    """
    pixels: Tensor = seen.given["pixel_values"].float()
    assert seen.hidden is not None
    if pixels.dim() == 2:
        pixels = pixels if seen.order is None else pixels[seen.order.to(pixels.device)]
        frames = _frames(pixels.shape[1])
        side = isqrt(pixels.shape[1] // (3 * frames))
        return pixels.view(len(pixels), 3, frames, side, side)[:, :, 0]
    tiles = pixels.flatten(0, -4) if pixels.dim() > 4 else pixels
    tiles = tiles[tiles.flatten(1).any(1)] if len(tiles) != len(seen.hidden) else tiles
    count = seen.hidden.shape[1] - prefix
    rows = isqrt(round(count * tiles.shape[-2] / tiles.shape[-1]))
    side = tiles.shape[-2] // rows
    windows = tiles.unfold(2, side, side).unfold(3, side, side)  # [tiles, channels, rows, columns, side, side]
    return windows.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)


def _frames(values: int) -> int:
    """How many frames of three square channels so many `values` of a patch are: one, or two of a film."""
    return 1 if isqrt(values // 3) ** 2 * 3 == values else 2
