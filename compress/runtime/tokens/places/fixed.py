"""Pictures, or tiles of pictures, of one size: each gives the same number of tokens, in rows and columns.

LLaVA, InternVL, Idefics 3, SmolVLM, Gemma 3 and their like; a token is one patch, or a square of patches put together.
"""

from __future__ import annotations

from itertools import count
from typing import Any

import torch
from torch import nn

from compress.registry import token_places
from compress.runtime.tokens.places.kind import Grid, Places, Seen, blocks, side_of, square


@token_places.add("fixed")
class Fixed(Places):
    """Tiles of one size."""

    @classmethod
    def fits(cls, core: nn.Module) -> bool:
        return not hasattr(core, "pack_image_features") and not hasattr(core, "get_rope_index")

    def grids(self, seen: Seen) -> list[list[Grid]]:
        """One grid for each tile; of a tower that did not run, each picture is taken as one tile."""
        tiles = None if seen.hidden is None or seen.hidden.dim() != 3 else len(seen.hidden)
        if tiles is None or sum(seen.counts) % tiles:
            return [[Grid(torch.arange(tokens), square(tokens), None)] for tokens in seen.counts]
        each, number = sum(seen.counts) // tiles, count()
        if any(tokens % each for tokens in seen.counts):
            return [[Grid(torch.arange(tokens), None, None)] for tokens in seen.counts]
        assert seen.hidden is not None
        return [
            [
                tile(each, int(seen.hidden.shape[1]), next(number), start, ratio(seen.given))
                for start in range(0, tokens, each)
            ]
            for tokens in seen.counts
        ]


def ratio(given: dict[str, Any]) -> float:
    """Height over width of the pictures given."""
    height, width = given["pixel_values"].shape[-2:]
    return height / width


def tile(tokens: int, outputs: int, number: int, start: int, ratio: float) -> Grid:
    """The grid of the tile `number`: `tokens` of a picture from `start` on, of `outputs` tokens of the tower.

    What the tower has beside patches (CLS, registers) comes first; where it is given to the decoder as well
    (`vision_feature_select_strategy: full`) it is in no grid.
    """
    shape, first = square(tokens, ratio), 0
    if shape is None and (shape := square(tokens - 1, ratio)) is not None:
        tokens, first = tokens - 1, 1
    places = torch.arange(start + first, start + first + tokens)
    if shape is None:
        return Grid(places, None, None)
    side = side_of(outputs, tokens)
    patches = tokens * side * side
    return Grid(places, shape, number * patches + blocks(shape, side, shape[1] * side), outputs - patches)
