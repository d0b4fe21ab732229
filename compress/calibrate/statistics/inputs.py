"""Statistics of what a projection is given, per input channel. For an embedding the input is the one-hot token.

Those of stacked experts `[experts, out, in]` have a first dimension more, over the tokens routed to each expert.
"""

from __future__ import annotations

from torch import Tensor

from compress.calibrate.totals import Totals
from compress.registry import statistics


@statistics.add("input_norm", at="input", sums=("square",))
def input_norm(totals: Totals) -> Tensor:
    """‖x‖₂ over the tokens of a sample, root of the mean square over samples, `[in]` (Wanda's scaler)."""
    return (totals["square"].clamp_min(0) / totals.sequences).sqrt()


@statistics.add("input_mean", at="input", sums=("sum",))
def input_mean(totals: Totals) -> Tensor:
    """Mean over tokens, `[in]`."""
    return totals["sum"] / totals.tokens


@statistics.add("input_variance", at="input", sums=("sum", "square"))
def input_variance(totals: Totals) -> Tensor:
    """Population variance over tokens, `[in]`."""
    return (totals["square"] / totals.tokens - (totals["sum"] / totals.tokens).square()).clamp_min(0)


@statistics.add("input_abs_mean", at="input", sums=("absolute",))
def input_abs_mean(totals: Totals) -> Tensor:
    """Mean of |x| over tokens, `[in]`."""
    return totals["absolute"] / totals.tokens


@statistics.add("input_gram", at="input", sums=("gram",))
def input_gram(totals: Totals) -> Tensor:
    """Mean of x·xᵀ over tokens, `[in, in]`."""
    tokens = totals.tokens
    return totals["gram"] / (tokens[..., None] if isinstance(tokens, Tensor) else tokens)


@statistics.add("projection", at="input", sums=("projection",))
def projection(totals: Totals) -> Tensor:
    """Mean over tokens of ‖x_u · W_uᵀ‖₁, `[units]`; of |x| where a unit is one channel (AMP, arXiv 2504.21174)."""
    return totals["projection"] / totals.tokens
