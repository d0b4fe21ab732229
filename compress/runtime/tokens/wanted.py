"""Which layers have to be watched for the stages of a rule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from compress.recipe.token_stage import Stage, Term
from compress.registry import token_scores, token_selects
from compress.runtime.tokens.reading import ATTENTION, MODULES, layers_of, reads_tower


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
            for term in terms(stage):
                needs = set(needs_of(term))
                from_tower = reads_tower(stage, term)
                numbers = layers_of(term.score, depth if from_tower else stage.layer)
                if needs & set(ATTENTION):
                    (tower if from_tower else decoder).update(numbers)
                if needs & set(MODULES):
                    modules.update(numbers)
        return cls(frozenset(tower), frozenset(decoder), frozenset(modules))


def needs_of(term: Term) -> tuple[str, ...]:
    """What a term's score is handed."""
    meta: Any = token_scores.get(term.score.name).meta
    return meta.needs


def terms(stage: Stage) -> Iterator[Term]:
    """The stage's terms, and those that its selection brings along."""
    yield from stage.score
    if not isinstance(stage.select, str):
        for part in token_selects.get(stage.select.name).bind(stage.select.arguments).keywords.get("parts", ()):
            if part.score is not None:
                yield Term(score=part.score)
