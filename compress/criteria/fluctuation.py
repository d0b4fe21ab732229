"""Fluctuation (FLAP, An et al. 2023, https://arxiv.org/abs/2312.11983)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from compress.registry import criteria
from compress.registry.scope import Scope


@criteria.add("fluctuation", scope=Scope.INPUTS, on="in", needs=("input_variance", "input_norm"), paper="2312.11983")
def fluctuation(
    weight: Tensor,
    input_variance: Tensor,
    input_norm: Tensor,
    kind: str,
    *,
    metric: Literal["wifv", "ifv", "wifn"] = "wifv",
    square_heads: bool = True,
) -> Tensor:
    """Var(x) · Σ w²: what is lost when a channel is replaced by its mean, as bias repair does.

    `weight` `[out, in]` of the consumer, `input_variance` and `input_norm` `[in]` → score per input channel `[in]`.
    `ifv` leaves the weights out, `wifn` is mean |w| · ‖x‖₂. The released code squares the metric of attention before
    it is standardised; `square_heads: false` does not.
    """
    if metric == "wifv":
        score = input_variance * weight.square().sum(0)
    elif metric == "ifv":
        score = input_variance
    else:
        score = weight.abs().mean(0) * input_norm
    return score.square() if square_heads and kind in ("heads", "queries", "head_dim") else score
