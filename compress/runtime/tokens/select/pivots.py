"""Tokens that duplicate no pivot (DART, Wen et al. 2025, https://arxiv.org/abs/2502.11494)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from compress.registry import token_selects
from compress.runtime.tokens.cosine import cosine
from compress.runtime.tokens.selection import Selection, checked, descending


@token_selects.add("pivots", needs=("key", "hidden", "text", "keep"), paper="2502.11494")
def pivots(
    key: Tensor,
    hidden: Tensor,
    text: Tensor,
    keep: int,
    *,
    image: Annotated[int, Field(ge=1)] = 4,
    words: Annotated[int, Field(ge=0)] = 4,
) -> Selection:
    """The `image` tokens of the largest keys, and for each pivot in turn the tokens least like it.

    Pivots are those, by ‖key‖₁, and the `words` text tokens of the largest ‖hidden state‖₁ (the released code reads
    their keys); each takes the same number of the tokens still left, by cosine similarity of hidden states, the first
    pivots one more where they do not share out. `key` `[n, heads, size]`, `hidden` `[n, dim]`, `text` `[m, dim]`.
    """
    n = len(hidden)
    chosen = descending(key.float().flatten(1).norm(p=1, dim=1))[: min(image, checked(keep, n))]
    left = torch.ones(n, dtype=torch.bool, device=hidden.device)
    left[chosen] = False
    spoken = text[descending(text.float().norm(p=1, dim=1))[:words]]
    different = -cosine(torch.cat((hidden[chosen], spoken.to(hidden))), hidden)
    each, more = divmod(keep - len(chosen), len(different))
    for number, row in enumerate(different):
        found = descending(row.masked_fill(~left, -torch.inf))[: each + (number < more)]
        left[found] = False
    return Selection((~left).nonzero()[:, 0])
