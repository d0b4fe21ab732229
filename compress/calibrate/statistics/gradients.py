"""Statistics of the loss's gradient; the loss is the one of `compress.calibrate.loss`."""

from __future__ import annotations

from torch import Tensor

from compress.calibrate.totals import Totals
from compress.registry import statistics


@statistics.add("gradient", at="gradient", sums=("gradient",))
def gradient(totals: Totals) -> Tensor:
    """Gradient of the mean loss over samples, of the tensor's shape."""
    return totals["gradient"] / totals.sequences


@statistics.add("fisher", at="gradient", sums=("fisher",))
def fisher(totals: Totals) -> Tensor:
    """Mean over samples of the squared gradient of the sample's loss, of the tensor's shape (LLM-Pruner)."""
    return totals["fisher"] / totals.sequences


@statistics.add("gradient_norm", at="gradient", sums=("fisher",))
def gradient_norm(totals: Totals) -> Tensor:
    """Root of the summed squares over samples of the gradient of the sample's loss, of the tensor's shape (GBLM)."""
    return totals["fisher"].sqrt()
