"""Spending a budget: from scores to what is kept, measured against the graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from compress.allocate.costs import Kept, Measure, measured, prices
from compress.allocate.pools import Pool, make_pools, masks_of
from compress.allocate.trials import Trials
from compress.errors import BudgetError, InputError
from compress.graph.families import Family, Graph
from compress.recipe.prune import Widths

if TYPE_CHECKING:
    from compress.registry import Entry

Improve = Callable[[list[int], Callable[[list[int]], bool]], list[int]]


class Measuring(Protocol):
    """An allocator that tries cuts out, made of its recipe arguments."""

    def measure(self, pools: Sequence[Pool], budget: float, trials: Trials) -> None:
        """Find out what it has to know to spend about this `budget`."""
        ...

    def __call__(self, pools: Sequence[Pool], budget: float) -> list[int]:
        """How many bundles each pool keeps."""
        ...

    def improve(
        self, pools: Sequence[Pool], kept: list[int], fits: Callable[[list[int]], bool], trials: Trials
    ) -> list[int]:
        """Counts no worse than `kept`, tried out on the whole model, that `fits` the budget."""
        ...


SEARCHES = 30  # halvings of the budget handed to the allocator, where savings do not simply add up


def allocate(
    graph: Graph,
    families: Iterable[Family],
    scores: Mapping[str, np.ndarray],
    *,
    allocator: Entry,
    arguments: Mapping[str, Any] | None = None,
    target: float | None = None,
    remove: float | None = None,
    measure: Measure = "params",
    sequence: int = 512,
    round: int = 1,
    widths: Widths = "uniform",
    already: Kept | None = None,
    stats: Mapping[str, Mapping[str, Any]] | None = None,
    trials: Trials | None = None,
) -> dict[str, np.ndarray]:
    """What each family keeps, family name → bool `[size]`, within the budget.

    The budget is `target`, the measure that may be left of the whole model, or `remove`, the share to take off what
    these families hold. `measure` is `params`, `flops` (of `sequence` tokens) or a function of kept groups, such as a
    latency table. At least the asked amount goes, and less than one bundle more; every family keeps a group.
    `already` holds the decisions of earlier steps: their groups stay removed, and blocks that are gone are left out.
    `stats` gives the statistics the allocator `needs`, `stats[name][block]`, and `trials` is for one that `measures`.
    Raises BudgetError, naming the nearest budget that can be met, where this one cannot or nothing would be removed.
    """
    already = already or {}
    gone = graph.removed_blocks(already)
    families = [family for family in families if family.layer is None or family.layer not in gone]
    size = measured(graph, measure, sequence)
    now = size(already)
    if remove is not None:
        empty = {family.name: np.zeros(family.size, bool) for family in families}
        target = now - remove * (now - size({**already, **empty}))
    if target is None:
        raise ValueError("a budget is either target or remove")
    if not families:
        raise BudgetError("nothing can be removed: no family of these kinds is free to lose groups")

    price = prices(graph, measure, already, sequence)
    pools = make_pools(families, scores, price, round=round, widths=widths, candidates=already)
    unit = measure if isinstance(measure, str) else "latency"

    def left(kept: list[int]) -> float:
        return size({**already, **masks_of(pools, kept)})

    def named(value: float) -> str:
        shown = f"{value:,.0f}" if isinstance(measure, str) else f"{value:.3g}"
        return f"{shown} {unit} ({value / now:.1%} of now)"

    least = left([pool.minimum for pool in pools])
    if not any(pool.size > pool.minimum for pool in pools):
        why = f" in steps of {round}" if round > 1 else ""
        raise BudgetError(f"nothing can be removed{why}: {_least(families)}; lower `round:` or prune more kinds")
    if target >= now:
        raise BudgetError(f"nothing to remove: {named(target)} may be left and {named(now)} are there; ask for less")
    if least > target * (1 + 1e-9):
        raise BudgetError(
            f"at most {named(target)} should be left, but {named(least)} remain at the least, as {_least(families)}; "
            "let at least that much stay, or prune more kinds"
        )
    spend, improve = _spender(graph, pools, allocator, arguments, stats, trials, now - target)
    kept = _search(spend, left, pools, now, target)
    if improve is not None:
        kept = improve(kept, lambda counts: left(counts) <= target * (1 + 1e-9))
    value, bundle = left(kept), max(float(pool.cost[pool.minimum :].max(initial=0)) for pool in pools)
    if value > target * (1 + 1e-9) or target - value > max(bundle, 1e-9 * now):
        raise BudgetError(f"{allocator.name} cannot leave {named(target)}; the nearest it can is {named(value)}")
    masks = masks_of(pools, kept)
    lost = graph.removed_blocks({**already, **masks})
    return {f.name: masks[f.name] for f in families if f.layer is None or f.layer not in lost}


def _search(
    spend: Callable[[float], list[int]],
    left: Callable[[list[int]], float],
    pools: list[Pool],
    now: float,
    target: float,
) -> list[int]:
    """The kept counts that leave most within `target`.

    Where savings add up the first answer is right. Where they do not (heads and head_dim share tensors, a removed
    block takes its channels with it), the amount handed to the allocator is halved down to the measured one.
    """
    need, total = now - target, float(sum(pool.cost.sum() for pool in pools))
    kept = spend(need)
    value = left(kept)
    linear = now - sum(float(pool.cost[n:].sum()) for pool, n in zip(pools, kept, strict=True))
    if abs(value - linear) <= 1e-6 * now and value <= target * (1 + 1e-9):
        return kept
    best, most = [pool.minimum for pool in pools], -np.inf
    low, high, tried = 0.0, total, need
    for _ in range(SEARCHES):
        if most < value <= target * (1 + 1e-9):
            best, most = kept, value
        low, high = (low, tried) if value <= target else (tried, high)
        if high - low <= 1e-7 * total:
            break
        tried = (low + high) / 2
        kept = spend(tried)
        value = left(kept)
    return best


def _spender(
    graph: Graph,
    pools: list[Pool],
    allocator: Entry,
    arguments: Mapping[str, Any] | None,
    stats: Mapping[str, Mapping[str, Any]] | None,
    trials: Trials | None,
    need: float,
) -> tuple[Callable[[float], list[int]], Improve | None]:
    """The allocator with its arguments and statistics, its answer held to the pools; and how it betters an answer."""
    if allocator.meta.layerwise and any(len(pool.layers) > 1 for pool in pools):
        raise InputError(f"{allocator.name} gives each layer a width of its own; say `widths: per-layer` with it")
    bound = allocator.bind(dict(arguments or {}))
    try:
        given = {
            name: np.array([float((stats or {})[name][block]) for block in graph.blocks])
            for name in allocator.meta.needs
        }
    except KeyError as missing:
        raise InputError(f"{allocator.name} needs statistics of every block; {missing} was not gathered") from None

    improve = None
    if allocator.meta.measures:
        if trials is None:
            raise ValueError(f"{allocator.name} measures, so it needs trials")
        bound = bound()
        bound.measure(pools, need, trials)
        improve = partial(_improved, bound, pools, trials)

    def spend(budget: float) -> list[int]:
        kept = bound(pools, budget, **given)
        return [int(np.clip(n, pool.minimum, pool.size)) for n, pool in zip(kept, pools, strict=True)]

    return spend, improve


def _improved(
    measuring: Measuring, pools: list[Pool], trials: Trials, kept: list[int], fits: Callable[[list[int]], bool]
) -> list[int]:
    return measuring.improve(pools, kept, fits, trials)


def _least(families: list[Family]) -> str:
    """Why not everything may go."""
    picked = [family for family in families if family.min_kept > 1]
    if not picked:
        return "every family must keep a group"
    return f"the router of {picked[0].name} picks so many that {picked[0].min_kept} must stay"
