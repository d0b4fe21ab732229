"""Criteria that say how unlike experts are: those that are alike are clustered, and one of each cluster stays."""

from __future__ import annotations

import numpy as np
import torch

from compress.graph.routers import router
from compress.registry import scopes
from compress.score.clusters import merge_heights
from compress.score.scoring import ScoredScope, Scoring


@scopes.add("distances")
class Distances(ScoredScope):
    """How far apart what would be merged next is."""

    def score(self, given: Scoring) -> np.ndarray:
        heights = merge_heights(measured(given), given.family.router_groups, given.clusters)
        return given.per_group(torch.from_numpy(heights))


def measured(given: Scoring) -> np.ndarray:
    """How unlike the experts of a family are, `[experts, experts]`."""
    gate = given.read(router(given.graph, given.family)).float()
    return given.call(router=gate, **given.expert_statistics()).double().cpu().numpy()
