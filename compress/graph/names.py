"""Names after blocks were removed: those that stay are numbered anew, on disk in the spelling of the input."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from compress.graph.families import Graph


class Names:
    """Renames modules and tensors of a model that keeps `kept`. `layers` are, per list of modules that lost blocks, the
    original indices that stay: of the other blocks, and of what else is in the list."""

    def __init__(self, graph: Graph, kept: Mapping[str, np.ndarray]) -> None:
        gone = {graph.blocks[i] for i in graph.removed_blocks(kept)}
        lost: dict[str, set[int]] = {}
        for block in gone:
            stack, _, index = block.rpartition(".")
            lost.setdefault(stack, set()).add(int(index))
        length = dict.fromkeys(lost, 0)
        for tensor in graph.layouts if lost else ():
            for stack in lost:
                if tensor.startswith(f"{stack}.") and (index := tensor[len(stack) + 1 :].partition(".")[0]).isdecimal():
                    length[stack] = max(length[stack], int(index) + 1)
        self.removed = frozenset(gone)
        self.layers = {stack: [i for i in range(length[stack]) if i not in out] for stack, out in lost.items()}

    def new(self, name: str) -> str | None:
        """The name in the model that is left, None for what goes with its block."""
        found = self._place(name)
        if found is None:
            return name
        stack, index, rest = found
        if index not in self.layers[stack]:
            return None
        return f"{stack}.{self.layers[stack].index(index)}{rest}"

    def on_disk(self, name: str, disk: str) -> str:
        """The stored name `disk` of the tensor `name` with its block's new number."""
        found, new = self._place(name), self.new(name)
        if found is None or new is None or new == name:
            return disk
        stack, index, _ = found
        pattern = re.compile(rf"(?<![^.])({re.escape(stack.rpartition('.')[2])}\.){index}(?=\.)")
        before = len(pattern.findall(f"{stack}."))  # lists outside of it that have its name
        places = list(pattern.finditer(disk))
        if len(places) <= before:
            return new
        head, tail = disk[: places[before].end(1)], disk[places[before].end() :]
        return f"{head}{self.layers[stack].index(index)}{tail}"

    def _place(self, name: str) -> tuple[str, int, str] | None:
        for stack in self.layers:
            if name.startswith(stack + "."):
                index, dot, rest = name[len(stack) + 1 :].partition(".")
                if index.isdecimal():  # families that span blocks are named after the list
                    return stack, int(index), dot + rest
        return None
