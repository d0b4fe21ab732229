"""Wanda (Sun et al. 2023, https://arxiv.org/abs/2306.11695)."""

from __future__ import annotations

from torch import Tensor

from compress.registry import criteria
from compress.registry.scope import Scope


@criteria.add("wanda", scope=Scope.WEIGHTS, on="in", needs=("input_norm",), paper="2306.11695")
def wanda(weight: Tensor, input_norm: Tensor) -> Tensor:
    """|w| · ‖x‖₂ of the weights that consume the group; summed over a group this is FLAP's baseline "Wanda-sp".

    `weight` `[out, in]`, `input_norm` `[in]` = √(Σ x² / sequences) → saliency `[out, in]`.
    """
    return weight.abs() * input_norm
