"""How a forward takes images, and of which size they are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from compress.inputs.batch import Batch

PIXELS = "pixel_values"

USUAL = 224
"""Height and width of an image for a model whose config names none."""


@dataclass(frozen=True)
class Layout(ABC):
    """What a forward is given for images `[rows, channels, height, width]`, of the `size` (channels, height, width)."""

    size: tuple[int, int, int]

    @abstractmethod
    def lay(self, images: Tensor) -> Batch:
        """The forward's tensors by name; the first dimension of each is the row."""


def pair(size: Any) -> tuple[int, int]:
    """Height and width, of a number, a pair, or a mapping of both."""
    if isinstance(size, dict):
        sides = [size.get(side, size.get("shortest_edge", USUAL)) for side in ("height", "width")]
        return sides[0], sides[1]
    return (size[0], size[1]) if isinstance(size, list | tuple) else (size, size)
