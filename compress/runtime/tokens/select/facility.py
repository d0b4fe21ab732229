"""Tokens that represent all (facility location; ToMA, Lu et al. 2025, https://arxiv.org/abs/2509.10918)."""

from __future__ import annotations

import torch
from torch import Tensor

from compress.registry import token_selects
from compress.runtime.tokens.cosine import cosine
from compress.runtime.tokens.selection import Selection, checked


@token_selects.add("facility", needs=("hidden", "keep"), paper="2509.10918")
def facility(hidden: Tensor, keep: int) -> Selection:
    """The next token is the one that raises Σᵢ maxⱼ cos(i, j) most, j among those chosen.

    Greedy, which is within 1 - 1/e of the best: similarities count from -1, so that the sum only grows. `hidden`
    `[n, dim]`.
    """
    n = len(hidden)
    if checked(keep, n) == n:
        return Selection(torch.arange(n, device=hidden.device))
    similar = cosine(hidden, hidden)
    covered = torch.full((n,), -1.0, device=hidden.device)
    taken = torch.zeros(n, dtype=torch.bool, device=hidden.device)
    for _ in range(keep):
        gain = (similar - covered).clamp(min=0).sum(1)
        token = gain.masked_fill(taken, -1).argmax()
        taken[token] = True
        covered = torch.maximum(covered, similar[token])
    return Selection(taken.nonzero()[:, 0])
