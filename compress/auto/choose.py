"""Candidates decided at the same budget and tried out side by side: the one whose output moves least is taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from compress.auto.candidates import RIDGES, Candidate
from compress.console import say
from compress.damage.divergence import divergences
from compress.errors import BudgetError, CompressError, InputError, ModelError
from compress.execution.baseline import Original
from compress.execution.context import Context
from compress.model.model import Model
from compress.recipe.schema import Recipe
from compress.steps.units.decide import bound_repair
from compress.steps.units.masks import masks
from compress.steps.units.step import PruneUnits


@dataclass(frozen=True)
class Tried:
    """A candidate that was tried out: its recipe, and how far it moves the model's output."""

    candidate: Candidate
    recipe: Recipe
    divergence: float


def choose(
    source: Model,
    options: Sequence[Candidate],
    written: Callable[[Candidate], Recipe],
    device: str,
    samples: int,
) -> tuple[Tried, list[Tried]]:
    """The best candidate, and all that were tried, best first; `written` says which recipe a candidate is.

    First every one of `options`, then the best with other ridges. Each is printed. Raises what the first of them raises
    where none is possible.
    """
    found, failed = _tried(source, options, written, device, samples)
    if not found:
        raise failed[0]
    if found[0].candidate.repaired:
        others = [replace(found[0].candidate, ridge=ridge) for ridge in RIDGES if ridge != found[0].candidate.ridge]
        found = sorted([*found, *_tried(source, others, written, device, samples)[0]], key=lambda one: one.divergence)
    return found[0], found


def _tried(
    source: Model,
    options: Sequence[Candidate],
    written: Callable[[Candidate], Recipe],
    device: str,
    samples: int,
) -> tuple[list[Tried], list[CompressError]]:
    decided: list[tuple[Candidate, Recipe, dict[str, np.ndarray], Any]] = []
    failed: list[CompressError] = []
    context: Context | None = None
    for candidate in options:
        recipe = written(candidate)
        context = Context(source, source, Original(source.graph, device, recipe.calibrate.length), recipe, device)
        step: Any = recipe.steps[0]
        kind = PruneUnits(step)
        try:
            gathered = kind.gather(context, None)
            kept = masks(source.graph, kind.decide(context, gathered)["kept"])
        except (BudgetError, InputError, ModelError) as error:
            failed.append(error)
            say(f"{candidate}: not possible ({error})")
            continue
        decided.append((candidate, recipe, kept, bound_repair(step, gathered.stats)))
    found: list[Tried] = []
    for candidate, recipe, kept, repair in decided:
        assert context is not None
        (value,) = divergences(source, context.fresh(samples)[0], [kept], repair, device=device)
        say(f"{candidate}: the output moves by {value:.3g}")
        found.append(Tried(candidate, recipe, float(value)))
    return sorted(found, key=lambda one: one.divergence), failed
