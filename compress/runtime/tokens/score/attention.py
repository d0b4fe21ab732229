"""Attention that tokens receive: the score of FasterVLM, VTC-CLS, HiPrune, FastV, PyramidDrop and others."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from compress.registry import token_scores
from compress.runtime.tokens.rows import Heads, Layers, Queries, Variance, Weighting, received


@token_scores.add("attention", needs=("attention",), paper="2412.01818")
def attention(
    attention: Tensor,
    *,
    queries: Queries = "last",
    window: Annotated[int, Field(ge=1)] = 1,
    layers: Layers = (-1,),
    heads: Heads = "mean",
    variance: Variance | None = None,
    weighting: Weighting = "uniform",
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.95,
    layers_reduce: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """Attention that a token receives from `queries`, over heads and layers.

    `queries`: `cls` of a vision tower (FasterVLM; VTC-CLS with the sum of several `layers`), `all` tokens there, the
    class token among them (HiPrune, FoPru), the prompt's `last` `window` tokens (FastV, PyramidDrop: 1), or its `text`.
    Queries are averaged, uniformly, with weights that rise linearly (SpecPC) or that fall by `gamma` from the last one
    backwards (A2SF). `variance` leaves out the heads whose scores vary less or more than that (Zero-TPrune).

    `attention` `[layers, heads, queries, n]` → `[n]`.
    """
    found = received(attention, heads, variance, weighting, gamma)
    return found.sum(0) if layers_reduce == "sum" else found.mean(0)
