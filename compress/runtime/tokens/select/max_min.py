"""Tokens far from each other (DivPrune, Alvar et al. 2025, https://arxiv.org/abs/2503.02175)."""

from __future__ import annotations

import torch
from torch import Tensor

from compress.registry import token_selects
from compress.runtime.tokens.cosine import cosine
from compress.runtime.tokens.selection import Selection, checked


@token_selects.add("max_min", needs=("hidden", "keep"), paper="2503.02175")
def max_min(hidden: Tensor, keep: int) -> Selection:
    """The next token is the one farthest from the nearest of those chosen; distance = 1 - cosine similarity.

    The first is the one whose nearest other token is farthest. The smallest distance within the selection is at least
    half of the largest that is possible wherever distances obey the triangle inequality. `hidden` `[n, dim]`.
    """
    n = len(hidden)
    if checked(keep, n) == n:
        return Selection(torch.arange(n, device=hidden.device))
    distance = 1 - cosine(hidden, hidden)
    first = distance.clone().fill_diagonal_(torch.inf).amin(1).argmax()
    chosen = [first]
    nearest = distance[first].clone()
    nearest[first] = -torch.inf
    for _ in range(keep - 1):
        token = nearest.argmax()
        chosen.append(token)
        nearest = torch.minimum(nearest, distance[token])
        nearest[token] = -torch.inf
    return Selection.of(torch.stack(chosen))
