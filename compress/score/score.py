"""From criteria to scores: gives each criterion the tensors it asks for, reduces what it returns onto groups."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from compress.errors import InputError, ModelError
from compress.graph.families import Family, Graph
from compress.graph.routers import experts_module, router
from compress.score.clusters import Method, merge_heights
from compress.score.views import MemberView, Read, Reduce, Stats, Tally, counts, statistic, uses, views

if TYPE_CHECKING:
    from compress.registry import Entry


def statistics_of(entry: Entry, arguments: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    """Names of the statistics that a criterion, an allocator or a repair needs with these recipe arguments."""
    names = list(entry.meta.get("needs", ()))
    for argument, more in entry.meta.get("when", {}).items():
        given = (arguments or {}).get(argument)
        more = more.get(given, ()) if isinstance(more, Mapping) else more
        if given:
            names += [name for name in more if name not in names]
    return tuple(names)


def needed(
    graph: Graph, families: Iterable[Family], entry: Entry, arguments: Mapping[str, Any] | None = None
) -> dict[str, set[str]]:
    """What calibration has to gather: statistic → names of the tensors (or of the blocks) it is gathered at."""
    wanted: dict[str, set[str]] = {}
    for name in statistics_of(entry, arguments):
        keys = wanted.setdefault(name, set())
        for family in families:
            if name.startswith("block_"):
                keys.update(graph.blocks)
            elif name.startswith("expert_"):
                keys.update([experts_module(graph, family)] if family.kind == "experts" else [])
            elif name.startswith("router_"):
                keys.update([router(graph, family)] if family.kind == "experts" else [])
            else:
                keys.update(tensor for tensor, role, _ in uses(graph, family) if counts(entry, role))
    return wanted


def score(
    graph: Graph,
    families: Iterable[Family],
    criterion: Entry,
    stats: Stats,
    read: Read,
    *,
    arguments: Mapping[str, Any] | None = None,
    reduce: Reduce = "sum",
    fine: Literal["zscore"] | None = None,
    seed: int = 0,
    clusters: Method = "linkage",
) -> dict[str, np.ndarray]:
    """Scores of every group, family name → float64 `[size]`, higher = keep.

    `read(name)` gives a stored tensor, `stats[statistic][name]` a statistic; one family's tensors are held at a time.
    `reduce` says how saliencies per weight become one number per group. `fine="zscore"` standardises the scores of a
    family before they become groups' means: per input channel where the criterion is that fine, else per group.
    `clusters` says how experts are put together by a criterion that gives their distances.
    Raises InputError where a criterion cannot score such families, ModelError where scores are not finite.
    """
    bound, needs = criterion.bind(dict(arguments or {})), statistics_of(criterion, arguments)
    scope, result = criterion.meta["scope"], {}
    for family in families:
        call = _Call(bound, criterion, family.kind, seed)
        layers = family.kind == "layers"
        if layers and scope in ("inputs", "units"):
            raise InputError(f"{criterion.name} cannot score layers ({family.name}); block_influence can")
        if scope == "update":
            raise InputError(f"{criterion.name} updates single weights; say `prune: weights` with it")
        if scope in ("experts", "distances") and family.kind != "experts":
            raise InputError(f"{criterion.name} scores experts, not {family.kind} ({family.name}); prune experts")
        if scope == "layers" and not layers:
            raise InputError(f"{criterion.name} scores whole layers, not {family.kind} ({family.name}); prune layers")
        per_input = scope == "inputs" or (scope == "weights" and fine and criterion.meta["on"] == "in" and not layers)
        looks = views(graph, family, read, stats, criterion, needs)
        if scope == "families":
            scores = call(family=family)
        elif scope == "experts":
            scores = call(**expert_statistics(graph, family, stats, needs))
        elif scope == "distances":
            apart = distances(graph, family, criterion, stats, read, arguments)
            scores = torch.from_numpy(merge_heights(apart, family.runs, clusters))
        elif scope == "layers":
            scores = call(**{name: _per_block(stats, name, family.blocks) for name in needs})
        elif scope == "units":
            scores = call(views=list(looks))
        elif per_input:
            scores = _per_input(call, looks, family, reduce, fine)
        else:
            tally = Tally(family.size, reduce)
            for part in (part for view in looks for part in view.in_parts()):
                tally.add(call(weight=part.weight, **part.stats), part.units, part.axis)
            scores = tally.total()
        values = scores.double().cpu().numpy()
        if values.shape != (family.size,) or not np.isfinite(values).all():
            raise ModelError(f"{family.name}: {criterion.name} gave scores that are not {family.size} finite numbers")
        if fine == "zscore" and not per_input:
            values = (values - values.mean()) / max(values.std(), 1e-12)
        result[family.name] = values
    return result


def distances(
    graph: Graph,
    family: Family,
    criterion: Entry,
    stats: Stats,
    read: Read,
    arguments: Mapping[str, Any] | None = None,
) -> np.ndarray:
    """How unlike the experts of a family are to a criterion of scope `distances`, `[size, size]`."""
    call = _Call(criterion.bind(dict(arguments or {})), criterion, family.kind, 0)
    own = expert_statistics(graph, family, stats, statistics_of(criterion, arguments))
    return call(router=read(router(graph, family)).float(), **own).double().cpu().numpy()


def expert_statistics(graph: Graph, family: Family, stats: Stats, needs: Iterable[str]) -> dict[str, Tensor]:
    """Those of a family's experts and of their router."""
    return {
        name: statistic(stats, name, (router if name.startswith("router_") else experts_module)(graph, family))
        for name in needs
    }


def call_with(criterion: Entry, arguments: Mapping[str, Any], seed: int) -> Callable[..., Tensor]:
    """The criterion with its arguments, which takes of what it is handed what its signature names."""
    return _Call(criterion.bind(dict(arguments)), criterion, "other", seed)


class _Call:
    """A bound criterion that is handed, of what the engine has, what its signature names."""

    def __init__(self, bound: Callable[..., Tensor], entry: Entry, kind: str, seed: int):
        self.bound, self.extra = bound, {"kind": kind, "seed": seed}
        self.names = set(inspect.signature(entry.target).parameters)

    def __call__(self, **given: Any) -> Tensor:
        given = {**self.extra, **given}
        return self.bound(**{name: value for name, value in given.items() if name in self.names})


def _per_input(call: _Call, views: Iterator[MemberView], family: Family, reduce: Reduce, fine: str | None) -> Tensor:
    """Scores per input channel of each consumer, standardised there if asked, then the mean of a group's channels."""
    tally = Tally(family.size, "mean")
    for view in views:
        values = call(weight=view.weight, **view.stats).double()
        if values.dim() == 2:
            values = {"sum": values.sum, "mean": values.mean, "max": values.amax, "l2": values.norm}[reduce](dim=0)
        if fine == "zscore":
            values = (values - values.mean()) / values.std().clamp_min(1e-12)
        tally.add(values, view.units)
    return tally.total()


def _per_block(stats: Stats, name: str, blocks: tuple[str, ...]) -> Tensor:
    return torch.stack([statistic(stats, name, block).double().reshape(()) for block in blocks])
