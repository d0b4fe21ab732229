"""Statistics of whole blocks: how far they turn the residual stream."""

from __future__ import annotations

from torch import Tensor

from compress.calibrate.totals import Totals
from compress.registry import statistics


@statistics.add("block_cosine", at="block", sums=("cosine",))
def block_cosine(totals: Totals) -> Tensor:
    """Mean over tokens of cos(block's input, block's output), `[]` (ShortGPT, arXiv 2403.03853)."""
    return totals["cosine"] / totals.tokens


@statistics.add("block_angle", at="block", sums=("angle",))
def block_angle(totals: Totals) -> Tensor:
    """Mean over tokens of arccos(cos(block's input, block's output)) / π, `[]` (CFSP, arXiv 2409.13199)."""
    return totals["angle"] / totals.tokens
