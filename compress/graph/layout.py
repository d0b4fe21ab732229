"""How a tensor's dimension is laid out over axes.

A dimension of size n is one axis, a product of layouts (`heads × head_dim`, major first) or a sum of layouts laid one
behind the other (`q + k + v` of a fused projection). Products and sums nest, so GPT-NeoX's interleaved projection is
`heads × (q + k + v)`. Given which indices of each axis are kept, the kept positions of any dimension follow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce

import numpy as np


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis, named by the family whose groups it indexes."""

    family: str
    size: int


@dataclass(frozen=True, slots=True)
class Product:
    """Layouts nested in each other, the slowest-moving first."""

    parts: tuple[Layout, ...]

    @property
    def size(self) -> int:
        return reduce(lambda n, part: n * part.size, self.parts, 1)


@dataclass(frozen=True, slots=True)
class Sum:
    """Layouts one behind the other."""

    parts: tuple[Layout, ...]

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)


Layout = Axis | Product | Sum


def families(layout: Layout) -> Iterator[str]:
    """Names of the families that occur in `layout`, in order, repeats included."""
    if isinstance(layout, Axis):
        yield layout.family
    else:
        for part in layout.parts:
            yield from families(part)


def keep_mask(layout: Layout, kept: Mapping[str, np.ndarray]) -> np.ndarray:
    """Which positions stay, bool `[layout.size]`; families absent from `kept` stay whole."""
    if isinstance(layout, Axis):
        mask = kept.get(layout.family)
        return np.ones(layout.size, bool) if mask is None else mask
    masks = [keep_mask(part, kept) for part in layout.parts]
    if isinstance(layout, Sum):
        return np.concatenate(masks)
    return reduce(lambda major, minor: np.logical_and.outer(major, minor).ravel(), masks)


def kept_size(layout: Layout, sizes: Mapping[str, int]) -> int:
    """Size of the dimension when each family named in `sizes` keeps that many groups."""
    if isinstance(layout, Axis):
        return sizes.get(layout.family, layout.size)
    counts = [kept_size(part, sizes) for part in layout.parts]
    return sum(counts) if isinstance(layout, Sum) else reduce(lambda a, b: a * b, counts, 1)


def unit_index(layout: Layout, family: str) -> np.ndarray:
    """Index of the `family` group that each position belongs to, int64 `[layout.size]`; -1 where it has none."""
    if isinstance(layout, Axis):
        return np.arange(layout.size) if layout.family == family else np.full(layout.size, -1)
    parts = [unit_index(part, family) for part in layout.parts]
    if isinstance(layout, Sum):
        return np.concatenate(parts)
    # In a product at most one factor carries the family; -1 is the neutral element of the maximum.
    return reduce(lambda major, minor: np.maximum.outer(major, minor).ravel(), parts)
