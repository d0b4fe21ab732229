"""The statistics of all recipes in as few passes as one recipe takes."""

from __future__ import annotations

from collections.abc import Iterable

from compress.calibrate.collect import collect
from compress.console import detail
from compress.errors import CompressError
from compress.model.source import Source
from compress.recipe.prune import Prune
from compress.recipe.schema import Recipe
from compress.steps.units.decide import families_of, wants


def gather_together(source: Source, recipes: Iterable[Recipe], device: str) -> None:
    """Gather, into the cache, what the first steps want that prune whole units of the dense model.

    Recipes that calibrate on the same data share a pass. Later steps see models of their own, and steps in sequence
    statistics of their own. What fails here fails again, with its reason, where the recipe itself runs.
    """
    alike: dict[str, list[Recipe]] = {}
    for recipe in recipes:
        first = recipe.steps[0]
        if isinstance(first, Prune) and first.propagate == "dense":
            alike.setdefault(f"{recipe.seed} {recipe.calibrate.model_dump_json()}", []).append(recipe)
    for some in alike.values():
        try:
            _gather(source, some, device)
        except CompressError as error:
            detail(f"not calibrated together: {error}")


def _gather(source: Source, recipes: list[Recipe], device: str) -> None:
    wanted: dict[str, set[str]] = {}
    families: dict[str, None] = {}
    for recipe in recipes:
        step = recipe.steps[0]
        try:
            own = families_of(source.graph, step)
            needed = wants(source, step, own, decide=True)
        except CompressError:
            continue
        families.update(dict.fromkeys(family.name for family in own))
        for statistic, keys in needed.items():
            wanted.setdefault(statistic, set()).update(keys)
    if wanted:
        rows, key = source.inputs.batches(recipes[0].calibrate, source.checkpoint, recipes[0].seed)
        collect(source.checkpoint, source.graph, wanted, rows, data_key=key, families=list(families), device=device)
