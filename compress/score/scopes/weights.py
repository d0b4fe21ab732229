"""Criteria that give a saliency per weight: for units it is reduced over their members."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from compress.registry import scopes
from compress.score.scopes.inputs import score_inputs
from compress.score.scoring import Call, ScoredScope, Scoring
from compress.score.views import Tally


@scopes.add("weights")
class Weights(ScoredScope):
    """Saliencies are reduced over a group's weights; standardised they are per input channel, where they can be."""

    def score(self, given: Scoring) -> np.ndarray:
        if given.normalize and given.criterion.meta.on == "in" and given.family.kind != "layers":
            return score_inputs(given)
        tally = Tally(given.family.size, given.reduce)
        for part in (part for view in given.views() for part in view.in_parts()):
            tally.add(given.call(weight=part.weight, **part.stats), part.units, part.axis)
        return given.per_group(tally.total())

    def saliency(self, call: Call, key: str, weight: Tensor, stats: Mapping[str, Tensor]) -> Tensor:
        return call(weight=weight, **stats)
