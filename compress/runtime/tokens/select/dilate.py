"""The best tokens and their neighbours (HiPrune, Liu et al. 2025, https://arxiv.org/abs/2508.00553)."""

from __future__ import annotations

import torch
from torch import Tensor

from compress.registry import token_selects
from compress.runtime.tokens.grid import sides
from compress.runtime.tokens.selection import Selection, checked, descending


@token_selects.add("dilate", needs=("scores", "grid", "keep"), paper="2508.00553")
def dilate(scores: Tensor, grid: tuple[int, int], keep: int, *, fill: bool = True) -> Selection:
    """The best fifth of what is kept (anchors), and the four neighbours of each in the picture (buffers).

    round(keep / 5) anchors, at least one. Neighbours that several have count once, and the picture's edge has none
    beyond it (the released code goes on in the next row). With `fill` exactly `keep` tokens: anchors come before
    buffers, these before all others, each by score. Without, anchors and buffers as many as they are, up to two more
    than `keep`: for a part of `quota`, whose next part takes what is left.
    """
    n = len(scores)
    down, columns = sides(grid, n, "token selection dilate")
    order = descending(scores)
    anchors = order[: max(1, round(checked(keep, n) / 5))]
    if keep == n:
        return Selection.of(order)
    row, column = anchors // columns, anchors % columns
    level = torch.full((n,), 2, device=scores.device)
    for step_down, step_right in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        to_row, to_column = row + step_down, column + step_right
        inside = (to_row >= 0) & (to_row < down) & (to_column >= 0) & (to_column < columns)
        level[(to_row * columns + to_column)[inside]] = 1
    level[anchors] = 0
    if not fill:
        return Selection((level < 2).nonzero()[:, 0])
    return Selection.of(order[level[order].argsort(stable=True)][:keep])
