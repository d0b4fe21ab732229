"""A recipe's budget, spent in several rounds."""

from __future__ import annotations

from compress.errors import InputError
from compress.recipe.prune import Prune
from compress.recipe.schema import Recipe


def in_rounds(recipe: Recipe, rounds: int) -> Recipe:
    """The recipe's steps so many times over, which together remove what they do once.

    Of what is left every round keeps the same share: the n-th root of the whole. `remove` is a share of what is there
    when the step begins, `until` and `keep` of the original. Raises InputError for steps of other kinds.
    """
    if rounds == 1:
        return recipe
    if other := [step for step in recipe.steps if not isinstance(step, Prune)]:
        raise InputError(f"rounds: {type(other[0]).__name__} has no budget that is spent in rounds; leave rounds out")
    steps = [_step(step, number, rounds) for number in range(1, rounds + 1) for step in recipe.steps]  # pyright: ignore[reportArgumentType]
    return recipe.model_copy(update={"steps": steps})


def _step(step: Prune, number: int, rounds: int) -> Prune:
    if step.remove is not None:
        return step.model_copy(update={"remove": 1 - (1 - step.remove) ** (1 / rounds)})
    if step.until is not None:
        return step.model_copy(update={"until": 1 - (1 - step.until) ** (number / rounds)})
    return step.model_copy(update={"keep": {of: share ** (number / rounds) for of, share in (step.keep or {}).items()}})
