"""What every patch of a picture shows, in the embeddings of the words for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .questions import COLUMNS, ROWS
from .scenes import GRID, Scene

SEEN = 0.2
"""The share of a patch that an object must cover to be what it shows."""
PLACE = 0.7
"""How strong the words for the place are beside those for the object."""


def owners(scene: Scene) -> np.ndarray:
    """`[patches]`: the object that covers most of each, -1 for the background."""
    covered = scene.coverage()
    return np.where(covered.max(0) > SEEN, covered.argmax(0), -1)


def targets(scenes: Sequence[Scene], embeddings: Tensor, tokenizer: Any) -> Tensor:
    """`[all patches, width]` in float16: an object's name and look or "background", and the place.

    The words for places go over into each other along the picture, so that an order can be read from them.
    """

    def word(text: str) -> Tensor:
        return embeddings[tokenizer(f" {text}", add_special_tokens=False).input_ids[0]]

    along = torch.linspace(0, 2, GRID)
    share = torch.stack([(1 - (along - i).abs()).clamp(min=0) for i in range(3)], 1)  # of three words
    rows, columns = (share @ torch.stack([word(one) for one in names]) for names in (ROWS, COLUMNS))
    place = PLACE * (rows[:, None] + columns[None]).flatten(0, 1)
    background = word("background")
    found = []
    for scene in scenes:
        shown = torch.stack([background, *(word(thing.name) + word(thing.look) for thing in scene.things)])
        found.append((place + shown[torch.from_numpy(owners(scene)) + 1]).half())
    return torch.cat(found)


def worth(scenes: Sequence[Scene]) -> Tensor:
    """`[all patches]`: objects are fewer than background and count more."""
    return torch.cat([torch.where(torch.from_numpy(owners(scene)) >= 0, 5.0, 1.0) for scene in scenes])
