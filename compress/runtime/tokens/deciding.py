"""A stage applied to one group of tokens: scores, selection, and what becomes of the rest."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from compress.recipe.part import Part
from compress.recipe.token_stage import Stage, Term
from compress.registry import Registry, token_residuals, token_scores, token_selects
from compress.runtime.tokens.merged import Merged
from compress.runtime.tokens.reading import Reading
from compress.runtime.tokens.select.quota import Share
from compress.runtime.tokens.selection import Selection


def decided(stage: Stage, reading: Reading, came: int) -> tuple[Merged, Tensor | None]:
    """What is left of the group's tokens, of which `came` with the prompt, and their scores `[n]` (None without)."""
    assert not isinstance(stage.select, str), "no tokens are left to decide about, or those that left come back"
    scores = _scores(stage, reading)
    keep = kept_count(stage.keep or 1.0, came, len(reading.columns))
    selection = _selected(stage.select, reading, scores, keep)
    given = {"selection": selection, "keep": keep, "scores": scores}
    return _called(stage.residual, token_residuals, reading, given), scores


def kept_count(keep: float, came: int, left: int) -> int:
    """How many of `left` tokens stay where a share `keep` of the `came` that the prompt had does; one at least."""
    return max(1, min(left, int(keep * came + 0.5)))


def _selected(part: Part, reading: Reading, scores: Tensor | None, keep: int) -> Selection:
    def choose(part: Share, among: Tensor, count: int) -> Selection:
        own = scores if part.score is None else _scored(Term(score=part.score), reading)
        return _selected(part.select, reading.among(among), None if own is None else own[among], count)

    return _called(part, token_selects, reading, {"scores": scores, "keep": keep, "choose": choose})


def _called(part: Part, registry: Registry, reading: Reading, given: dict[str, Any]) -> Any:
    entry = registry.get(part.name)
    needs: Any = entry.meta
    values = [given[need] if need in given else reading(need) for need in needs.needs]
    return entry.bind(part.arguments)(*values)


def _scores(stage: Stage, reading: Reading) -> Tensor | None:
    if not stage.score:
        return None
    total = torch.stack([term.weight * _normalized(_scored(term, reading), term) for term in stage.score]).sum(0)
    before = reading("previous")
    if stage.momentum and before is not None:
        total = stage.momentum * before + (1 - stage.momentum) * total
    return total


def _scored(term: Term, reading: Reading) -> Tensor:
    entry = token_scores.get(term.score.name)
    needs: Any = entry.meta
    read = partial(reading, term=term)
    return entry.bind(term.score.arguments)(*[read(need) for need in needs.needs]).float()


def _normalized(scores: Tensor, term: Term) -> Tensor:
    match term.normalize:
        case "sum":
            return scores / scores.sum().clamp_min(1e-12)
        case "softmax":
            return scores.softmax(0)
        case "rank":
            return scores.argsort().argsort().float() / max(len(scores) - 1, 1)
        case "minmax":
            return (scores - scores.min()) / (scores.max() - scores.min()).clamp_min(1e-12)
        case _:
            return scores
