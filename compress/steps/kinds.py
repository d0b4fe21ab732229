"""Kind of step → the module that executes it, and the stages of a run of several."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from compress.execution.document import Plan
from compress.execution.stages import Stages
from compress.recipe.prune import Prune
from compress.recipe.schema import Recipe
from compress.recipe.skipping import SkipExperts
from compress.recipe.weights import PruneWeights
from compress.steps import skipping, weights
from compress.steps.units import step as units

STEPS: dict[type[BaseModel], Any] = {Prune: units, PruneWeights: weights, SkipExperts: skipping}


def stages(recipe: Recipe, given: Plan | None = None, *, written: bool, read: bool = True, evaluated: bool = False):
    """Of a run that `read`s its model first; all steps but the last write, that one if its result is `written`."""
    last = len(recipe.steps) - 1
    steps = [
        STEPS[type(step)].stages(step, given is not None, written=written or i < last)
        for i, step in enumerate(recipe.steps)
    ]
    after = [*(["evaluate"] if evaluated else []), *(["export"] if recipe.export is not None else []), "report"]
    return Stages(["read"] if read else [], steps, after if written else ())
