"""Criteria that see all weights that consume a family at once, and count on their being updated."""

from __future__ import annotations

import numpy as np

from compress.errors import InputError
from compress.graph.families import Family, Graph
from compress.graph.projection import added
from compress.graph.uses import uses
from compress.registry import scopes
from compress.score.scoring import Criterion, ScoredScope, Scoring
from compress.score.views import is_stack


@scopes.add("consumers")
class Consumers(ScoredScope):
    """Scores are taken as they are. Consumers that no repair updates are refused."""

    def check(self, graph: Graph, family: Family, criterion: Criterion) -> None:
        for tensor, role, _ in uses(graph, family):
            if role == "in" and is_stack(graph, tensor):
                raise InputError(
                    f"{criterion.name} cannot score {family.name}: it counts on the update that a repair makes, and "
                    f"the experts stacked in {tensor} are not repaired; take wanda or fluctuation, or skip {tensor}"
                )

    def score(self, given: Scoring) -> np.ndarray:
        self.check(given.graph, given.family, given.criterion)
        found = list(given.views())
        biased = [added(given.graph, view.tensor) is not None for view in found]
        return given.per_group(given.call(views=found, biased=biased))
