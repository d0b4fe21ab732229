"""An ONNX file traced: its graph of families, of which those that its sizes cannot follow are pinned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from compress.graph.example import Example
from compress.graph.families import Graph
from compress.graph.trace import trace
from compress.onnx_model.file import OnnxFile
from compress.onnx_model.module import OnnxModule, Seen
from compress.onnx_model.sizes import Change, Conflict, Cut

WHOLE = ("layers", "vocab")
"""Kinds of units whose removal changes more of a file than sizes."""


@dataclass(frozen=True)
class Traced:
    """`module` is on the meta device, `seen` what its forward of the example computed."""

    module: OnnxModule
    graph: Graph
    seen: Seen

    def cut(self, kept: Mapping[str, np.ndarray]) -> tuple[list[Change], dict[str, list[int]]]:
        """What must change of the graph where the families keep these, and the sizes of its tensors then.

        Raises Conflict.
        """
        found = Cut(self.module, self.graph, self.seen, kept)
        changes = list(found.changes())
        return changes, {name: found.sizes(name) for name in self.graph.values}


def trace_onnx(file: OnnxFile, example: Example) -> Traced:
    """Trace the graph of `file` with such inputs. Raises ModelError, naming it, for a node that cannot be run."""
    module, seen = OnnxModule(file, device="meta"), Seen()
    module.watched = seen
    graph = trace(module, example, seen.tensors)
    whole = {
        name: replace(family, pinned=f"the {family.kind} of an ONNX file are not pruned")
        for name, family in graph.families.items()
        if family.pinned is None and (family.kind in WHOLE or family.averaged)
    }
    traced = Traced(module, replace(graph, families={**graph.families, **whole}), seen)
    while True:
        half = {
            family.name: np.arange(family.size) < family.size - max(1, family.size // 3)
            for family in traced.graph.families.values()
            if family.pinned is None and family.kind != "layers"
        }
        try:
            traced.cut(half)
        except Conflict as why:
            if not why.families:
                raise
            families = {
                name: replace(family, pinned=str(why)) if name in why.families else family
                for name, family in traced.graph.families.items()
            }
            traced = replace(traced, graph=replace(traced.graph, families=families))
            continue
        return traced
