"""Criteria that see all members of a family at once."""

from __future__ import annotations

import numpy as np

from compress.registry import scopes
from compress.score.scoring import ScoredScope, Scoring


@scopes.add("units")
class Units(ScoredScope):
    """They are shown the members that do not count for them too, without statistics."""

    def score(self, given: Scoring) -> np.ndarray:
        return given.per_group(given.call(views=list(given.views(every=True))))
