"""Criteria that learn from all families before they score any of them."""

from __future__ import annotations

from typing import cast

import numpy as np

from compress.registry import scopes
from compress.score.learning import Learner
from compress.score.scoring import ScoredScope, Scoring


@scopes.add("learned")
class Learned(ScoredScope):
    """Scores are taken as they are."""

    def score(self, given: Scoring) -> np.ndarray:
        learner = cast(Learner, given.criterion.bind(given.arguments)())
        return given.per_group(learner.score(given, given.learned))
