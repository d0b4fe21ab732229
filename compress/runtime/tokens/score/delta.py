"""Growth of attention between two layers (CATP, Li et al. 2025, https://arxiv.org/abs/2508.07871)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from compress.registry import token_scores
from compress.runtime.tokens.rows import Heads, Queries, received


@token_scores.add("delta", needs=("attention",), paper="2508.07871")
def delta(
    attention: Tensor,
    *,
    layers: tuple[int, int],
    queries: Queries = "last",
    window: Annotated[int, Field(ge=1)] = 1,
    heads: Heads = "mean",
) -> Tensor:
    """How much more attention a token receives in the second of two `layers` than in the first.

    `attention` `[2, heads, queries, n]` → `[n]`, below 0 for a token that receives less.
    """
    early, late = received(attention, heads, None, "uniform", 1.0)
    return late - early
