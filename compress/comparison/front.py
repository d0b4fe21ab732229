"""The Pareto front: what nothing else beats in quality and in cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

COSTS = {
    "params": "Parameters",
    "flops": "FLOPs",
    "prefill": "Prefill FLOPs",
    "cache": "KV cache",
    "latency": "Latency",
}
WEIGHTS, TOKENS = ("params", "flops"), ("prefill", "cache")
"""Costs that pruned weights save, and those that pruned visual tokens do."""


def fronts(rows: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Cost → names of the rows on its front, cheapest first. Rows without a `quality` or that cost are left out.

    A row is on the front when no other is at least as good and at least as cheap, and better in one of the two. Of two
    latencies whose ranges overlap neither is cheaper. Where all rows prune visual tokens the costs are those of reading
    a prompt with a picture, else those of text.
    """
    found, other = {}, WEIGHTS if prune_tokens(rows) else TOKENS
    for cost in (cost for cost in COSTS if cost not in other):
        some = [row for row in rows if row.get("quality") and row.get(cost) is not None]
        best = [row for row in some if not any(_beats(other, row, cost) for other in some)]
        found[cost] = [row["name"] for row in sorted(best, key=lambda row: row[cost])]
    return {cost: names for cost, names in found.items() if names}


def prune_tokens(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether all rows that did not fail, one at least, have a rule about visual tokens."""
    done = [row for row in rows if "error" not in row]
    return bool(done) and all("kept" in row for row in done)


def goodness(quality: Mapping[str, Any]) -> float:
    """Higher is better: the quality itself, or its negative where less is better."""
    return quality["value"] if quality["higher_is_better"] else -quality["value"]


def _beats(other: Mapping[str, Any], row: Mapping[str, Any], cost: str) -> bool:
    better = goodness(other["quality"]) - goodness(row["quality"])
    cheaper = _cheaper(other, row, cost)
    return better >= 0 and cheaper >= 0 and (better > 0 or cheaper > 0)


def _cheaper(other: Mapping[str, Any], row: Mapping[str, Any], cost: str) -> float:
    """Positive where `other` costs less, zero where that cannot be said."""
    between = f"{cost}_range"
    if between in row and between in other:
        (low, high), (other_low, other_high) = row[between], other[between]
        if low <= other_high and other_low <= high:
            return 0.0
    return row[cost] - other[cost]
