"""Criteria that look at the gains of batch norms."""

from __future__ import annotations

import numpy as np
import torch

from compress.errors import InputError
from compress.graph.families import Family, Graph
from compress.graph.layout import unit_index
from compress.registry import scopes
from compress.score.scoring import Criterion, ScoredScope, Scoring
from compress.score.views import Tally


@scopes.add("gains")
class Gains(ScoredScope):
    """Saliencies are reduced over the channels of a group, and over all batch norms that it runs along."""

    def check(self, graph: Graph, family: Family, criterion: Criterion) -> None:
        if not _gains(graph, family):
            raise InputError(
                f"{criterion.name} cannot score {family.name}: no batch norm with a gain runs along it; take "
                "magnitude, or skip it"
            )

    def score(self, given: Scoring) -> np.ndarray:
        self.check(given.graph, given.family, given.criterion)
        tally = Tally(given.family.size, given.reduce)
        for tensor in _gains(given.graph, given.family):
            units = torch.from_numpy(unit_index(given.graph.layouts[tensor][0], given.family.name))
            tally.add(given.call(gain=given.read(tensor).float()), units)
        return given.per_group(tally.total())


def _gains(graph: Graph, family: Family) -> list[str]:
    """The gains of the batch norms that the family runs along: they lie beside a running variance."""
    variances = [member.tensor for member in family.members if member.tensor.endswith("running_var")]
    gains = [f"{name.removesuffix('running_var')}weight" for name in variances]
    return [name for name in gains if name in graph.layouts]
