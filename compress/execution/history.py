"""What is left of every family of the original model after all steps, for the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from compress.graph.families import Graph
from compress.graph.names import Names


@dataclass
class _Row:
    now: str  # its name in the model as it is
    kept: int
    blocks: list[str]  # of kind layers: the original names of blocks that stay


class Tally:
    """Follows the families of a graph through steps that remove groups and rename blocks."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._rows = {
            name: _Row(name, family.size, list(family.blocks))
            for name, family in graph.families.items()
            if family.kind != "other"
        }

    def add(self, graph: Graph, kept: Mapping[str, np.ndarray]) -> None:
        """A step on the model as it was (its `graph`) kept this."""
        names = Names(graph, kept)
        for row in self._rows.values():
            family = graph.families.get(row.now)
            if family is None:
                continue
            if row.now in kept:
                row.kept = int(kept[row.now].sum())
                if row.blocks:
                    row.blocks = [block for block, stays in zip(row.blocks, kept[row.now], strict=True) if stays]
            row.now = names.new(row.now) or ""
            if not row.now:
                row.kept = 0

    def state(self) -> dict[str, list[Any]]:
        """Where it stands, as plain values for `restore`."""
        return {name: [row.now, row.kept, row.blocks] for name, row in self._rows.items()}

    def restore(self, state: Mapping[str, list[Any]]) -> None:
        """Stand where another tally of the same graph stood."""
        self._rows = {name: _Row(*row) for name, row in state.items()}

    def rows(self) -> list[dict[str, Any]]:
        """One entry a family: name, kind, layer, size, kept, and for layers the indices `removed`."""
        found = []
        for name, row in self._rows.items():
            family = self.graph.families[name]
            entry: dict[str, Any] = {
                "name": name,
                "kind": family.kind,
                "layer": family.layer,
                "size": family.size,
                "kept": row.kept,
            }
            if family.kind == "layers":
                entry["removed"] = [i for i, block in enumerate(family.blocks) if block not in row.blocks]
            found.append(entry)
        return found
