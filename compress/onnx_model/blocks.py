"""Repeated blocks of a graph, told by the numbers in the names of its nodes and weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from compress.onnx_model.file import Node, OnnxFile

RESERVED = frozenset(dir(nn.Module())) | {
    *("fixed_numbers", "layer_of", "onnx_file", "run_numbers", "stored_as", "stretch", "watched"),
}
"""Attributes of modules, which no weight may be called."""


@dataclass(frozen=True)
class Stretch:
    """Nodes from `first` to before `end` that are one block, called `name`.

    They read the values `taken` of what comes before and give the values `given`, in both the latest made first: the
    hidden states of a block are what was added up last.
    """

    name: str
    first: int
    end: int
    taken: tuple[str, ...]
    given: tuple[str, ...]


Run = Callable[[Stretch, dict[str, Any]], dict[str, Any]]


class Block(nn.Module):
    """One block, which `run` runs; called with the tensors that it takes, and with other values by name."""

    def __init__(self, stretch: Stretch, run: Run) -> None:
        super().__init__()
        self.stretch, self._run = stretch, run

    def forward(self, *tensors: Tensor, names: tuple[str, ...], others: Mapping[str, Any]) -> tuple[Any, ...]:
        """What the block gives, tensors (`names` says which) and others, in the order of `Stretch.given`."""
        made = self._run(self.stretch, {**others, **dict(zip(names, tensors, strict=True))})
        return tuple(made[name] for name in self.stretch.given)


def stretches(file: OnnxFile) -> list[Stretch]:
    """The blocks in order; none where the names tell of no list of them, or their nodes are mixed up."""
    places: dict[str, dict[int, list[int]]] = {}
    for place, node in enumerate(file.nodes):
        for stack, index in dict.fromkeys(_numbered(file, node)):
            places.setdefault(stack, {}).setdefault(index, []).append(place)
    found: list[Stretch] = []
    for stack, blocks in places.items():
        ends = [(min(blocks[i]), max(blocks[i])) for i in range(len(blocks)) if i in blocks]
        apart = all(one[1] < other[0] for one, other in pairwise(ends))
        if len(ends) < max(len(blocks), 2) or not apart:
            continue
        starts = [first for first, _ in ends]
        bounds = [*starts[1:], _end(file, ends[-1][1])]
        taken = {other.name for other in found}
        if any(other.first < bounds[-1] and starts[0] < other.end for other in found) or stack in taken:
            continue
        found += [_stretch(file, f"{stack}.{i}", *bound) for i, bound in enumerate(zip(starts, bounds, strict=True))]
    return sorted(found, key=lambda stretch: stretch.first)


def _numbered(file: OnnxFile, node: Node) -> Iterable[tuple[str, int]]:
    """(list, number) in a node's own name where that is a path, else in those of the weights that it reads."""
    for name in [node.name] if "/" in node.name else _names(file, node):
        parts = path(name).split(".")
        at = next((i for i, part in enumerate(parts) if part.isdecimal() and i), None)
        if at is not None and at + 1 < len(parts):
            yield ".".join(parts[:at]), int(parts[at])


def _names(file: OnnxFile, node: Node) -> list[str]:
    """Of the arrays that a node reads; a product's weight may go by no name, and the bias that is added by one."""
    names = [name for name in node.inputs if name in file.arrays]
    if node.kind == "MatMul" and names:
        after = [other for other in file.nodes if node.outputs[0] in other.inputs]
        names += [name for other in after for name in other.inputs if name in file.arrays]
    return names


def path(name: str) -> str:
    """A name of the file's as a module's: words of letters, digits and underscores, with dots between."""
    parts = [re.sub(r"\W+", "_", part).strip("_") for part in re.split(r"[./]", name)]
    return ".".join(f"{part}_" if part in RESERVED else part for part in parts if part) or "weight"


def _end(file: OnnxFile, last: int) -> int:
    """Where the last block ends, of which `last` is the last node that a name tells: before the next one that is told.

    Where nodes have no names of their own, weights without one may come between.
    """
    if "/" in file.nodes[last].name:
        return last + 1
    named = (any("." in name for name in _names(file, node)) for node in file.nodes[last + 1 :])
    return last + 1 + next((i for i, found in enumerate(named) if found), 0)


def _stretch(file: OnnxFile, name: str, first: int, end: int) -> Stretch:
    inside = file.nodes[first:end]
    made = [output for node in inside for output in node.outputs if output]
    read = {operand for node in inside for operand in node.inputs}
    later = {operand for node in file.nodes[end:] for operand in node.inputs} | set(file.outputs)
    before = [each.name for each in file.inputs]
    before += [output for node in file.nodes[:first] for output in node.outputs if output]
    taken = [value for value in reversed(before) if value in read]
    return Stretch(name, first, end, tuple(taken), tuple(value for value in reversed(made) if value in later))
