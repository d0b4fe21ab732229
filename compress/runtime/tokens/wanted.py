"""Which layers have to be watched for the stages of a rule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from compress.recipe.part import Part
from compress.recipe.token_stage import Stage, Term
from compress.registry import token_selects
from compress.runtime.tokens.reading import ATTENTION, MODULES, keys_of, layers_of, needs_of, reads_tower


@dataclass(frozen=True)
class Wanted:
    """Numbers of layers whose attention is read, of the `tower` and the `decoder`, and whose `modules` are."""

    tower: frozenset[int]
    decoder: frozenset[int]
    modules: frozenset[int]

    @classmethod
    def of(cls, stages: Sequence[Stage], depth: int) -> Wanted:
        """`depth` is that of the tower."""
        tower, decoder, modules = set(), set(), set()
        for stage in stages:
            for term in all_read(stage):
                needs = set(needs_of(term))
                from_tower = reads_tower(stage, term)
                numbers = layers_of(term.score, depth if from_tower else stage.layer)
                if needs & set(ATTENTION):
                    (tower if from_tower else decoder).update(numbers)
                if needs & set(MODULES):
                    modules.update(numbers)
        return cls(frozenset(tower), frozenset(decoder), frozenset(modules))


def terms(stage: Stage) -> Iterator[Term]:
    """The stage's terms, and those that its selection brings along."""
    yield from stage.score
    for part in shares_of(stage):
        if part.score is not None:
            yield Term(score=part.score)


def all_read(stage: Stage) -> Iterator[Term]:
    """The terms, and that of whose layer the selection compares keys."""
    yield from terms(stage)
    if _compares_keys(stage):
        yield keys_of(stage)


def _compares_keys(stage: Stage) -> bool:
    selects = () if isinstance(stage.select, str) else (stage.select, *(part.select for part in shares_of(stage)))
    return any("key" in _meta(select).needs for select in selects)


def shares_of(stage: Stage) -> Sequence[Any]:
    """The parts of a selection that has several (`compress.runtime.tokens.select.quota.Share`)."""
    if isinstance(stage.select, str):
        return ()
    return token_selects.get(stage.select.name).bind(stage.select.arguments).keywords.get("parts", ())


def _meta(select: Part) -> Any:
    return token_selects.get(select.name).meta
