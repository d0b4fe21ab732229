"""What a criterion looks at: the members of a family one by one, as matrices with inputs in columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from compress.errors import InputError, ModelError
from compress.graph.families import Family, Graph
from compress.graph.layout import Axis, Sum, unit_index
from compress.graph.projection import Projection, projection
from compress.graph.uses import uses
from compress.registry import sites, statistics

if TYPE_CHECKING:
    from compress.registry import Entry
    from compress.registry.metadata import CriterionMetadata

Reduce = Literal["sum", "mean", "max", "l2"]
Stats = Mapping[str, Mapping[str, Tensor]]
Read = Callable[[str], Tensor]
PART = 1 << 20  # weights scored at a time


@dataclass(frozen=True)
class MemberView:
    """One member tensor of a family, float32, turned so that inputs are columns.

    `weight` is `[out, in]` whatever the layout on disk; the family's dimension is `axis` (1 for role `in`, else 0). A
    convolution's inputs are windows: `[out, in × kernel]`, channels being the slower index.
    `units` `[weight.shape[axis]]` is the group of each position, -1 where it belongs to none. `stats` are the
    statistics of this tensor; those of the weight's shape are turned like it. A fused tensor (`q | k | v`) comes as
    one view per part, and a grouped convolution that reads the family as one per group.
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
        return Tally(self.size, reduce).add(values, self.units).total()


class Tally:
    """Adds up saliencies per group over any number of members."""

    def __init__(self, size: int, reduce: Reduce):
        self.reduce, self.size = reduce, size
        self.sums = torch.full((size,), float("-inf") if reduce == "max" else 0.0, dtype=torch.float64)
        self.counts = torch.zeros(size, dtype=torch.float64)

    def add(self, values: Tensor, units: Tensor, axis: int = 0) -> Tally:
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


def views(
    graph: Graph,
    family: Family,
    read: Read,
    stats: Stats,
    entry: Entry[CriterionMetadata],
    needs: tuple[str, ...],
    *,
    every: bool = False,
) -> Iterator[MemberView]:
    """The members one by one; those that do not count for a criterion are not even read, unless `every` one is."""
    found = False
    for tensor, role, dim in uses(graph, family):
        scored = entry.meta.is_scored(role)
        if not scored and not every:
            continue
        found |= scored
        own = {name: statistic(stats, name, tensor) for name in needs} if scored else {}
        axis = 1 if role == "in" else 0
        if axis and tensor in graph.convolutions and family.kind != "layers":
            yield from _windows(family, tensor, projection(graph, tensor, dim), read(tensor), own)
            continue
        for raw, stat, place in _matrices(graph, tensor, read(tensor), own, dim):
            whole = _view(graph, family, tensor, role, raw, stat, place, axis)
            layout = graph.layouts[tensor][dim]
            if isinstance(layout, Sum) and axis == 0 and family.kind != "layers":
                yield from _parts(whole, layout)
            else:
                yield whole
    if not found:
        raise InputError(
            f"{entry.name} cannot score {family.name}: no weight consumes its {family.kind}; "
            "use a criterion on all members, e.g. magnitude or taylor"
        )


def is_stack(graph: Graph, tensor: str) -> bool:
    """Whether a stored tensor stacks the matrices of experts, `[experts, out, in]`."""
    dims = graph.layouts[tensor]
    first = graph.families.get(dims[0].family) if dims and isinstance(dims[0], Axis) else None
    return len(dims) == 3 and first is not None and first.kind == "experts"


def _matrices(
    graph: Graph, tensor: str, raw: Tensor, stats: Mapping[str, Tensor], dim: int
) -> Iterator[tuple[Tensor, Mapping[str, Tensor], int]]:
    """A weight with its statistics and the family's dimension; experts one by one where the family is inside them."""
    if dim == 0 or not is_stack(graph, tensor):
        yield raw, stats, dim
        return
    for expert in range(len(raw)):
        yield raw[expert], {name: value[expert] for name, value in stats.items()}, dim - 1


def _view(
    graph: Graph,
    family: Family,
    tensor: str,
    role: str,
    raw: Tensor,
    stats: Mapping[str, Tensor],
    dim: int,
    axis: int,
) -> MemberView:
    weight = _turned(raw, dim, axis)
    own = {
        name: _turned(value, dim, axis) if value.shape == raw.shape and _per_weight(name) else value.float()
        for name, value in stats.items()
    }
    if family.kind == "layers":
        units = np.full(weight.shape[axis], family.blocks.index(graph.blocks[graph.block_of(tensor) or 0]))
    else:
        units = unit_index(graph.layouts[tensor][dim - raw.dim()], family.name)  # from the end, as experts come apart
    return MemberView(tensor, role, weight, own, torch.from_numpy(units), family.size)


def _windows(
    family: Family, tensor: str, turned: Projection, raw: Tensor, stats: Mapping[str, Tensor]
) -> Iterator[MemberView]:
    """A convolution that reads the family, one view per group."""
    layout = next(member.layout for member in family.members if (member.tensor, member.dim) == (tensor, turned.dim))
    units = torch.from_numpy(turned.spread(unit_index(layout, family.name)))
    weight = turned.matrix(raw.float())
    like = {
        name: turned.matrix(value.float()) if value.shape == raw.shape and _per_weight(name) else value.float()
        for name, value in stats.items()
    }
    for group in range(turned.groups):
        own = weight if turned.groups == 1 else weight[group]
        given = {name: value if turned.groups == 1 else value[group] for name, value in like.items()}
        yield MemberView(tensor, "in", own, given, units, family.size)


def _parts(view: MemberView, layout: Sum) -> Iterator[MemberView]:
    """The parts of a fused tensor that hold the family."""
    start = 0
    for part in layout.parts:
        cut = slice(start, start + part.size)
        start += part.size
        if (view.units[cut] >= 0).any():
            stats = {name: value[cut] if _per_weight(name) else value for name, value in view.stats.items()}
            yield replace(view, weight=view.weight[cut], stats=stats, units=view.units[cut])


def _per_weight(statistic: str) -> bool:
    """Whether a statistic has its weight's shape; its site says so, as a Gram matrix may happen to have it too."""
    return sites.get(statistics.get(statistic).meta.at).meta.per_weight


def _turned(tensor: Tensor, dim: int, axis: int) -> Tensor:
    """The tensor as a float32 matrix whose dimension `axis` is `dim`; the others are folded into one."""
    moved = tensor.float().movedim(dim, 0).flatten(1)
    return moved if axis == 0 else moved.T


def statistic(stats: Stats, name: str, key: str) -> Tensor:
    try:
        return stats[name][key]
    except KeyError:
        raise ModelError(f"{key}: calibration gathered no {name}; its operator may not be a plain projection") from None
