"""Which places a model has, and whether the stages of a rule fit it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from torch import nn

from compress.errors import ModelError
from compress.recipe.token_stage import Stage, Term
from compress.registry import Registry, token_places, token_residuals, token_scores, token_selects
from compress.runtime.tokens.places.kind import Places, core_of
from compress.runtime.tokens.reading import ATTENTION, LAYERS, MODULES, argument, layers_of, needs_of, reads_tower
from compress.runtime.tokens.wanted import all_read, shares_of, terms


def places_of(model: nn.Module) -> Places:
    """The places of a model's pictures, by the first registered kind that fits. Raises ModelError where none does."""
    core = core_of(model)
    kinds: list[Any] = [token_places.get(name).target for name in token_places.names()]
    fitting = [] if core is None else [kind for kind in kinds if kind.fits(core)]
    if not fitting:
        raise ModelError(
            f"tokens: {type(model).__name__} has no tower and language model whose pictures can be found; rules about "
            "visual tokens hold for models such as LLaVA, Qwen2-VL, InternVL, Idefics 3 and Gemma 3, and for others by "
            "places of your own (compress.registry.token_places)"
        )
    return fitting[0](core)


def check(places: Places, stages: Sequence[Stage]) -> None:
    """Raises ModelError, with the stage and the cure, for stages that the model cannot obey."""
    depth, name = len(places.layers), type(places.core).__name__
    last = back = 0
    for number, stage in enumerate(stages):
        where = f"tokens: stages.{number}"
        if stage.layer >= depth:
            raise ModelError(
                f"{where}.at.decoder: {stage.layer} lies beyond the decoder, which has layers 0 to {depth - 1}; give 1 "
                f"to {depth - 1}"
            )
        if stage.select == "restore" and not any(0 < one.layer < stage.layer for one in stages[:number]):
            raise ModelError(
                f"{where}.select: restore: no stage inside of the decoder comes before this one; tokens that left "
                "before the decoder cannot come back"
            )
        if stage.layer < last:
            raise ModelError(
                f"{where}.at: comes before the stage in front of it (layer {last}); write the stages in their order"
            )
        if 0 < stage.layer < places.late:
            raise ModelError(
                f"{where}.at.decoder: {name} adds features of the pictures after each of its first {places.late} "
                f"layers, so tokens can go before layer 0 (`features`) or from layer {places.late} on"
            )
        if stage.positions == "renumber" and not _renumbers(places):
            raise ModelError(
                f"{where}.positions: {name} has positions of several dimensions or kinds, which cannot be counted "
                "anew; write `positions: keep`"
            )
        last = stage.layer
        _check_scored(stage, where)
        for term in terms(stage):
            _check_term(places, stage, term, where, name)
        _check_back(stage, back, where)
        back = stage.layer if stage.select == "restore" else back


def _check_term(places: Places, stage: Stage, term: Term, where: str, name: str) -> None:
    needs, tower = set(needs_of(term)), reads_tower(stage, term)
    said = f"{where}.score: {term.score}"
    if tower and needs & set(MODULES):
        raise ModelError(f"{said}: reads layers of the decoder; use it in a stage inside of the decoder")
    if (needs & {*ATTENTION, *MODULES}) - {"cls_value"}:
        depth = len(places.tower_layers) if tower else stage.layer
        part = "tower" if tower else "decoder"
        for layer in layers_of(term.score, depth):
            if not 0 <= layer < depth:
                limit = f"layers 0 to {depth - 1}" if depth else "no layer before this stage"
                raise ModelError(f"{said}: there is no layer {layer} to read: the {part} has {limit}")
    entry: Any = token_scores.get(term.score.name)
    queries = None if entry.meta.square else argument(entry, term.score.arguments, "queries")
    if (queries == "cls" or needs & {"cls", "cls_value"}) and not places.has_cls:
        raise ModelError(
            f"{said}: the tower of {name} has no token for the whole picture (CLS); score by `queries: all`, or by "
            "what reads no attention"
        )
    if tower and queries in ("last", "text"):
        raise ModelError(f"{said}: the tower sees no text; write `queries: cls` or `all`, or a stage in the decoder")
    if not tower and queries == "cls":
        raise ModelError(f"{said}: the decoder has no CLS token; write `in: tower`, or `queries: last`")
    if not tower and needs & {"cls_value"}:
        raise ModelError(f"{said}: reads the tower's attention; write `in: tower` beside it")


def _check_back(stage: Stage, back: int, where: str) -> None:
    """Raises ModelError where layers are read in which tokens that came `back` at a later one were not."""
    for term in all_read(stage):
        if not reads_tower(stage, term) and set(needs_of(term)) & set(LAYERS):
            for layer in layers_of(term.score, stage.layer):
                if layer < back:
                    raise ModelError(
                        f"{where}: reads layer {layer} of the decoder, where the tokens that come back at {back} were "
                        f"not; read layers from {back} on, with a later stage"
                    )


def _check_scored(stage: Stage, where: str) -> None:
    """Raises ModelError for a selection or a residual that reads scores where the stage has none."""
    if stage.score or isinstance(stage.select, str):
        return
    parts: list[tuple[str, Registry, str]] = [("residual", token_residuals, stage.residual.name)]
    shares = shares_of(stage)
    own = [share.select.name for share in shares if share.score is None] if shares else [stage.select.name]
    for key, registry, name in (*parts, *(("select", token_selects, name) for name in own)):
        scores = inspect.signature(registry.get(name).target).parameters.get("scores")
        if scores is not None and "None" not in str(scores.annotation):
            raise ModelError(f"{where}.{key}: {name}: reads scores, and the stage has none; give it a `score`")


def _renumbers(places: Places) -> bool:
    rotary = getattr(places.text, "rotary_emb", None)
    if rotary is None or hasattr(places.core, "get_rope_index"):
        return False
    return list(inspect.signature(rotary.forward).parameters) == ["x", "position_ids"]
