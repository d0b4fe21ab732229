"""Where a token is, whatever it holds: baselines, and a share for the whole picture beside other scores."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from compress.registry import token_scores
from compress.runtime.tokens.grid import sides

GOLDEN = (5**0.5 - 1) / 2


@token_scores.add("position", needs=("hidden",))
def position(hidden: Tensor, *, prefer: Literal["uniform", "first", "last"] = "uniform") -> Tensor:
    """The token's number: the `first` or the `last` are kept, or such that the best are spread evenly (`uniform`).

    `uniform` is the fractional part of multiples of the golden ratio, whose k highest lie evenly for every k.
    `hidden` `[n, dim]` → `[n]`, 0 to 1.
    """
    number = torch.arange(len(hidden), dtype=torch.float64, device=hidden.device)
    if prefer == "uniform":
        return (number * GOLDEN).frac().float()
    place = (number / max(len(hidden) - 1, 1)).float()
    return place if prefer == "last" else 1 - place


@token_scores.add("centre", needs=("hidden", "grid"))
def centre(hidden: Tensor, grid: tuple[int, int]) -> Tensor:
    """Nearness to the middle of the picture: 1 - distance, the corners being at 1.

    `hidden` `[n, dim]`, `grid` (rows, columns) → `[n]`, 0 to 1.
    """
    rows, columns = sides(grid, len(hidden), "token score centre")
    across = [(torch.arange(side, device=hidden.device) + 0.5) / side * 2 - 1 for side in (rows, columns)]
    down, right = torch.meshgrid(*across, indexing="ij")
    away = (down.square() + right.square()).sqrt().flatten()
    return 1 - away / away.max().clamp(min=torch.finfo(away.dtype).tiny)
