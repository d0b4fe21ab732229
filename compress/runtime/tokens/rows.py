"""Rows of attention, reduced to what each token receives."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

Queries: TypeAlias = Literal["cls", "last", "text", "all"]
Heads: TypeAlias = Literal["mean", "max", "rms"]
Layers: TypeAlias = Annotated[tuple[int, ...], Field(min_length=1)]
Weighting: TypeAlias = Literal["uniform", "linear", "decay"]


def _ordered(band: tuple[float, float]) -> tuple[float, float]:
    if not 0 <= band[0] <= band[1]:
        raise ValueError(f"is {list(band)}; write the lower bound first, neither below 0")
    return band


Variance: TypeAlias = Annotated[tuple[float, float], AfterValidator(_ordered)]
"""Lower and upper bound of the variance of a head's scores."""


def received(rows: Tensor, heads: Heads, variance: Variance | None, weighting: Weighting, gamma: float) -> Tensor:
    """What each token receives in each layer: `[layers, heads, queries, n]` → float32 `[layers, n]`."""
    weight = torch.ones(rows.shape[2], dtype=torch.float32, device=rows.device)
    if weighting == "linear":
        weight = weight.cumsum(0)
    elif weighting == "decay":
        weight = gamma ** (weight.cumsum(0).flip(0) - 1)
    return over_heads(torch.einsum("lhqn,q->lhn", rows.float(), weight / weight.sum()), heads, variance)


def over_heads(scores: Tensor, heads: Heads, variance: Variance | None) -> Tensor:
    """`[layers, heads, n]` → `[layers, n]`, of the heads whose variance over tokens is within `variance`.

    All heads count in a layer where no head's is.
    """
    counted = torch.ones_like(scores[..., :1], dtype=torch.bool)
    if variance is not None:
        spread = scores.var(-1, keepdim=True, correction=0)
        counted = (spread >= variance[0]) & (spread <= variance[1])
        counted |= ~counted.any(1, keepdim=True)
    if heads == "max":
        return scores.masked_fill(~counted, -torch.inf).amax(1)
    number = counted.sum(1)
    if heads == "rms":
        return ((scores.square() * counted).sum(1) / number).sqrt()
    return (scores * counted).sum(1) / number
