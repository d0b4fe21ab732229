"""What may be asked of a model: kinds of units with the criteria that rank them, and how strongly repairs hold back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from compress.graph.families import Graph

RIDGES = (0.03, 0.1, 0.3)
"""Of least squares: little for much and like text, more for little."""


@dataclass(frozen=True)
class Candidate:
    """A way to go about it: `kinds` of units ranked by a `criterion`, repaired with a `ridge`."""

    kinds: tuple[str, ...]
    criterion: str
    ridge: float = RIDGES[1]

    @property
    def overrides(self) -> list[str]:
        """What it changes of the recipe `auto`."""
        repair = f"{{least_squares: {{ridge: {self.ridge}, per: input}}}}" if self.repaired else "null"
        return [
            f"steps.0.prune=[{', '.join(self.kinds)}]",
            f"steps.0.by={self.criterion}",
            f"steps.0.repair={repair}",
        ]

    @property
    def repaired(self) -> bool:
        """Whether what stays can make up for what goes: not for experts, which no projection reads."""
        return self.kinds != ("experts",)

    def __str__(self) -> str:
        return f"{' and '.join(self.kinds)} by {self.criterion}" + (f", ridge {self.ridge}" if self.repaired else "")


def candidates(graph: Graph) -> Iterator[Candidate]:
    """All with the usual ridge, for the kinds that the model has free to lose."""
    free = {family.kind for family in graph.families.values() if family.pinned is None}
    if "experts" in free:
        yield from (Candidate(("experts",), criterion) for criterion in ("reap", "frequency"))
    for kinds in (("channels",), ("heads", "channels"), ("heads",)):
        if free.issuperset(kinds) and (kinds != ("heads",) or "channels" not in free):
            yield from (Candidate(kinds, criterion) for criterion in ("curvature", "fluctuation", "wanda"))
