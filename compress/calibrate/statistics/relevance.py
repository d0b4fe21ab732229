"""Statistics of how much of the model's answer comes by each input channel of a projection."""

from __future__ import annotations

from torch import Tensor

from compress.calibrate.totals import Totals
from compress.registry import statistics


@statistics.add("input_relevance", at="relevance", sums=("relevance",))
def input_relevance(totals: Totals) -> Tensor:
    """Mean over samples of the absolute relevance, summed over tokens, `[in]`; by the ε-rule."""
    return totals["relevance"] / totals.sequences


@statistics.add("input_relevance_gamma", at="relevance_gamma", sums=("relevance",))
def input_relevance_gamma(totals: Totals) -> Tensor:
    """The same by the γ-rule."""
    return input_relevance(totals)


@statistics.add("input_relevance_positive", at="relevance_positive", sums=("relevance",))
def input_relevance_positive(totals: Totals) -> Tensor:
    """The same by the z⁺-rule."""
    return input_relevance(totals)


@statistics.add("input_relevance_composite", at="relevance_composite", sums=("relevance",))
def input_relevance_composite(totals: Totals) -> Tensor:
    """The same by the γ-rule in the first half of the blocks, by the ε-rule behind it."""
    return input_relevance(totals)
