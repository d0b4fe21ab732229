"""Statistics of what a projection puts out."""

from __future__ import annotations

from torch import Tensor

from compress.calibrate.totals import Totals
from compress.registry import statistics


@statistics.add("output_curvature", at="output_gradient", sums=("output_gram",), paper="1503.05671")
def output_curvature(totals: Totals) -> Tensor:
    """Mean over tokens of g·gᵀ, g the gradient of the loss by the output, `[out, out]`: the output's factor of the
    Fisher matrix (K-FAC), by which the loss grows with an error δ of the output as ½ δᵀ F δ. Of a grouped convolution
    `[groups, out / groups, out / groups]`."""
    return totals["output_gram"] / totals.tokens
