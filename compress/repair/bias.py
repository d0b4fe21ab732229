"""Bias compensation (FLAP, An et al. 2023, https://arxiv.org/abs/2312.11983)."""

from __future__ import annotations

from torch import Tensor

from compress.registry import repairs


@repairs.add("bias", needs=("input_mean",), adds_bias=True, paper="2312.11983")
def bias(weight: Tensor, bias: Tensor | None, keep: Tensor, input_mean: Tensor) -> tuple[Tensor, Tensor]:
    """Puts the mean of what is removed into the bias, so that the mean output stays.

    `weight` `[out, in]`, `bias` `[out]` or None, `keep` bool `[in]`, `input_mean` `[in]` → `weight` as it was and the
    bias b + W_removed · mean(x_removed) `[out]`.
    """
    added = weight[:, ~keep].double() @ input_mean[~keep].double()
    new = added if bias is None else bias.double() + added
    return weight, new.to(weight.dtype)
