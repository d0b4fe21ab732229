"""Candidates decided at the same budget and tried out side by side: the one whose output moves least is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from operator import or_

from compress.console import say
from compress.damage.divergence import Cut, divergences
from compress.damage.remembered import Remembered
from compress.errors import BudgetError, CompressError, InputError, ModelError
from compress.execution.baseline import Original
from compress.execution.context import Context, Needs
from compress.model.model import Model
from compress.recipe.schema import Recipe
from compress.search.candidates import Candidate
from compress.steps.units.decide import bound_repair
from compress.steps.units.masks import masks
from compress.steps.units.step import PruneUnits


@dataclass(frozen=True)
class Tried:
    """A candidate that was tried out: its recipe, and how far it moves the model's output."""

    candidate: Candidate
    recipe: Recipe
    divergence: float


Rounds = Sequence[Callable[[Candidate], Iterable[Candidate]]]


def choose(
    source: Model,
    first: Sequence[Candidate],
    rounds: Rounds,
    written: Callable[[Candidate], Recipe],
    device: str,
    samples: int,
) -> list[Tried]:
    """All that were tried, best first; `written` says which recipe a candidate is.

    The `first` ones, then round by round what is near the best until then. Each is printed. Raises what the first of
    all raises where none of the first is possible.
    """
    foreseen = [*first, *(candidate for near in rounds for one in first for candidate in near(one))]
    _gather([_Step(source, candidate, written(candidate), device) for candidate in foreseen])
    found, failed = _tried(source, first, written, device, samples)
    if not found:
        raise failed[0]
    for near in rounds:
        others = list(near(found[0].candidate))
        more, _ = _tried(source, others, written, device, samples) if others else ([], [])
        found = sorted([*found, *more], key=lambda one: one.divergence)
    return found


def _gather(steps: Sequence[_Step]) -> None:
    """One pass through the model for the statistics that any of them asks for; they are kept in the cache."""
    together = reduce(or_, (step.needs() for step in steps), Needs())
    if together.statistics:
        with suppress(ModelError):  # of one that is not possible, which says so itself
            steps[0].context.collect(together)


def _tried(
    source: Model,
    options: Sequence[Candidate],
    written: Callable[[Candidate], Recipe],
    device: str,
    samples: int,
) -> tuple[list[Tried], list[CompressError]]:
    decided: list[tuple[Candidate, Recipe, Cut]] = []
    failed: list[CompressError] = []
    steps = [_Step(source, candidate, written(candidate), device) for candidate in options]
    for step in steps:
        try:
            decided.append((step.candidate, step.recipe, step.decide()))
        except (BudgetError, InputError, ModelError) as error:
            failed.append(error)
            say(f"{step.candidate}: not possible ({error})")
    if not decided:
        return [], failed
    data = steps[0].context.fresh(samples)[0]
    each = [(Remembered.of(cut.kept), candidate.ridge) for candidate, _, cut in decided]
    different = {key: cut for key, (_, _, cut) in zip(each, decided, strict=True)}  # heads may turn out to stay
    values = dict(zip(different, divergences(source, data, list(different.values()), device=device), strict=True))
    found = [Tried(*one[:2], float(values[key])) for one, key in zip(decided, each, strict=True)]
    for one in found:
        say(f"{one.candidate}: the output moves by {one.divergence:.3g}")
    return sorted(found, key=lambda one: one.divergence), failed


class _Step:
    """The one step of a candidate's recipe, about to be decided."""

    def __init__(self, source: Model, candidate: Candidate, recipe: Recipe, device: str) -> None:
        self.candidate, self.recipe = candidate, recipe
        self.context = Context(source, source, Original(source.graph, device, recipe.calibrate.length), recipe, device)
        self._kind = PruneUnits(recipe.steps[0])

    def needs(self) -> Needs:
        """The statistics that it reads; none where it is not possible, which `decide` says."""
        try:
            return self._kind.needs(self.context)
        except (BudgetError, InputError, ModelError):
            return Needs()

    def decide(self) -> Cut:
        """Raises what the step's kind raises."""
        gathered = self._kind.gather(self.context, None)
        kept = masks(self.context.source.graph, self._kind.decide(self.context, gathered)["kept"])
        return Cut(kept, bound_repair(self._kind.step, gathered.stats))
