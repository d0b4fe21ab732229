"""Optimal brain damage with Kronecker factors (Wang et al. 2019, EigenDamage, https://arxiv.org/abs/1905.05934)."""

from __future__ import annotations

from torch import Tensor

from compress.registry import criteria
from compress.registry.scope import Scope


@criteria.add(
    "curvature",
    scope=Scope.INPUTS,
    on="in",
    needs=("input_variance", "input_mean", "output_curvature"),
    paper="1905.05934",
)
def curvature(
    weight: Tensor, input_variance: Tensor, input_mean: Tensor, output_curvature: Tensor, *, centred: bool = True
) -> Tensor:
    """½ · Var(x) · wᵀ F w: what the loss grows by, to second order, when a channel is replaced by its mean.

    F is the curvature of the loss in what the projection puts out: an error in a direction that the rest of the model
    does not look at costs nothing. `centred: false` takes the mean square of x instead of its variance, for channels
    that become zero.

    Of a transposed convolution, `[out × kernel, in]`, the outputs that one input reaches are taken to be independent.

    `weight` `[out, in]` of the consumer, `input_variance` and `input_mean` `[in]`, `output_curvature` `[out, out]` →
    score per input channel `[in]`, in nats.
    """
    spread = input_variance if centred else input_variance + input_mean.square()
    seen = (output_curvature @ weight.reshape(len(output_curvature), -1)).view_as(weight)
    return 0.5 * spread * (weight * seen).sum(0)
