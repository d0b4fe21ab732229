"""GBLM-Pruner (Das et al. 2023, https://arxiv.org/abs/2311.04902)."""

from __future__ import annotations

from torch import Tensor

from compress.registry import criteria
from compress.registry.scope import Scope


@criteria.add("gblm", scope=Scope.WEIGHTS, on="in", needs=("input_norm", "gradient_norm"), paper="2311.04902")
def gblm(weight: Tensor, input_norm: Tensor, gradient_norm: Tensor, *, alpha: float = 100.0) -> Tensor:
    """|w| · (‖x‖₂ / √N + `alpha` · ‖g‖₂), g the gradients of the dense model's loss on each of N samples.

    ‖g‖₂ is scaled to the paper's 128 samples of 2048 tokens, so that `alpha` means the same whatever the calibration.
    `weight`, `gradient_norm` `[out, in]`, `input_norm` `[in]` → saliency `[out, in]`.
    """
    return weight.abs() * (input_norm + alpha * gradient_norm)
