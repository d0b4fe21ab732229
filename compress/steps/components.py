"""The step whose models are those of a pipeline; `compress.api.pipelines` carries it out."""

from __future__ import annotations

from compress.recipe.components import PruneComponents
from compress.registry import steps
from compress.steps.kind import StepKind


@steps.add("components")
class Components(StepKind):
    """Prune each model of a pipeline by steps of its own."""

    settings, verb = PruneComponents, "components"
    alone = "each component has steps of its own; move the other steps there"
    makes_model = False
    unfit = "the model is no pipeline of several (a folder with model_index.json)"
    step: PruneComponents
