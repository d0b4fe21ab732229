"""Average pooling (Matryoshka multimodal models, Cai et al. 2024, https://arxiv.org/abs/2405.17430)."""

from __future__ import annotations

from math import floor, sqrt

import torch
from torch import Tensor

from compress.registry import token_selects
from compress.runtime.tokens.grid import sides
from compress.runtime.tokens.selection import Selection, checked


@token_selects.add("pool", needs=("hidden", "grid", "keep"), paper="2405.17430")
def pool(hidden: Tensor, grid: tuple[int, int], keep: int) -> Selection:
    """One token for each square cell of side √(n / keep), rounded; with the residual `nearest`, the mean of the cell.

    The one kept is in the cell's middle. Rows and columns beyond the last whole cell leave, as in the released code, so
    that the number of tokens is that of whole cells, which is `keep` only where the grid shares out. `hidden`
    `[n, dim]` is only counted. A side is at most that of the grid.
    """
    n = len(hidden)
    rows, columns = sides(grid, n, "token selection pool")
    side = min(floor(sqrt(n / checked(keep, n)) + 0.5), rows, columns)
    down, across = rows // side, columns // side
    place = torch.arange(n, device=hidden.device).view(rows, columns)
    middle = (side - 1) // 2
    kept = place[middle : down * side : side, middle : across * side : side]
    into = torch.full((rows, columns), -1, device=hidden.device)
    into[: down * side, : across * side] = kept.repeat_interleave(side, 0).repeat_interleave(side, 1)
    return Selection.merging(kept.flatten(), into.flatten())
