"""Sums over what the experts of a block do."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from compress.calibrate.experts import Visit
from compress.calibrate.totals import Totals, add_gram, double, moments

BINS = 1000
"""Into how many equal parts the range from 0 to 1 of a choice's weight over the first choice's is divided."""


def add_visits(totals: Totals, chosen: Tensor, weights: Tensor, visits: list[Visit], experts: int) -> None:
    """Adds `count`, `gate`, `norm` and `gated` (router's weight × norm) `[experts]`, `pairs` `[experts, experts]`, and
    `ratios` `[BINS]`: how many choices but the first have which weight, as a share of the first's.

    `chosen` `[tokens, k]` are the experts of each token, `weights` the router's.
    """
    found = {name: torch.zeros(experts, dtype=torch.float64) for name in ("count", "gate", "norm", "gated")}
    for visit in visits:
        norms, gates = visit.output.float().norm(dim=1), visit.gate.float()
        found["count"][visit.expert] = len(norms)
        for name, values in (("gate", gates), ("norm", norms), ("gated", norms * gates)):
            found[name][visit.expert] = double(values).sum().cpu()
    hot = torch.zeros(len(chosen.reshape(-1, chosen.shape[-1])), experts, device=chosen.device)
    hot.scatter_(1, chosen.reshape(-1, chosen.shape[-1]), 1.0)
    found["pairs"] = double(hot.T @ hot).fill_diagonal_(0).cpu()
    ratios = ratio(weights)[:, 1:].reshape(-1)
    found["ratios"] = double(torch.histc(ratios, BINS, 0, 1)).cpu()
    assert isinstance(totals.tokens, int)
    totals.tokens += len(hot)
    for name, value in found.items():
        totals.add(name, value)


def ratio(weights: Tensor) -> Tensor:
    """The weights `[tokens, k]` of each token's choices, greatest first, as shares of the greatest."""
    ordered = weights.float().sort(dim=-1, descending=True).values
    return ordered / ordered[:, :1].clamp_min(torch.finfo(torch.float32).tiny)


def add_moments(totals: Totals, names: Collection[str], visits: list[Visit], down: bool, experts: int) -> None:
    """Adds moments and Gram matrices of what each expert's projection is given, `[experts, in]` and one `in` more."""
    if not isinstance(totals.tokens, Tensor):
        totals.tokens = torch.zeros(experts, 1, dtype=torch.float64)
    wanted = frozenset(names) & {"sum", "square", "absolute"}
    for visit in visits:
        x = visit.inner if down else visit.given
        totals.tokens[visit.expert] += len(x)
        found = moments(x, wanted) if wanted else {}
        if "gram" in names:
            found["gram"] = torch.zeros(x.shape[1], x.shape[1], device=x.device)
            add_gram(found["gram"], x)
        for name, value in found.items():
            if name not in totals.sums:
                totals.sums[name] = torch.zeros(experts, *value.shape, dtype=value.dtype)
            totals.sums[name][visit.expert] += value.cpu()
