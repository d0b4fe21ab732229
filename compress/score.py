"""From criteria to scores: gives each criterion the tensors it asks for, reduces what it returns onto groups."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from compress.errors import InputError, ModelError
from compress.graph.families import Family, Graph
from compress.graph.layout import Sum, unit_index

if TYPE_CHECKING:
    from compress.registry import Entry

Reduce = Literal["sum", "mean", "max", "l2"]
Stats = Mapping[str, Mapping[str, Tensor]]
Read = Callable[[str], Tensor]
PART = 1 << 20  # weights scored at a time


@dataclass(frozen=True)
class MemberView:
    """One member tensor of a family, float32, turned so that inputs are columns.

    `weight` is `[out, in]` whatever the layout on disk; the family's dimension is `axis` (1 for role `in`, else 0).
    `units` `[weight.shape[axis]]` is the group of each position, -1 where it belongs to none. `stats` are the
    statistics of this tensor; those of the weight's shape are turned like it. A fused tensor (`q | k | v`) comes as
    one view per part.
    """

    tensor: str
    role: str
    weight: Tensor
    stats: Mapping[str, Tensor]
    units: Tensor
    size: int

    @property
    def axis(self) -> int:
        return 1 if self.role == "in" else 0

    def in_parts(self) -> Iterator[MemberView]:
        """The same, some rows at a time: saliencies then stay in the cache instead of filling a second weight."""
        rows = max(1, PART // max(self.weight.shape[1], 1))
        for start in range(0, len(self.weight), rows):
            cut = slice(start, start + rows)
            stats = {k: s[cut] if s.shape == self.weight.shape and _per_weight(k) else s for k, s in self.stats.items()}
            units = self.units if self.axis else self.units[cut]
            yield replace(self, weight=self.weight[cut], stats=stats, units=units)

    def onto_units(self, values: Tensor, reduce: Reduce = "sum") -> Tensor:
        """Reduces `values` `[positions]` onto groups `[size]`."""
        return _Tally(self.size, reduce).add(values, self.units).total()


def statistics_of(entry: Entry, arguments: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    """Names of the statistics that a criterion, an allocator or a repair needs with these recipe arguments."""
    names = list(entry.meta.get("needs", ()))
    for argument, more in entry.meta.get("when", {}).items():
        if (arguments or {}).get(argument):
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
            else:
                keys.update(tensor for tensor, role, _ in _uses(graph, family) if _counts(entry, role))
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
) -> dict[str, np.ndarray]:
    """Scores of every group, family name → float64 `[size]`, higher = keep.

    `read(name)` gives a stored tensor, `stats[statistic][name]` a statistic; one family's tensors are held at a time.
    `reduce` says how saliencies per weight become one number per group. `fine="zscore"` standardises the scores of a
    family before they become groups' means: per input channel where the criterion is that fine, else per group.
    Raises InputError where a criterion cannot score such families, ModelError where scores are not finite.
    """
    bound, needs = criterion.bind(dict(arguments or {})), statistics_of(criterion, arguments)
    scope, result = criterion.meta["scope"], {}
    for family in families:
        call = _Call(bound, criterion, family, seed)
        layers = family.kind == "layers"
        if layers and scope in ("inputs", "units"):
            raise InputError(f"{criterion.name} cannot score layers ({family.name}); block_influence can")
        if scope == "layers" and not layers:
            raise InputError(f"{criterion.name} scores whole layers, not {family.kind} ({family.name}); prune layers")
        per_input = scope == "inputs" or (scope == "weights" and fine and criterion.meta["on"] == "in" and not layers)
        views = _views(graph, family, read, stats, criterion, needs)
        if scope == "families":
            scores = call(family=family)
        elif scope == "layers":
            scores = call(**{name: _per_block(stats, name, family.blocks) for name in needs})
        elif scope == "units":
            scores = call(views=list(views))
        elif per_input:
            scores = _per_input(call, views, family, reduce, fine)
        else:
            tally = _Tally(family.size, reduce)
            for part in (part for view in views for part in view.in_parts()):
                tally.add(call(weight=part.weight, **part.stats), part.units, part.axis)
            scores = tally.total()
        values = scores.double().cpu().numpy()
        if values.shape != (family.size,) or not np.isfinite(values).all():
            raise ModelError(f"{family.name}: {criterion.name} gave scores that are not {family.size} finite numbers")
        if fine == "zscore" and not per_input:
            values = (values - values.mean()) / max(values.std(), 1e-12)
        result[family.name] = values
    return result


class _Call:
    """A bound criterion that is handed, of what the engine has, what its signature names."""

    def __init__(self, bound: Callable[..., Tensor], entry: Entry, family: Family, seed: int):
        self.bound, self.extra = bound, {"kind": family.kind, "seed": seed}
        self.names = set(inspect.signature(entry.target).parameters)

    def __call__(self, **given: Any) -> Tensor:
        given = {**self.extra, **given}
        return self.bound(**{name: value for name, value in given.items() if name in self.names})


class _Tally:
    """Adds up saliencies per group over any number of members."""

    def __init__(self, size: int, reduce: Reduce):
        self.reduce, self.size = reduce, size
        self.sums = torch.full((size,), float("-inf") if reduce == "max" else 0.0, dtype=torch.float64)
        self.counts = torch.zeros(size, dtype=torch.float64)

    def add(self, values: Tensor, units: Tensor, axis: int = 0) -> _Tally:
        """`values` `[positions]`, or a matrix with the positions along `axis`; those of unit -1 are left out."""
        count = values.numel() // len(units)
        values = values.square() if self.reduce == "l2" else values
        if values.dim() == 2:
            values = values.amax(1 - axis) if self.reduce == "max" else values.sum(1 - axis)
        units = units.to(values.device)
        values, units = values[units >= 0].double().cpu(), units[units >= 0].cpu()
        if self.reduce == "max":
            self.sums.scatter_reduce_(0, units, values, "amax")
        else:
            self.sums.index_add_(0, units, values)
        self.counts.index_add_(0, units, torch.full_like(values, count))
        return self

    def total(self) -> Tensor:
        if self.reduce == "mean":
            return self.sums / self.counts
        return self.sums.sqrt() if self.reduce == "l2" else self.sums


def _per_input(call: _Call, views: Iterator[MemberView], family: Family, reduce: Reduce, fine: str | None) -> Tensor:
    """Scores per input channel of each consumer, standardised there if asked, then the mean of a group's channels."""
    tally = _Tally(family.size, "mean")
    for view in views:
        values = call(weight=view.weight, **view.stats).double()
        if values.dim() == 2:
            values = {"sum": values.sum, "mean": values.mean, "max": values.amax, "l2": values.norm}[reduce](dim=0)
        if fine == "zscore":
            values = (values - values.mean()) / values.std().clamp_min(1e-12)
        tally.add(values, view.units)
    return tally.total()


def _per_block(stats: Stats, name: str, blocks: tuple[str, ...]) -> Tensor:
    return torch.stack([_statistic(stats, name, block).double().reshape(()) for block in blocks])


def _counts(entry: Entry, role: str) -> bool:
    """Whether a member of this role takes part in a criterion (and so needs its statistics)."""
    return role == "in" or entry.meta.get("on", "all") == "all"


def _uses(graph: Graph, family: Family) -> Iterator[tuple[str, str, int]]:
    """(tensor, role, dimension) of what a criterion looks at: matrices, not vectors.

    The groups of a family of kind `layers` are whole blocks, so all matrices in them; the dimension is then the input.
    """
    if family.kind != "layers":
        for member in family.members:
            if len(graph.layouts[member.tensor]) > 1:
                yield member.tensor, member.role, member.dim
        return
    inputs = {m.tensor: m.dim for f in graph.families.values() for m in f.members if m.role == "in"}
    for tensor, dims in graph.layouts.items():
        owner = graph.block_of(tensor)
        if len(dims) > 1 and owner is not None and graph.blocks[owner] in family.blocks:
            yield tensor, "in" if tensor in inputs else "other", inputs.get(tensor, 0)


def _views(
    graph: Graph, family: Family, read: Read, stats: Stats, entry: Entry, needs: tuple[str, ...]
) -> Iterator[MemberView]:
    """The members one by one; the ones that a weight-wise criterion does not look at are not even read."""
    found = False
    for tensor, role, dim in _uses(graph, family):
        if not _counts(entry, role) and entry.meta["scope"] != "units":
            continue
        found |= _counts(entry, role)
        own = {name: _statistic(stats, name, tensor) for name in needs} if _counts(entry, role) else {}
        raw, axis = read(tensor), 1 if role == "in" else 0
        weight = _turned(raw, dim, axis)
        own = {
            k: _turned(s, dim, axis) if s.shape == raw.shape and _per_weight(k) else s.float() for k, s in own.items()
        }
        layout = graph.layouts[tensor][dim]
        if family.kind == "layers":
            block = family.blocks.index(graph.blocks[graph.block_of(tensor) or 0])
            units = np.full(weight.shape[axis], block)
        else:
            units = unit_index(layout, family.name)
        index, start = torch.from_numpy(units), 0
        parts = layout.parts if isinstance(layout, Sum) and axis == 0 and family.kind != "layers" else (layout,)
        for part in parts:
            cut = slice(start, start + part.size) if len(parts) > 1 else slice(None)
            start += part.size
            if (index[cut] >= 0).any():
                if len(parts) == 1:
                    yield MemberView(tensor, role, weight, own, index, family.size)
                    continue
                sliced = {k: s[cut] if _per_weight(k) else s for k, s in own.items()}
                yield MemberView(tensor, role, weight[cut], sliced, index[cut], family.size)
    if not found:
        raise InputError(
            f"{entry.name} cannot score {family.name}: no weight consumes its {family.kind}; "
            "use a criterion on all members, e.g. magnitude or taylor"
        )


def _per_weight(statistic: str) -> bool:
    """Whether a statistic has its weight's shape; told by name, as a Gram matrix may happen to have it too."""
    return not statistic.startswith("input_") and statistic != "projection"


def _turned(tensor: Tensor, dim: int, axis: int) -> Tensor:
    """The tensor as a float32 matrix whose dimension `axis` is `dim`; the others are folded into one."""
    moved = tensor.float().movedim(dim, 0).flatten(1)
    return moved if axis == 0 else moved.T


def _statistic(stats: Stats, name: str, key: str) -> Tensor:
    try:
        return stats[name][key]
    except KeyError:
        raise ModelError(f"{key}: calibration gathered no {name}; its operator may not be a plain projection") from None
