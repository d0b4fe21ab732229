"""The matrices whose single weights a step may zero, as criteria and layer ratios see them: inputs in columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from compress.errors import InputError
from compress.graph.families import Graph
from compress.graph.layout import Axis
from compress.graph.projection import projection
from compress.score.views import Stats, is_stack, statistic

if TYPE_CHECKING:
    from compress.recipe.weights import PruneWeights


class Losses(Protocol):
    """The dense model's loss while one of its matrices is moved."""

    def sensitivity(self, name: str, step: float, generator: torch.Generator) -> float:
        """Σ over batches of |L(θ + `step`·z) − L(θ − `step`·z)| / (2 · `step`)."""
        ...


@dataclass(frozen=True)
class Matrices:
    """`inputs`: name of each projection that the step may touch → the dimension that it contracts (the last of
    `[experts, out, in]` is 2, of a convolution's `[out, in, *kernel]` it is 1). `read` gives stored tensors, `stats`
    what was gathered on the dense model, `measure` its losses and `score` the criterion's saliencies."""

    graph: Graph
    inputs: dict[str, int]
    read: Callable[[str], Tensor]
    stats: Stats
    measure: Callable[[int], Losses]
    score: Callable[[str], Tensor]

    @property
    def names(self) -> list[str]:
        return list(self.inputs)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Weights of each."""
        return {name: torch.Size(d.size for d in self.graph.layouts[name]).numel() for name in self.inputs}

    @cached_property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """(out, in) of each; of one of its parts where it has several."""
        return shapes(self.graph, self.inputs)

    @property
    def total(self) -> int:
        return sum(self.sizes.values())

    @cached_property
    def blocks(self) -> list[list[str]]:
        """The names by block, in order; before them those that lie outside of blocks."""
        found: dict[int, list[str]] = {}
        for name in self.inputs:
            block = self.graph.block_of(name)
            found.setdefault(-1 if block is None else block, []).append(name)
        return [found[i] for i in sorted(found)]

    def weight(self, name: str) -> Tensor:
        """`[out, in]`, or `[parts, out, in]`, float32."""
        return as_matrices(self.graph, name, self.inputs[name], self.read(name).float())

    def saliency(self, name: str) -> Tensor:
        """What the step's criterion makes of each weight, shaped like the weight; for ratios that declare `scores`."""
        return self.score(name)

    def statistic(self, which: str, name: str) -> Tensor:
        """A statistic that lines up with the weight's inputs: `[in]`, or `[parts, 1, in]`."""
        value = statistic(self.stats, which, name)
        return value[:, None] if has_parts(self.graph, name) else value

    @contextmanager
    def losses(self, batches: int) -> Iterator[Losses]:
        """Losses over the first `batches` of the calibration text."""
        yield self.measure(batches)


def shapes(graph: Graph, inputs: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """(out, in) of each tensor, name → the dimension that it contracts; of one of its parts where it has several."""
    found = {}
    for name, dim in inputs.items():
        like = torch.empty([layout.size for layout in graph.layouts[name]], device="meta")
        *_, rows, columns = as_matrices(graph, name, dim, like).shape
        found[name] = (rows, columns)
    return found


def has_parts(graph: Graph, name: str) -> bool:
    """Whether a tensor is several matrices: of stacked experts, of the groups of a convolution."""
    convolution = graph.convolutions.get(name)
    grouped = convolution is not None and convolution.groups > 1 and not convolution.transposed
    return grouped or is_stack(graph, name)


def as_matrices(graph: Graph, name: str, dim: int, stored: Tensor) -> Tensor:
    """A stored tensor that contracts its dimension `dim` as `[out, in]`, or `[parts, out, in]` where it `has_parts`.

    Of a convolution the inputs are windows, channels × kernel (of a transposed one the outputs are). It is a view
    where the tensor is contiguous.
    """
    if name in graph.convolutions:
        return projection(graph, name, dim).matrix(stored)
    return stored if dim == stored.dim() - 1 else stored.transpose(-1, -2)


def as_stored(graph: Graph, name: str, dim: int, matrices: Tensor) -> Tensor:
    """The inverse of `as_matrices`."""
    if name in graph.convolutions:
        return projection(graph, name, dim).stored(matrices)
    return matrices if dim == matrices.dim() - 1 else matrices.transpose(-1, -2)


def find_matrices(graph: Graph, step: PruneWeights) -> dict[str, int]:
    """The projections that a step may touch, name → contracted dimension; routers are none, nor is what alone reads
    the model's input.

    Raises InputError where `skip` names nothing, or everything.
    """
    ends: dict[str, dict[str, int]] = {}
    for family in graph.families.values():
        for member in family.members:
            if member.role in ("in", "out"):
                ends.setdefault(member.tensor, {})[member.role] = member.dim
    whole = graph.layers(step.skip_layers)
    if bad := [glob for glob in step.skip if not any(fnmatch(name, glob) for name in graph.layouts)]:
        raise InputError(f"skip: {bad[0]!r} is the name of no tensor; `compress inspect` lists them")
    found = {}
    for name, roles in ends.items():
        block = graph.block_of(name)
        inside = block is not None or step.where == "all"
        if {"in", "out"} <= roles.keys() and inside and block not in whole:
            kinds = {graph.families[d.family].kind for d in graph.layouts[name] if isinstance(d, Axis) and d.family}
            router = len(graph.layouts[name]) == 2 and "experts" in kinds
            if not router and "vocab" not in kinds and not any(fnmatch(name, glob) for glob in step.skip):
                found[name] = roles["in"]
    if not found:
        if not graph.blocks and step.where == "blocks":
            raise InputError("where: blocks: the model has no repeated blocks; say `where: all`")
        raise InputError("skip: nothing is left to prune; leave some projections to it")
    return {name: found[name] for name in graph.layouts if name in found}
