"""Network slimming (Liu et al. 2017, https://arxiv.org/abs/1708.06519)."""

from __future__ import annotations

from torch import Tensor

from compress.registry import criteria
from compress.registry.scope import Scope


@criteria.add("batch_norm_scale", scope=Scope.GAINS, paper="1708.06519")
def batch_norm_scale(gain: Tensor) -> Tensor:
    """|γ| of the batch norms behind a channel: how much of the normalised channel goes on.

    `gain` `[channels]` → saliency `[channels]`. Meant for networks that were trained with a penalty on |γ|.
    """
    return gain.abs()
