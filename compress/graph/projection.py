"""A stored weight as the matrix that multiplies what it is given, whatever it is stored like."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from torch import Tensor

from compress.graph.families import Graph, Member
from compress.graph.uses import bias_name


@dataclass(frozen=True)
class Projection:
    """A weight `shape` whose dimension `dim` is its input.

    A convolution multiplies windows of what it is given: each input is as many `columns` as the kernel has positions,
    and each of its `groups` has a matrix of its own. A transposed one multiplies single positions, and its kernel
    belongs to the outputs.
    """

    shape: tuple[int, ...]
    dim: int
    columns: int = 1
    groups: int = 1

    def matrix(self, stored: Tensor) -> Tensor:
        """`[out, inputs × columns]`, of a grouped convolution `[groups, out / groups, inputs × columns]`."""
        if len(self.shape) > 2 and self.dim == 1:
            flat = stored.flatten(1)
            return flat if self.groups == 1 else flat.view(self.groups, -1, flat.shape[1])
        moved = stored.movedim(self.dim, 0).flatten(1)
        return moved.T

    def stored(self, matrix: Tensor) -> Tensor:
        """A `matrix` as it is stored."""
        if len(self.shape) > 2 and self.dim == 1:
            return matrix.reshape(self.shape)
        rest = [size for place, size in enumerate(self.shape) if place != self.dim]
        return matrix.T.reshape(self.shape[self.dim], *rest).movedim(0, self.dim)

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Values `[inputs]` as values of the matrix's columns."""
        return np.repeat(values, self.columns)


def projection(graph: Graph, tensor: str, dim: int) -> Projection:
    """How a stored weight multiplies what its dimension `dim` contracts."""
    shape = tuple(layout.size for layout in graph.layouts[tensor])
    found = graph.convolutions.get(tensor)
    if found is None or found.transposed or dim != 1:
        return Projection(shape, dim)
    return Projection(shape, dim, prod(shape[2:]), found.groups)


def repairable(graph: Graph, member: Member) -> bool:
    """Whether it is the input of a projection that can make up for inputs it loses.

    Stacked experts are not, and no transposed convolution: how many of its windows meet in an output differs.
    """
    if member.role != "in":
        return False
    found = graph.convolutions.get(member.tensor)
    return len(graph.layouts[member.tensor]) == 2 if found is None else not found.transposed


def added(graph: Graph, weight: str) -> tuple[str, float] | None:
    """The stored vector that is added to what a weight gives, and its sign; None where nothing is.

    It is the weight's bias, or else, subtracted, the mean of the batch norm that alone takes it.
    """
    if (bias := bias_name(weight)) in graph.layouts:
        return bias, 1.0
    found = graph.convolutions.get(weight)
    return None if found is None or found.mean is None else (found.mean, -1.0)
