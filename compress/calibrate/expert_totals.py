"""Sums over what the experts of a block do."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from compress.calibrate.experts import Visit
from compress.calibrate.totals import Totals, add_gram, double, moments

BINS = 1000
"""Into how many equal parts the range from 0 to 1 of a choice's weight over the first choice's is divided."""


def add_visits(
    totals: Totals,
    chosen: Tensor,
    weights: Tensor,
    visits: list[Visit],
    experts: int,
    token_weight: Tensor | None = None,
) -> None:
    """Adds `count`, `gate`, `norm` and `gated` (router's weight × norm) `[experts]`, `pairs` `[experts, experts]`, and
    `ratios` `[BINS]`: how many choices but the first have which weight, as a share of the first's.

    `chosen` `[tokens, k]` are the experts of each token, `weights` the router's. With a `token_weight` `[tokens]` each
    token counts as much as that says.
    """
    found = {name: torch.zeros(experts, dtype=torch.float64) for name in ("count", "gate", "norm", "gated")}
    for visit in visits:
        norms, gates = visit.output.float().norm(dim=1), visit.gate.float()
        own = None if token_weight is None else double(token_weight[visit.tokens])
        found["count"][visit.expert] = len(norms) if own is None else own.sum().cpu()
        for name, values in (("gate", gates), ("norm", norms), ("gated", norms * gates)):
            found[name][visit.expert] = (double(values) if own is None else double(values) * own).sum().cpu()
    hot = torch.zeros(len(chosen.reshape(-1, chosen.shape[-1])), experts, device=chosen.device)
    hot.scatter_(1, chosen.reshape(-1, chosen.shape[-1]), 1.0)
    counted = hot if token_weight is None else hot * token_weight[:, None]
    found["pairs"] = double(hot.T @ counted).fill_diagonal_(0).cpu()
    found["ratios"] = _histogram(ratio(weights)[:, 1:], token_weight)
    totals.count(len(hot), token_weight)
    for name, value in found.items():
        totals.add(name, value)


def _histogram(ratios: Tensor, token_weight: Tensor | None) -> Tensor:
    """How many of the `ratios` `[tokens, k − 1]` lie in each of the bins, float64 `[BINS]` on the processor."""
    if token_weight is None:
        return double(torch.histc(ratios.reshape(-1), BINS, 0, 1)).cpu()
    places = (ratios * BINS).long().clamp_max(BINS - 1)
    counts = double(token_weight)[:, None].expand(places.shape).cpu()
    return torch.zeros(BINS, dtype=torch.float64).index_add_(0, places.reshape(-1).cpu(), counts.reshape(-1))


def ratio(weights: Tensor) -> Tensor:
    """The weights `[tokens, k]` of each token's choices, greatest first, as shares of the greatest."""
    ordered = weights.float().sort(dim=-1, descending=True).values
    return ordered / ordered[:, :1].clamp_min(torch.finfo(torch.float32).tiny)


def add_moments(
    totals: Totals,
    names: Collection[str],
    visits: list[Visit],
    down: bool,
    experts: int,
    token_weight: Tensor | None = None,
) -> None:
    """Adds moments and Gram matrices of what each expert's projection is given, `[experts, in]` and one `in` more."""
    if not isinstance(totals.tokens, Tensor):
        totals.tokens = torch.zeros(experts, 1, dtype=torch.float64)
    wanted = frozenset(names) & {"sum", "square", "absolute"}
    for visit in visits:
        x = visit.inner if down else visit.given
        own = None if token_weight is None else token_weight[visit.tokens]
        totals.tokens[visit.expert] += len(x) if own is None else double(own).sum().cpu()
        found = moments(x, wanted, own) if wanted else {}
        if "gram" in names:
            found["gram"] = torch.zeros(x.shape[1], x.shape[1], device=x.device)
            add_gram(found["gram"], x, own)
        for name, value in found.items():
            if name not in totals.sums:
                totals.sums[name] = torch.zeros(experts, *value.shape, dtype=value.dtype)
            totals.sums[name][visit.expert] += value.cpu()
