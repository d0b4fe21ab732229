"""SparseGPT (Frantar & Alistarh 2023, https://arxiv.org/abs/2301.00774)."""

from __future__ import annotations

import torch
from torch import Tensor

from compress.registry import criteria
from compress.registry.scope import Scope

BLOCK, INNER = 128, 32
"""Columns that are chosen among together, and those of them that errors reach one by one; the others, in one product.

A pattern's m divides the number of the former that is taken; where it does not divide the latter, all of a block's
errors go one by one.
"""


@criteria.add("sparsegpt", scope=Scope.UPDATE, on="in", needs=("input_gram",), paper="2301.00774")
def sparsegpt(
    weight: Tensor,
    input_gram: Tensor,
    share: float,
    block: tuple[int, int] | None = None,
    *,
    damping: float = 0.01,
) -> Tensor:
    """The weight with zeros where the output suffers least, the weights behind them moved to make up for it.

    Columns go from left to right; of every 128 the `share` with the least w² / [H⁻¹]ⱼⱼ over all rows becomes zero, or
    with `block` (n, m) n of every m in each row, and the error of a column is spread over those to its right (Alg. 1).
    H = mean x·xᵀ + `damping` × its mean diagonal.

    `weight` `[out, in]`, `input_gram` `[in, in]` → `[out, in]`, float32.
    """
    columns = weight.T.float().contiguous()  # a column of the weight lies in one piece
    factor, dead = inverse_factor(input_gram, damping)
    columns[dead] = 0
    size = BLOCK if block is None else max(BLOCK // block[1], 1) * block[1]
    inner = INNER if block is None or INNER % block[1] == 0 else size
    for start in range(0, len(columns), size):
        stop = min(start + size, len(columns))
        part, own = columns[start:stop], factor[start:stop, start:stop].contiguous()
        scale = own.diagonal().square()[:, None]
        gone = None if block else _least(part.square() / scale, share)
        errors = torch.empty_like(part)
        for first in range(0, stop - start, inner):
            last = min(first + inner, stop - start)
            for i in range(first, last):
                if block is not None and (start + i) % block[1] == 0:
                    ahead = part[i : i + block[1]].square() / scale[i : i + block[1]]
                    chosen = torch.zeros_like(ahead, dtype=torch.bool)
                    chosen.scatter_(0, ahead.topk(block[0], dim=0, largest=False).indices, True)
                    gone = chosen if gone is None else torch.cat([gone[:i], chosen])
                assert gone is not None
                torch.mul(part[i], gone[i], out=errors[i]).div_(own[i, i])
                part[i].masked_fill_(gone[i], 0)
                part[i + 1 : last].addr_(own[i, i + 1 : last], errors[i], alpha=-1)
            part[last:].addmm_(own[first:last, last:].T, errors[first:last], alpha=-1)
        columns[stop:].addmm_(factor[start:stop, stop:].T, errors, alpha=-1)
    return columns.T


def inverse_factor(gram: Tensor, damping: float) -> tuple[Tensor, Tensor]:
    """Upper Cholesky factor of the inverse Hessian `[in, in]`, and which inputs are never active, bool `[in]`.

    The published code puts 1 on the diagonal where inputs are dead, in a Hessian that is 2 · length times this one:
    next to nothing. Here the mean of the others stands there, so that the damping is theirs whatever the inputs' scale.
    """
    # With J the reversal of rows, J·H·J = L·Lᵀ for a lower L, so that H⁻¹ = UᵀU for the upper U = J·L⁻¹·J.
    turned = gram.float().flip(0, 1)
    dead = turned.diagonal() == 0
    turned.diagonal()[dead] = 1 if dead.all() else turned.diagonal()[~dead].mean()
    turned.diagonal().add_(damping * turned.diagonal().mean())
    torch.linalg.cholesky(turned, out=turned)
    inverse = torch.eye(len(turned), device=turned.device)
    torch.linalg.solve_triangular(turned, inverse, upper=False, out=inverse)
    del turned
    return inverse.flip(0, 1), dead.flip(0)


def _least(scores: Tensor, share: float) -> Tensor:
    """The `share` smallest of all, bool like `scores`."""
    count = int(scores.numel() * share + 1e-9)
    if not count:
        return torch.zeros_like(scores, dtype=torch.bool)
    return scores <= scores.flatten().kthvalue(count).values
