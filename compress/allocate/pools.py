"""Pools of bundles: what an allocator chooses from. Rounding and equal widths are bundles here, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import lcm

import numpy as np

from compress.graph.families import Family
from compress.recipe.prune import Widths

Price = Callable[[Family, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Pool:
    """Bundles of groups that are kept from the first on; the last one kept is the next to go.

    `scores` `[bundles]`, descending, are the mean score of a bundle's groups, `cost` what its removal saves and
    `units` how many groups it has. At least `minimum` bundles stay. `layers` are the blocks it lives in.
    """

    kind: str
    layers: tuple[int, ...]
    scores: np.ndarray
    cost: np.ndarray
    minimum: int
    units: np.ndarray
    families: tuple[Family, ...] = ()
    orders: tuple[np.ndarray, ...] = ()  # per family its groups, best first
    step: int = 1

    @property
    def size(self) -> int:
        return len(self.scores)

    def masks(self, kept: int) -> dict[str, np.ndarray]:
        """Kept groups of each family, bool `[size]`, when `kept` bundles stay."""
        masks = {}
        for family, order in zip(self.families, self.orders, strict=True):
            masks[family.name] = np.zeros(family.size, bool)
            masks[family.name][order[: kept * self.step]] = True
        return masks


def make_pools(
    families: Iterable[Family],
    scores: Mapping[str, np.ndarray],
    price: Price,
    *,
    round: int = 1,
    widths: Widths = "uniform",
    candidates: Mapping[str, np.ndarray] | None = None,
) -> list[Pool]:
    """One pool per family, or with `widths="uniform"` one per kind and size with the r-th best of each layer tied.

    `price(family, order)` is what each group of `order` (best first) saves when it goes after all worse ones.
    `round` ties that many consecutive ranks: a family keeps a multiple of `round` groups, or all it has. It is meant
    for channels, or for the only kind there is. `candidates` are masks of groups that are there to be kept.
    """
    families = list(families)
    kinds = {family.kind for family in families}
    ties: dict[object, list[tuple[Family, np.ndarray]]] = {}
    for family in families:
        order = ranking(family, scores[family.name])
        if candidates and family.name in candidates:
            order = order[candidates[family.name][order]]
        tied = widths == "uniform" and family.kind != "layers"
        key = (family.kind, len(order), family.router_groups, family.min_kept, family.round_to)
        ties.setdefault(key if tied else family.name, []).append((family, order))
    return [
        _pool(tie, scores, price, round if len(kinds) == 1 or tie[0][0].kind == "channels" else 1)
        for tie in ties.values()
    ]


def masks_of(pools: Iterable[Pool], kept: Iterable[int]) -> dict[str, np.ndarray]:
    """What all families keep, bool `[size]` each, when each pool keeps so many bundles."""
    return {name: mask for pool, n in zip(pools, kept, strict=True) for name, mask in pool.masks(n).items()}


def ranking(family: Family, scores: np.ndarray) -> np.ndarray:
    """Groups, best first, `[size]`; those of a family with `runs` in turn, so that every run keeps as many."""
    if family.router_groups == 1:
        return np.argsort(-scores, kind="stable")
    each = scores.reshape(family.router_groups, -1)
    best = np.argsort(-each, axis=1, kind="stable") + np.arange(family.router_groups)[:, None] * each.shape[1]
    return best.T.ravel()


def _pool(tie: list[tuple[Family, np.ndarray]], scores: Mapping[str, np.ndarray], price: Price, step: int) -> Pool:
    step = lcm(step, tie[0][0].router_groups, tie[0][0].round_to)
    starts = np.arange(0, len(tie[0][1]), step)
    total = sum(np.add.reduceat(scores[family.name][order], starts) for family, order in tie)
    cost = sum(np.add.reduceat(price(family, order), starts) for family, order in tie)
    units = np.diff(np.append(starts, len(tie[0][1]))) * len(tie)
    return Pool(
        kind=tie[0][0].kind,
        layers=tuple(family.layer for family, _ in tie if family.layer is not None),
        scores=np.asarray(total / units, float),
        cost=np.asarray(cost, float),
        minimum=min(-(-tie[0][0].min_kept // step), len(starts)),
        units=units,
        families=tuple(family for family, _ in tie),
        orders=tuple(order for _, order in tie),
        step=step,
    )
