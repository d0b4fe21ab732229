"""Which weights of a matrix go: the smallest saliencies of each row, of the whole matrix, or of every m inputs."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from compress.errors import InputError

Compare = Literal["row", "layer"]


def smallest(saliency: Tensor, share: float, compare: Compare) -> Tensor:
    """The `share` smallest, to the nearest weight, bool `[out, in]`; of each row (Wanda) or of the whole matrix."""
    rows = saliency if compare == "row" else saliency.reshape(1, -1)
    count = round(rows.shape[1] * share)
    gone = torch.zeros_like(rows, dtype=torch.bool)
    if count:
        gone.scatter_(1, rows.topk(count, dim=1, largest=False, sorted=False).indices, True)
    return gone.view_as(saliency)


def in_tiles(saliency: Tensor, share: float, tile: tuple[int, int]) -> Tensor:
    """The `share` of blocks, (rows, columns) large, whose saliencies add up to least, bool `[out, in]`."""
    (rows, columns), (high, wide) = saliency.shape, tile
    sums = saliency.reshape(rows // high, high, columns // wide, wide).sum((1, 3))
    return smallest(sums, share, "layer").repeat_interleave(high, 0).repeat_interleave(wide, 1)


def in_blocks(saliency: Tensor, zeros: int, block: int) -> Tensor:
    """The `zeros` smallest of every `block` consecutive inputs, bool `[out, in]`."""
    groups = saliency.reshape(len(saliency), -1, block)
    gone = torch.zeros_like(groups, dtype=torch.bool)
    gone.scatter_(2, groups.topk(zeros, dim=2, largest=False, sorted=False).indices, True)
    return gone.view_as(saliency)


def check_fit(name: str, shape: tuple[int, int], tile: tuple[int, int], field: str) -> None:
    """Raise InputError where blocks of the size `tile` do not fill the matrix `name`, of `shape` (out, in).

    `field` is what the recipe says: n:m is a block of one row.
    """
    if shape[0] % tile[0] or shape[1] % tile[1]:
        raise InputError(
            f"{field}: {name} is {shape[0]} x {shape[1]}, no multiple of {tile[0]} x {tile[1]}; "
            f"`skip: ['{name}']` leaves it whole"
        )
