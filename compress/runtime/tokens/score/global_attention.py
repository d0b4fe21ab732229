"""Attention from global tokens (VFlowOpt, Yang et al. 2025, https://arxiv.org/abs/2508.05211)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from compress.registry import token_scores
from compress.runtime.tokens.rows import Layers


@token_scores.add("global_attention", needs=("attention",), square=True, paper="2508.05211")
def global_attention(
    attention: Tensor,
    *,
    layers: Layers = (-1,),
    threshold: Annotated[float, Field(gt=0)] = 2.0,
) -> Tensor:
    """Attention from the tokens that themselves receive more than `threshold` times the mean.

    Heads and `layers` are averaged first; all tokens count as global where none is. `[layers, heads, n, n]` → `[n]`.
    """
    mean = attention.float().mean((0, 1))
    received = mean.mean(0)
    chosen = received > threshold * received.mean()
    return mean[chosen].mean(0) if chosen.any() else received
