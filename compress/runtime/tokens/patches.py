"""The pixels behind visual tokens."""

from __future__ import annotations

from math import isqrt

from torch import Tensor

from compress.runtime.tokens.places.kind import Seen


def patch_pixels(seen: Seen, units: Tensor, prefix: int) -> Tensor:
    """Grey pixels of each token's patches, float32 `[n, pixels]`, from 0 for the darkest of the call to 1.

    `units` `[n, patches]` as `Grid` has them. Pixels come as pictures `[…, channels, height, width]`, or as patches
    `[patches, channels · frames · height · width]`.
    """
    pixels: Tensor = seen.given["pixel_values"].float()
    assert seen.hidden is not None
    if pixels.dim() == 2:
        grey = pixels.unflatten(1, (3, -1)).mean(1)
        grey = grey if seen.rows is None else grey[seen.rows.to(grey.device)]
    else:
        tiles = pixels.flatten(0, -4) if pixels.dim() > 4 else pixels
        tiles = tiles[tiles.flatten(1).any(1)] if len(tiles) != len(seen.hidden) else tiles
        count = seen.hidden.shape[1] - prefix
        rows = isqrt(round(count * tiles.shape[-2] / tiles.shape[-1]))
        side = tiles.shape[-2] // rows
        windows = tiles.mean(1).unfold(1, side, side).unfold(2, side, side)
        grey = windows.flatten(3).flatten(0, 2)
    low, high = grey.min(), grey.max()
    return ((grey - low) / (high - low).clamp_min(1e-12))[units].flatten(1)
