"""Pruning what fine-tuning changed: the result is a delta, which `compress apply-delta` adds to its base again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compress.execution.run import Options
from compress.recipe.delta import PruneDelta
from compress.recipe.schema import Recipe
from compress.registry import steps
from compress.report.delta import delta_table
from compress.steps.delta.extract import extract
from compress.steps.delta.format import Description
from compress.steps.kind import ArtifactStep


@steps.add("prune-delta")
class ExtractDelta(ArtifactStep):
    """Drop most of what fine-tuning changed, and write the rest of it alone."""

    settings, verb, subjects = PruneDelta, "prune", ("delta",)
    unplanned = "its decisions are as many as weights; run the recipe"
    step: PruneDelta

    @property
    def inputs(self) -> list[str]:
        return [self.step.base]

    def write(self, recipe: Recipe, model_in: str | Path, model_out: Path, options: Options) -> Description:
        return extract(recipe, self.step, model_in, model_out, options)

    def show(self, made: Description, model_out: Path) -> tuple[Any, dict[str, Any], str]:
        summary = made.summary()
        last = f"wrote {model_out}; the model again: compress apply-delta {made.base['name']} {model_out} OUT"
        return delta_table(summary), summary, last
