"""Tokens far from all others (ToDRE, Li et al. 2025, https://arxiv.org/abs/2505.18757)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from compress.errors import InputError
from compress.registry import token_selects
from compress.runtime.tokens.cosine import cosine
from compress.runtime.tokens.selection import Selection, checked


@token_selects.add("max_sum", needs=("scores", "hidden", "keep"), paper="2505.18757")
def max_sum(
    scores: Tensor | None, hidden: Tensor, keep: int, *, relevance: Annotated[float, Field(ge=0, le=1)] = 0.0
) -> Selection:
    """The next token is the one whose mean distance to those chosen is largest; distance = 1 - cosine similarity.

    The first is the one farthest from all tokens. With `relevance` r a token counts (1 - r) · distance + r · score, the
    scores scaled to 0 to 1 (CATP's first stage balances the two). `hidden` `[n, dim]`, `scores` `[n]` or None.

    Raises InputError for `relevance` without scores.
    """
    n = len(hidden)
    if checked(keep, n) == n:
        return Selection(torch.arange(n, device=hidden.device))
    distance = 1 - cosine(hidden, hidden)
    extra = torch.zeros(n, device=hidden.device)
    if relevance:
        if scores is None:
            raise InputError(f"token selection max_sum: relevance={relevance} weighs scores; give the rule a score")
        low, high = scores.float().aminmax()
        extra = relevance * (scores.float() - low) / (high - low).clamp(min=torch.finfo(torch.float32).tiny)
    total, chosen = distance.mean(1), []
    taken = torch.zeros(n, dtype=torch.bool, device=hidden.device)
    for count in range(keep):
        value = (1 - relevance) * total / max(count, 1) + extra
        token = value.masked_fill(taken, -torch.inf).argmax()
        chosen.append(token)
        taken[token] = True
        total = distance[token] if count == 0 else total + distance[token]
    return Selection.of(torch.stack(chosen))
