"""What a part of a stage is handed of one group of tokens, by the name of its parameter."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from compress.attention.call import Attention
from compress.errors import ModelError
from compress.recipe.part import Part
from compress.recipe.token_stage import Stage, Term
from compress.registry import Entry, token_scores
from compress.runtime.tokens.decoder import decoder_rows, decoder_states, text_columns
from compress.runtime.tokens.patches import patch_pixels
from compress.runtime.tokens.places.kind import Places
from compress.runtime.tokens.slots import Slots
from compress.runtime.tokens.tower import tower_cls, tower_rows, tower_states
from compress.runtime.tokens.turn import Group, Turn

ATTENTION = ("attention", "logits", "key", "value", "cls_value")
MODULES = ("inputs", "outputs")
LAYERS = (*ATTENTION, *MODULES)
"""Needs that are read of layers."""

TOWER = ("cls_value", "tower_hidden", "cls", "pixels")
"""Needs that only a tower meets."""


def reads_tower(stage: Stage, term: Term) -> bool:
    """Whether a term reads the tower's attention, not the decoder's."""
    return stage.layer == 0 if term.where is None else term.where == "tower"


def layers_of(part: Part, first: int) -> list[int]:
    """The layers that a score reads, where negative ones count back from `first`."""
    entry = token_scores.get(part.name)
    layers = argument(entry, part.arguments, "layers", [-1])
    return [number + first if number < 0 else number for number in layers]


def needs_of(term: Term) -> tuple[str, ...]:
    """What a term's score is handed."""
    meta: Any = token_scores.get(term.score.name).meta
    return meta.needs


def keys_of(stage: Stage) -> Term:
    """The term from whose last layer a selection is handed keys: the stage's first that reads attention, and without
    one, one that reads the layer before the stage."""
    reading = (term for term in stage.score if set(needs_of(term)) & set(ATTENTION))
    return next(reading, Term(score=Part("key_norm")))


def argument(entry: Entry, given: Mapping[str, Any], name: str, otherwise: Any = None) -> Any:
    """An argument of a part as given, or its default; `otherwise` where it has no such."""
    if name in given:
        return given[name]
    return entry.parameters[name].default if name in entry.parameters else otherwise


class Reading:
    """One group at one stage. `states` `[batch, slots, dim]` are what the decoder has in its `slots` now.

    Called with a need's name, and the term whose layers are read, by default that of `keys_of`. Raises ModelError,
    saying what to do, where the model cannot give it.
    """

    def __init__(
        self, places: Places, turn: Turn, stage: Stage, group: Group, states: Tensor, slots: Slots, seed: int
    ) -> None:
        self._places, self._turn, self._stage, self._seed = places, turn, stage, seed
        alive = turn.alive[group.row, group.columns]
        self._whole = bool(alive.all())
        self.columns = group.columns[alive]
        units = None if group.units is None else group.units.to(alive.device)[alive]
        self._group = Group(group.row, self.columns, group.shape, units, group.prefix)
        self._states = states[group.row]
        self._slot = slots.slot_of(turn.length)[group.row]

    def among(self, tokens: Tensor) -> Reading:
        """The same of some of the group's tokens, by number."""
        some = copy(self)
        some._whole = self._whole and len(tokens) == len(self.columns)
        some.columns = self.columns[tokens]
        units = None if self._group.units is None else self._group.units[tokens]
        some._group = replace(self._group, columns=some.columns, units=units)
        return some

    def __call__(self, need: str, term: Term | None = None) -> Any:
        if need in LAYERS:
            return self._of_layers(need, term or keys_of(self._stage))
        return getattr(self, f"_{need}")()

    def _hidden(self) -> Tensor:
        return self._states[self._slot[self.columns]].float()

    def _text(self) -> Tensor:
        return self._states[self._slot[text_columns(self._turn, self._group.row)]].float()

    def _grid(self) -> tuple[int, int]:
        if self._group.shape is None or not self._whole:
            why = (
                "other tokens left before" if self._group.shape else f"{self._stage.per}s have no rows and columns here"
            )
            raise self._cannot(f"it reads the picture's grid, and {why}", "prune by what reads no grid")
        return self._group.shape

    def _previous(self) -> Tensor | None:
        scores = self._turn.previous
        return None if scores is None else scores[self._group.row, self.columns]

    def _sizes(self) -> Tensor:
        return self._turn.sizes[self._group.row, self.columns]

    def _generator(self) -> torch.Generator:
        """Other draws for each stage and each picture of a prompt, whatever stands beside it in a batch."""
        before = int(self._turn.visual[self._group.row, : int(self.columns[0])].sum())
        return torch.Generator().manual_seed(self._seed + (self._stage.layer << 40) + (before << 20))

    def _tower_hidden(self) -> Tensor:
        return self._of_tower().mean(1)

    def _cls(self) -> Tensor:
        hidden = self._tower()
        tiles = (self._units() // (hidden.shape[1] - self._group.prefix)).unique()
        return hidden[tiles, 0].float().mean(0)

    def _pixels(self) -> Tensor:
        self._tower()
        return patch_pixels(self._turn.seen, self._units(), self._group.prefix)

    def _of_tower(self) -> Tensor:
        """What the tower gave of each token's patches, `[n, patches, size]`."""
        hidden = self._tower()
        if hidden.dim() == 3:
            hidden = hidden[:, self._group.prefix :].flatten(0, 1)
        return hidden[self._units()].float()

    def _tower(self) -> Tensor:
        if (hidden := self._turn.seen.hidden) is None:
            raise self._cannot(
                "the tower did not run under this rule", "give pixel_values, not what a tower made of them"
            )
        return hidden

    def _units(self) -> Tensor:
        if self._group.units is None:
            raise self._cannot(
                "it is not known which patches make which token of this picture",
                "give a picture of another size, or score by what the decoder has",
            )
        return self._group.units

    def _of_layers(self, need: str, term: Term) -> Tensor:
        entry, given = token_scores.get(term.score.name), term.score.arguments
        queries: Any = "each" if getattr(entry.meta, "square", False) else argument(entry, given, "queries", "each")
        if reads_tower(self._stage, term):
            self._tower()
            self._units()
            calls = [
                self._turn.seen.attention[layer] for layer in layers_of(term.score, len(self._places.tower_layers))
            ]
            return self._of_tower_layers(need, calls, queries)
        if queries == "last" and (window := argument(entry, given, "window", 1)) > 1:
            queries = window
        numbers = layers_of(term.score, self._stage.layer)
        if need in MODULES:
            return self._moved(need, numbers)
        calls = [self._turn.decoder[layer] for layer in numbers]
        row, columns = self._group.row, self.columns
        if need in ("key", "value"):
            return decoder_states(self._turn, calls[-1], row, columns, need)
        rows = [decoder_rows(self._turn, one, row, columns, queries, logits=need == "logits") for one in calls]
        return torch.stack(rows)

    def _of_tower_layers(self, need: str, calls: list[list[Attention]], queries: Any) -> Tensor:
        if need == "cls_value":
            return tower_cls(calls[-1], self._group)
        if need in ("key", "value"):
            return tower_states(calls[-1], self._group, need)
        return torch.stack([tower_rows(one, self._group, queries, logits=need == "logits") for one in calls])

    def _moved(self, need: str, numbers: list[int]) -> Tensor:
        """`[modules, n, dim]`: what the attention and MLP of layers were given, or gave."""
        found = []
        for key in ((number, kind) for number in numbers for kind in ("attention", "mlp")):
            given, gave, slots = self._turn.moved[key]
            states = (given if need == "inputs" else gave)[self._group.row]
            found.append(states[slots.slot_of(self._turn.length)[self._group.row, self.columns]].float())
        return torch.stack(found)

    def _cannot(self, why: str, cure: str) -> ModelError:
        at = "features" if self._stage.layer == 0 else f"decoder layer {self._stage.layer}"
        return ModelError(f"tokens: the stage at {at}: {why}; {cure}")
