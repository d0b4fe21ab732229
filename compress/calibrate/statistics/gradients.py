"""Statistics of the loss's gradient; the loss is the one of `compress.tasks`."""

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


SAMPLES, LENGTH = 128, 2048
"""Of GBLM's calibration, to which its weight of gradients against activations belongs."""


@statistics.add("gradient_norm", at="gradient", sums=("fisher",))
def gradient_norm(totals: Totals) -> Tensor:
    """Root of the summed squares of samples' gradients, as over 128 samples of 2048 tokens (GBLM); the tensor's shape.

    The norm over N samples of length L grows as √N, and next to ‖x‖ / √N falls as 1 / L, since the mean loss of more
    tokens has a smaller gradient: it is scaled by √(128 / N) · L / 2048, so that neither moves the balance.
    """
    length = totals.tokens / totals.sequences
    return (totals["fisher"] * (SAMPLES / totals.sequences)).sqrt() * (length / LENGTH)
