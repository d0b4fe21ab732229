"""Criteria that give a score per input channel of a consuming weight."""

from __future__ import annotations

import numpy as np

from compress.registry import scopes
from compress.score.scoring import ScoredScope, Scoring
from compress.score.views import Tally


@scopes.add("inputs")
class Inputs(ScoredScope):
    """A group's score is the mean of its channels'."""

    def score(self, given: Scoring) -> np.ndarray:
        return score_inputs(given)


def score_inputs(given: Scoring) -> np.ndarray:
    """Scores per input channel of each consumer, standardised there if asked, then the mean of a group's channels."""
    tally = Tally(given.family.size, "mean")
    for view in given.views():
        values = given.call(weight=view.weight, **view.stats).double()
        if values.dim() == 2:
            ways = {"sum": values.sum, "mean": values.mean, "max": values.amax, "l2": values.norm}
            values = ways[given.reduce](dim=0)
        if given.normalize == "zscore":
            values = (values - values.mean()) / values.std().clamp_min(1e-12)
        tally.add(values, view.units)
    return tally.total().numpy()
