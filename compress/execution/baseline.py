"""What the whole model was before the first step; `until` and `keep` are shares of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from compress.allocate.latency_table import LatencyTable
from compress.graph.families import Family, Graph


@dataclass(frozen=True)
class Original:
    """What the whole model was before the first step; `until` and `keep` are shares of it."""

    graph: Graph
    device: str = "cpu"
    tokens: int = 512
    _latency: dict[str, float] = field(default_factory=dict)

    @cached_property
    def params(self) -> int:
        return self.graph.parameters()

    @cached_property
    def flops(self) -> int:
        return self.graph.flops(sequence=self.tokens)

    @cached_property
    def latency(self) -> float:
        return latency_table(self.graph, list(self.graph.families.values()), self.device, self.tokens)({})


def latency_table(graph: Graph, families: list[Family], device: str, tokens: int) -> LatencyTable:
    """Measured seconds of what is kept."""
    return LatencyTable(graph, tuple(families), device=device, tokens=tokens)
