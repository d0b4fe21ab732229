"""Contextual tokens (VisionZip, Yang et al. 2024, https://arxiv.org/abs/2412.04467)."""

from __future__ import annotations

from torch import Tensor

from compress.registry import token_selects
from compress.runtime.tokens.cosine import cosine
from compress.runtime.tokens.select.uniform import spaced
from compress.runtime.tokens.selection import Selection, checked


@token_selects.add("contextual", needs=("key", "keep"), paper="2412.04467")
def contextual(key: Tensor, keep: int) -> Selection:
    """Tokens at even steps; each other one goes to the most similar of them, by the keys' mean over heads.

    The last part of a `quota` behind the best tokens, with the residual `nearest: {own: 0.5}`: the released code adds a
    token and the mean of those merged into it, which is twice that. `key` `[n, heads, size]`.
    """
    n = len(key)
    chosen = spaced(n, checked(keep, n), "step").to(key.device)
    states = key.float().mean(1)
    into = chosen[cosine(states, states[chosen]).argmax(1)]
    into[chosen] = chosen
    return Selection.merging(chosen, into)
