"""Statistics of a block's experts, `[experts]` each, and of its router. An expert that no token visits has zeros."""

from __future__ import annotations

from torch import Tensor

from compress.calibrate.totals import Totals
from compress.registry import statistics


@statistics.add("expert_count", at="experts", sums=("count",))
def expert_count(totals: Totals) -> Tensor:
    """Share of the tokens that are routed to each expert, `[experts]`; they add up to the router's k."""
    return totals["count"] / totals.tokens


@statistics.add("expert_gate", at="experts", sums=("gate",))
def expert_gate(totals: Totals) -> Tensor:
    """Mean over all tokens of the router's weight of each expert, `[experts]`."""
    return totals["gate"] / totals.tokens


@statistics.add("expert_norm", at="experts", sums=("norm", "count"))
def expert_norm(totals: Totals) -> Tensor:
    """Mean of ‖f(x)‖₂ over the tokens routed to each expert, `[experts]`."""
    return totals["norm"] / totals["count"].clamp_min(1)


@statistics.add("expert_gated_norm", at="experts", sums=("gated", "count"))
def expert_gated_norm(totals: Totals) -> Tensor:
    """Mean of g(x)·‖f(x)‖₂ over the tokens routed to each expert, `[experts]` (REAP, arXiv 2510.13999)."""
    return totals["gated"] / totals["count"].clamp_min(1)


@statistics.add("expert_coactivation", at="experts", sums=("pairs",))
def expert_coactivation(totals: Totals) -> Tensor:
    """Share of the tokens that two experts are both chosen for, `[experts, experts]`; zero on the diagonal."""
    return totals["pairs"] / totals.tokens


@statistics.add("expert_ratios", at="experts", sums=("ratios",))
def expert_ratios(totals: Totals) -> Tensor:
    """Share of the choices but the first whose weight, over the first's, lies below 1/n, 2/n, …, 1, `[n]`."""
    return totals["ratios"].cumsum(0) / totals["ratios"].sum().clamp_min(1)


@statistics.add("router_gram", at="router", sums=("logits",))
def router_gram(totals: Totals) -> Tensor:
    """Mean of l·lᵀ over tokens, l the router's logits, `[experts, experts]`."""
    return totals["logits"] / totals.tokens
