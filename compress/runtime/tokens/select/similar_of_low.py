"""Similarity among the unimportant (Zero-TPrune's second stage, Wang et al. 2023, https://arxiv.org/abs/2305.17328)."""

from __future__ import annotations

import torch
from torch import Tensor

from compress.registry import token_selects
from compress.runtime.tokens.cosine import cosine
from compress.runtime.tokens.selection import Selection, checked, descending


@token_selects.add("similar_of_low", needs=("scores", "key", "keep"), paper="2305.17328")
def similar_of_low(scores: Tensor, key: Tensor, keep: int) -> Selection:
    """Of the half of lower scores those leave that are most like a token of the other half, by cosine of keys.

    Where more have to leave than a half holds, what is left is halved again. `scores` `[n]`, `key` `[n, heads, size]`.
    """
    checked(keep, len(scores))
    order, states = descending(scores), key.float().mean(1)
    while len(order) > keep:
        high, low = order.tensor_split([len(order) - len(order) // 2])
        likeness = cosine(states[low], states[high]).amax(1)
        gone = low[descending(likeness)[: len(order) - keep]]
        order = order[torch.isin(order, gone, invert=True)]
    return Selection.of(order)
