"""How far a model can be pruned before its output breaks down, as text-to-image models do (arXiv 2411.15113)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

PARTS = 10
"""In which the way to the share that is asked for is gone."""

FREE = 0.05
"""Damage below which nothing breaks down, however fast it grows."""

GROWTH = 1.5
"""Weights that lie evenly around zero have s³ of their energy in the smallest share s: the damage grows as s^1.5."""

STEEP = 2.0
"""How many times faster than that the damage grows at a cliff."""


@dataclass(frozen=True)
class Walk:
    """`damage` at each of the parts of the way that were looked at, from the first on, and the last part `before` a
    cliff: all of them where there is none, 0 where the first breaks the model down."""

    damage: Sequence[float]
    before: int

    @property
    def cliff(self) -> bool:
        """Whether there is one on the way."""
        return self.before < len(self.damage)


def walk(damage_of: Callable[[float], float], parts: int = PARTS) -> Walk:
    """Go up in equal `parts` of the way, 1 being all of it, until the damage jumps.

    A part is a cliff where its damage is 1, as of an output of zeros, or above 5 % and more than twice what it would be
    had it grown from the part before as it does for weights that lie evenly around zero.
    """
    found: list[float] = []
    for part in range(1, parts + 1):
        found.append(damage_of(part / parts))
        usual = found[-2] * (part / (part - 1)) ** GROWTH if part > 1 else 1.0
        if not (found[-1] <= FREE or found[-1] < min(1.0, STEEP * max(usual, FREE / STEEP))):  # NaN is a cliff, too
            return Walk(found, part - 1)
    return Walk(found, parts)


@torch.no_grad()
def damage(output: Any, dense: Any) -> float:
    """‖y − y₀‖ / ‖y₀‖ of the first tensor of an output."""
    y, dense_y = (_first(one).double() for one in (output, dense))
    return float((y - dense_y).norm() / dense_y.norm().clamp_min(1e-12))


def _first(output: Any) -> Tensor:
    values = output.to_tuple() if hasattr(output, "to_tuple") else output
    return next(leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor) and leaf.is_floating_point())
