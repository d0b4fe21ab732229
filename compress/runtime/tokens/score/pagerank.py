"""PageRank on attention (AIM, Zhong et al. 2024, https://arxiv.org/abs/2412.03248; Zero-TPrune, Wang et al. 2023)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from compress.registry import token_scores
from compress.runtime.tokens.rows import Heads, Layers, Variance, over_heads


@token_scores.add("pagerank", needs=("logits",), square=True, paper="2412.03248")
def pagerank(
    logits: Tensor,
    *,
    layers: Layers = (-1,),
    iterations: Annotated[int, Field(ge=1)] = 5,
    temperature: Annotated[float, Field(gt=0)] = 0.1,
    damping: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    heads: Heads = "rms",
    variance: Variance | None = None,
) -> Tensor:
    """Weight that tokens have for each other: s ← Aᵀs from equal weights, A = softmax(logits / `temperature`).

    The defaults are AIM's, whose graph holds the text as well. Zero-TPrune (https://arxiv.org/abs/2305.17328) has
    `temperature: 1` and leaves out heads by `variance`. `damping` is the share that starts anew from equal weights in
    every iteration. The mean over `layers`.

    `logits` `[layers, heads, n, n]` → `[n]`.
    """
    n = logits.shape[-1]
    graph = (logits.float() / temperature).softmax(-1)
    weight = torch.full_like(graph[..., :1, :], 1 / n)
    for _ in range(iterations):
        weight = weight @ graph * (1 - damping) + damping / n
    return over_heads(weight[..., 0, :], heads, variance).mean(0)
