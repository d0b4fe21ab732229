"""CFSP's fine score (Wang et al. 2024, https://arxiv.org/abs/2409.13199)."""

from __future__ import annotations

from torch import Tensor

from compress.registry import criteria
from compress.registry.scope import Scope


@criteria.add("cfsp", scope=Scope.INPUTS, on="in", needs=("input_norm",), paper="2409.13199")
def cfsp(input_norm: Tensor) -> Tensor:
    """‖x‖₂ of an MLP channel: what the published code's score comes to, whatever the weights.

    The code adds up shares |W| / Σ|W| of the three matrices and multiplies them by ‖x‖, but sums and averages along the
    same axis, so that each matrix gives 1 / width. Channels rank as with `activation`; what CFSP adds is the allocator
    `coarse_to_fine`. `input_norm` `[in]` → score per input channel `[in]`.
    """
    return input_norm
