"""Criteria that rank whole blocks by one number each."""

from __future__ import annotations

import numpy as np
import torch

from compress.registry import scopes
from compress.score.scoring import ScoredScope, Scoring
from compress.score.views import statistic


@scopes.add("layers")
class Layers(ScoredScope):
    """They are given the statistics of all blocks of the family, `[blocks]` each."""

    def score(self, given: Scoring) -> np.ndarray:
        found = {
            name: torch.stack(
                [statistic(given.stats, name, block).double().reshape(()) for block in given.family.blocks]
            )
            for name in given.needs
        }
        return given.per_group(given.call(**found))
