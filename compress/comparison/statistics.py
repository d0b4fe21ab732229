"""The statistics of all recipes in as few passes as one recipe takes."""

from __future__ import annotations

from collections.abc import Iterable

from compress.console import detail
from compress.errors import CompressError
from compress.execution.baseline import Original
from compress.execution.context import Context, Needs
from compress.model.model import Model
from compress.recipe.schema import Recipe
from compress.steps.kinds import model_steps


def gather_together(source: Model, recipes: Iterable[Recipe], device: str) -> None:
    """Gather, into the cache, what the first steps need of the dense model.

    Recipes that calibrate on the same data share a pass. Later steps see models of their own, and steps in sequence
    statistics of their own. What fails here fails again, with its reason, where the recipe itself runs.
    """
    alike: dict[str, list[Recipe]] = {}
    for recipe in recipes:
        recipe = recipe.on(source.inputs.data)
        alike.setdefault(f"{recipe.seed} {recipe.calibrate.model_dump_json()}", []).append(recipe)
    for some in alike.values():
        first = some[0]
        context = Context(source, source, Original(source.graph, device, first.calibrate.length), first, device)
        try:
            context.collect(_together(context, some))
        except CompressError as error:
            detail(f"not calibrated together: {error}")


def _together(context: Context, recipes: Iterable[Recipe]) -> Needs:
    found = Needs()
    for recipe in recipes:
        try:
            found |= model_steps(recipe)[0].needs(context)
        except CompressError as error:
            detail(f"not calibrated together with the others: {error}")
    return found
