"""Norms of tokens: hidden states (vision SSM pruning, Zhan et al. 2024), keys (KNorm, DART) and values."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from compress.registry import token_scores

Power = Annotated[float, Field(gt=0)]


@token_scores.add("hidden_norm", needs=("hidden",), paper="2410.05262")
def hidden_norm(hidden: Tensor, *, p: Power = 2.0, clip: bool = False, negative: bool = False) -> Tensor:
    """‖h‖ₚ of a token's hidden state; `clip` counts positive values only, `negative` keeps the smallest.

    `p: 1, clip: true` is the score of token pruning for vision state space models. `[n, dim]` → `[n]`.
    """
    return _norm(hidden, p, clip, negative)


@token_scores.add("key_norm", needs=("key",), paper="2406.11430")
def key_norm(key: Tensor, *, p: Power = 2.0, clip: bool = False, negative: bool = False) -> Tensor:
    """‖k‖ₚ of a token's key, all heads together; `clip` counts positive values only, `negative` keeps the smallest.

    `negative: true` is KNorm's. `[n, heads, size]` → `[n]`.
    """
    return _norm(key, p, clip, negative)


@token_scores.add("value_norm", needs=("value",))
def value_norm(value: Tensor, *, p: Power = 2.0, clip: bool = False, negative: bool = False) -> Tensor:
    """‖v‖ₚ of a token's value, all heads together; `clip` counts positive values only, `negative` keeps the smallest.

    `[n, heads, size]` → `[n]`.
    """
    return _norm(value, p, clip, negative)


def _norm(states: Tensor, p: float, clip: bool, negative: bool) -> Tensor:
    states = states.float().flatten(1)
    norm = (states.clamp(min=0) if clip else states).norm(p=p, dim=1)
    return -norm if negative else norm
