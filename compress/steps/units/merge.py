"""Which expert of a cluster stays, and what it is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch

from compress.graph.families import Family
from compress.graph.routers import experts_module
from compress.model.model import Model
from compress.recipe.prune import Prune
from compress.registry import criteria
from compress.score.clusters import clusters
from compress.score.score import distances, score, statistics_of
from compress.score.views import Stats, statistic

FEW = 3
"""Clusters in a layer up to which `selective` merging averages (STUN's κ)."""

Kept = dict[str, np.ndarray]


def select_and_merge_experts(
    source: Model, step: Prune, families: Iterable[Family], kept: Mapping[str, np.ndarray], stats: Stats
) -> tuple[Kept, dict[str, np.ndarray]]:
    """Who stays of each cluster when a family keeps as many experts as `kept` says, and the matrices that merge.

    Without `merge` the criterion `stay` chooses of each cluster; without that, too, the expert nearest to the mean
    stays, in the space of all its weights (Lee et al. 2024, §4.3). Merged experts take its place; a matrix is `[kept,
    experts]`, rows add up to one.
    """
    chosen, mixes = dict(kept), dict[str, np.ndarray]()
    criterion = criteria.get(step.by.name)
    for family in families:
        if family.kind != "experts" or family.name not in kept:
            continue
        apart = distances(source.graph, family, criterion, stats, source.weights.read, step.by.arguments)
        groups = clusters(apart, family.router_groups, int(kept[family.name].sum()), step.clusters)
        stay = _representatives(source, step, family, groups, stats)
        chosen[family.name] = np.isin(np.arange(family.size), list(stay))
        if step.merge is None or (step.merge == "selective" and len(groups) > FEW):
            continue
        shares = _shares(source, step, family, stats)
        mix = np.zeros((len(stay), family.size))
        for row, expert in zip(mix, sorted(stay), strict=True):
            group = stay[expert]
            total = shares[group].sum()
            row[group] = shares[group] / total if total > 0 else 1 / len(group)
        mixes[family.name] = mix
    return chosen, mixes


def needs(step: Prune) -> tuple[str, ...]:
    """Statistics that merging reads, or choosing who stays."""
    chosen = statistics_of(criteria.get(step.stay.name), step.stay.arguments) if step.stay else ()
    return (*chosen, *(("expert_count",) if step.merge == "frequency" else ()))


def _representatives(
    source: Model, step: Prune, family: Family, groups: list[list[int]], stats: Stats
) -> dict[int, list[int]]:
    """The expert that stays, or in whose place the merged one comes → its group."""
    if step.stay is None:
        near = _products(source, family)
        return {_nearest(near, group): group for group in groups}
    criterion, read = criteria.get(step.stay.name), source.weights.read
    scores = score(source.graph, [family], criterion, stats, read, arguments=step.stay.arguments)[family.name]
    return {max(group, key=lambda expert: scores[expert]): group for group in groups}


def _shares(source: Model, step: Prune, family: Family, stats: Stats) -> np.ndarray:
    if step.merge != "frequency":
        return np.ones(family.size)
    return statistic(stats, "expert_count", experts_module(source.graph, family)).double().numpy()


def _products(source: Model, family: Family) -> np.ndarray:
    """Inner products of the experts as vectors of all their weights, `[experts, experts]`."""
    total = torch.zeros(family.size, family.size, dtype=torch.float64)
    for member in family.members:
        if len(source.graph.layouts[member.tensor]) == 3:
            rows = source.weights.read(member.tensor).flatten(1)
            for part in rows.split(1 << 16, dim=1):
                total += (part.float() @ part.float().T).double()
    return total.numpy()


def _nearest(products: np.ndarray, group: list[int]) -> int:
    """The member nearest to the group's mean."""
    own = products[np.ix_(group, group)]
    return group[int(np.argmin(own.diagonal() - 2 * own.mean(1)))]
