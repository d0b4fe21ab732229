"""Stages as a recipe has them made into those of a rule: every layer a number, every budget a share."""

from __future__ import annotations

from collections.abc import Sequence

from compress.errors import InputError
from compress.recipe.part import Part
from compress.recipe.token_stage import InDecoder, Stage, Term
from compress.runtime.tokens.places.kind import Places
from compress.runtime.tokens.reading import reads_tower


def expanded(stages: Sequence[Stage], keep: float | None, places: Places) -> list[Stage]:
    """The stages for a model with these places. Raises InputError where one has no budget."""
    return [_stage(stage, number, keep, places) for number, stage in enumerate(stages)]


def _stage(stage: Stage, number: int, keep: float | None, places: Places) -> Stage:
    depth, changed = len(places.layers), {}
    if not isinstance(stage.at, str):
        layer = stage.at.decoder
        if isinstance(layer, str):
            layer = min(max(_layer(layer, depth), places.late, 1), depth - 1)
        changed["at"] = InDecoder(decoder=layer)
    if not isinstance(stage.select, str):
        share = stage.keep
        if share is None:
            if keep is None:
                raise InputError(f"tokens.{number}: how many tokens are kept? give the step a `keep`, such as 25%")
            share = keep ** (1.0 if stage.power is None else stage.power)
        changed |= {"keep": share, "power": None} if share else {"select": "none", "keep": None, "power": None}
    made = stage.model_copy(update=changed)
    return made.model_copy(update={"score": [_term(term, made, places) for term in stage.score]})


def _term(term: Term, stage: Stage, places: Places) -> Term:
    if term.depths is None:
        return term
    depth = len(places.tower_layers) if reads_tower(stage, term) else len(places.layers)
    last = depth - 1 if reads_tower(stage, term) else stage.layer - 1
    layers = [min(_layer(one, depth), last) if isinstance(one, str) else one for one in term.depths]
    part = Part(term.score.name, {**term.score.arguments, "layers": list(dict.fromkeys(layers))})
    return term.model_copy(update={"score": part, "depths": None})


def _layer(share: str, depth: int) -> int:
    """The nearest layer, so that a whole percentage can say any layer of up to 50."""
    return int(float(share.rstrip("%")) / 100 * depth + 0.5)
