"""Criteria that need no weight: they are given the family itself, or a matrix as if it were one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from compress.graph.families import Family
from compress.registry import scopes
from compress.score.scoring import Call, ScoredScope, Scoring


@scopes.add("families")
class Families(ScoredScope):
    """Scores are taken as they are."""

    def score(self, given: Scoring) -> np.ndarray:
        return given.per_group(given.call(family=given.family))

    def saliency(self, call: Call, key: str, weight: Tensor, stats: Mapping[str, Tensor]) -> Tensor:
        return call(family=Family(key, "other", weight.numel())).view_as(weight)
