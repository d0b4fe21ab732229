"""Bipartite soft matching (ToMe, Bolya et al. 2022, https://arxiv.org/abs/2210.09461)."""

from __future__ import annotations

import torch
from torch import Tensor

from compress.registry import token_selects
from compress.runtime.tokens.cosine import cosine
from compress.runtime.tokens.selection import Selection, checked, descending


@token_selects.add("bipartite", needs=("hidden", "keep"), paper="2210.09461")
def bipartite(hidden: Tensor, keep: int) -> Selection:
    """Every second token may go to the most similar of the others; the most similar pairs merge (AIM's first stage).

    One round halves the tokens at most. Where fewer are kept there are more, each on the means of the one before.
    `hidden` `[n, dim]`.
    """
    return _matched(hidden, keep)


@token_selects.add("bipartite_keys", needs=("key", "keep"), paper="2210.09461")
def bipartite_keys(key: Tensor, keep: int) -> Selection:
    """As `bipartite`, tokens being compared by their keys' mean over heads (ToMe). `key` `[n, heads, size]`."""
    return _matched(key.float().mean(1), keep)


def _matched(states: Tensor, keep: int) -> Selection:
    n = len(states)
    checked(keep, n)
    states, size = states.float(), torch.ones(n, 1, device=states.device)
    into = torch.arange(n, device=states.device)  # each token's, one of those left
    left = into.clone()
    while len(left) > keep:
        count = min(len(left) - keep, len(left) // 2)
        best, partner = cosine(states[left[::2]], states[left[1::2]]).max(1)
        source = descending(best)[:count]
        gone, target = left[2 * source], left[2 * partner[source] + 1]
        total = (states * size).index_add(0, target, (states * size)[gone])
        size = size.index_add(0, target, size[gone])
        states = total / size
        moved = torch.arange(n, device=states.device)
        moved[gone] = target
        into = moved[into]
        left = left[torch.isin(left, gone, invert=True)]
    return Selection.merging(left, into)
