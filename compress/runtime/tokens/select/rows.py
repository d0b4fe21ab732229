"""Whole rows of the picture (FoPru's row strategy, Jiang et al. 2024, https://arxiv.org/abs/2411.14164)."""

from __future__ import annotations

from torch import Tensor

from compress.registry import token_selects
from compress.runtime.tokens.grid import sides
from compress.runtime.tokens.selection import Selection, checked, descending


@token_selects.add("rows", needs=("scores", "grid", "keep"), paper="2411.14164")
def rows(scores: Tensor, grid: tuple[int, int], keep: int) -> Selection:
    """The rows whose scores sum highest; of the row that does not fit as a whole, its best tokens."""
    down, columns = sides(grid, len(scores), "token selection rows")
    checked(keep, len(scores))
    order = descending(scores.float().view(down, columns).sum(1))
    token = descending(scores)
    place = order.argsort()[token // columns]  # of each token's row among the rows, tokens from the best
    return Selection.of(token[place.argsort(stable=True)][:keep])
