"""Recycling by cells of the picture (VFlowOpt, Yang et al. 2025, https://arxiv.org/abs/2508.05211)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from compress.registry import token_residuals
from compress.runtime.tokens.grid import sides
from compress.runtime.tokens.merged import Merged, dropped, extended, means
from compress.runtime.tokens.selection import Selection, descending


@token_residuals.add("cell", needs=("selection", "scores", "grid"), paper="2508.05211")
def cell(
    selection: Selection, scores: Tensor, grid: tuple[int, int], *, side: Annotated[float, Field(ge=1)] = 3.0
) -> Merged:
    """One token more for every `side` × `side` cell that tokens left: their mean weighted by scores.

    It takes the place of the best of them. `side` may be a fraction, as the paper's tuned ones are. Scores below 0
    count 0; where all do, the best token stands for the cell. There are as many tokens more as there are such cells.
    `scores` `[n]`.
    """
    n = len(scores)
    _, columns = sides(grid, n, "token residual cell")
    gone = dropped(selection.kept, n)
    if not len(gone):
        return Merged(selection.kept)
    down, across = ((place.float() / side).long() for place in (gone // columns, gone % columns))
    number = down * columns + across
    _, member, counts = number.unique(return_inverse=True, return_counts=True)
    order = descending(scores[gone])
    order = order[member[order].argsort(stable=True)]  # cell by cell, each from its best token on
    best = gone[order[counts.cumsum(0) - counts]]
    kept, into = extended(selection.kept, best, n)
    into[gone] = into[best[member]]
    weight = scores.float().clamp(min=0).index_fill(0, selection.kept, 1)
    return means(kept, into, weight)
