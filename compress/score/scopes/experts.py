"""Criteria that rank the experts of one block by statistics of them and of their router."""

from __future__ import annotations

import numpy as np

from compress.registry import scopes
from compress.score.scoring import ScoredScope, Scoring


@scopes.add("experts")
class Experts(ScoredScope):
    """Scores are taken as they are."""

    def score(self, given: Scoring) -> np.ndarray:
        return given.per_group(given.call(**given.expert_statistics()))
