"""Conditional determinantal point process (CDPruner, Zhang et al. 2025, https://arxiv.org/abs/2506.10967)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from compress.registry import token_selects
from compress.runtime.tokens.cosine import cosine
from compress.runtime.tokens.selection import Selection, checked, descending

SMALL = 1e-6
NOTHING = 1e-5
"""Share of a token that is rounding, where those chosen span the rest of it."""


@token_selects.add("dpp", needs=("scores", "hidden", "keep"), paper="2506.10967")
def dpp(
    scores: Tensor | None, hidden: Tensor, keep: int, *, theta: Annotated[float, Field(ge=0, lt=1)] | None = None
) -> Selection:
    """Diverse and relevant tokens: the next one raises det(L) of those chosen most, L = r · cos(i, j) · r.

    r are the scores scaled to 0 to 1; 1 for all where there are none, or where all are alike. With `theta` r is
    exp(θ / (2 - 2θ) · r), which shifts the weight from diversity (0) to relevance (near 1). Tokens that those chosen
    span come last, by r. Greedy, by an incremental Cholesky decomposition (Chen et al. 2018,
    https://arxiv.org/abs/1709.05135), O(keep² · n). `scores` `[n]` or None, `hidden` `[n, dim]`.
    """
    n = len(hidden)
    if checked(keep, n) == n:
        return Selection(torch.arange(n, device=hidden.device))
    relevance = torch.ones(n, device=hidden.device)
    if scores is not None:
        low, high = scores.float().aminmax()
        if high > low:
            relevance = (scores.float() - low + SMALL) / (high - low)
    if theta is not None:
        relevance = (theta / (2 * (1 - theta)) * relevance).exp()
    kernel = relevance[:, None] * cosine(hidden, hidden).fill_diagonal_(1) * relevance
    whole = kernel.diagonal()
    left = whole.clone()
    taken = torch.zeros(n, dtype=torch.bool, device=hidden.device)
    factor = torch.zeros(keep, n, device=hidden.device)
    for step in range(keep):
        free = left.masked_fill(taken | (left < NOTHING * whole), 0)
        token = free.argmax()
        if not free[token]:  # those taken span all others
            more = descending(relevance.masked_fill(taken, -torch.inf))[: keep - step]
            taken[more] = True
            break
        taken[token] = True
        known = factor[:step, token] @ factor[:step]
        factor[step] = (kernel[token] - known) / left[token].sqrt()
        left = left - factor[step].square()
    return Selection(taken.nonzero()[:, 0])
