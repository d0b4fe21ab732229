"""One call with pictures, from the decoder's first layer to its last: tokens go, and everything else follows them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compress.recipe.token_stage import Stage
from compress.runtime.tokens.deciding import decided
from compress.runtime.tokens.memory import NAME, Held, Memory
from compress.runtime.tokens.places.kind import Places
from compress.runtime.tokens.reading import Reading
from compress.runtime.tokens.slots import Slots, masked, taken, windowed
from compress.runtime.tokens.trace import Record, tell, wanted
from compress.runtime.tokens.turn import Turn

Stages = Mapping[int, Sequence[Stage]]
"""Layer of the decoder → the stages before it; 0 stands before all."""

FOLLOW = ("attention_mask", "position_ids", "position_embeddings")
"""What of a layer's arguments follows its tokens; layers of one kind are given the same."""


class Prefill:
    """`slots`: who stands where in the decoder's hidden states now."""

    def __init__(self, places: Places, stages: Stages, seed: int, turn: Turn) -> None:
        self._places, self._stages, self._seed, self.turn = places, stages, seed, turn
        self.slots = Slots.all(len(turn.visual), turn.length, turn.visual.device)
        self._held: dict[int, Held] = {}
        self._renumbered = False
        self._restores = any(stage.select == "restore" for some in stages.values() for stage in some)
        self._waiting: Tensor | None = None
        self._made: dict[tuple[int | None, ...], tuple[list[Any], dict[str, Any]]] = {}
        self._number = 0
        self._record: Record | None = None

    def enter(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The decoder's arguments without the tokens that go before it."""
        turn, states = self.turn, kwargs["inputs_embeds"]
        positions = kwargs.get("position_ids")
        if positions is None:
            positions = torch.arange(turn.length, device=states.device)[None]
        self._positions = positions
        if wanted(self._places.core):
            self._record = Record(turn)
        states, index = self._stage(0, states)
        self._first, self._began = self.slots, self.turn.alive.clone()
        mask = kwargs.get("attention_mask")
        if mask is None:  # ones, lest gaps in the positions be taken for several texts in one row
            mask = torch.ones_like(turn.visual, dtype=torch.long)
        return {
            **kwargs,
            "inputs_embeds": states,
            "position_ids": self._own_positions(),
            "attention_mask": masked(mask, index, self.slots.filler, index, flash=self._places.flash),
            **self._deep(kwargs, index),
        }

    def layer(self, number: int, states: Tensor, kwargs: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """The states and arguments of a layer that a stage names, or after one, or that looks a limited way back."""
        if number and number in self._stages:
            states, _ = self._stage(number, states)
            self._made.clear()
        made = [kwargs.get(name) for name in FOLLOW]
        window = self._places.window(number)
        known = self._made.setdefault((*map(id, made), window), (made, {}))[1]  # holding them, so that ids stay theirs
        if not known:
            known.update(self._followed(states, kwargs, window))
        return states, {**kwargs, **known}

    def _followed(self, states: Tensor, kwargs: dict[str, Any], window: int | None) -> dict[str, Any]:
        """A layer's mask and positions for the slots that are left."""
        index = self._first_index()
        mask = masked(kwargs.get("attention_mask"), index, self.slots.filler, index, flash=self._places.flash)
        if window is not None and not self._places.flash:
            mask = windowed(mask, self.slots.columns, self.slots.columns, window)
        found: dict[str, Any] = {"attention_mask": mask}
        if kwargs.get("position_ids") is not None:
            found["position_ids"] = (
                self._own_positions() if self._renumbered else taken(kwargs["position_ids"], index, -1)
            )
        if (embedded := kwargs.get("position_embeddings")) is not None:
            if self._renumbered:
                rotate: Any = self._places.text.rotary_emb
                found["position_embeddings"] = rotate(states, found["position_ids"])
            else:
                found["position_embeddings"] = tuple(taken(one, index, -2) for one in embedded)
        return found

    def leave(self, output: Any, counts: Counter[str]) -> Any:
        """What the decoder gives, of the prompt's length again; its cache remembers who is left."""
        turn = self.turn
        counts["tokens"] += int(turn.visual.sum())
        counts["kept"] += int(turn.alive[turn.visual].sum())
        if (cache := output.past_key_values) is not None:
            setattr(cache, NAME, Memory(turn.length, self._held))
        if self._record is not None:
            tell(self._places.core, self._record.trace)
        output.last_hidden_state = taken(output.last_hidden_state, self.slots.before(turn.length), 1)
        return output

    def _stage(self, layer: int, states: Tensor) -> tuple[Tensor, Tensor]:
        """The states that are left after the stages at a layer, and the slots they had."""
        for stage in self._stages.get(layer, ()):
            if stage.select == "restore":
                states = self._restored(states)
            else:
                self._left(states)
                states = self._cut(stage, states, self.slots)
            self._renumbered |= stage.positions == "renumber"
            if self._record is not None:
                self._record.end(self._number, layer)
            self._number += 1
        before = self.slots
        self.slots, index = before.less(self.turn.alive)
        gone = (~self.turn.alive).sum(1) if self._renumbered else None
        self._held[layer] = Held(self.slots, gone)
        return taken(states, index, 1), index

    def _left(self, states: Tensor) -> None:
        """Remember the states before some leave, where a later stage brings them back."""
        if self._restores and self._held:
            start = self._first_index()
            whole = states if self._waiting is None else self._waiting
            self._waiting = whole.scatter(1, start[..., None].expand_as(states), states)

    def _restored(self, states: Tensor) -> Tensor:
        """All states that there were when the decoder began, each as it was when it left."""
        self._left(states)
        self.slots = self._first
        self.turn.alive = self.turn.alive | self._began
        if self._record is not None:
            self._record.restored()
        assert self._waiting is not None
        return self._waiting

    def _first_index(self) -> Tensor:
        """The slots, among those that the decoder began with, of those that are left."""
        return self._first.slot_of(self.turn.length).gather(1, self.slots.columns.clamp_min(0))

    def _cut(self, stage: Stage, states: Tensor, slots: Slots) -> Tensor:
        """`states` with merged tokens in the places of those that stay; the turn says who does."""
        turn, slot = self.turn, slots.slot_of(self.turn.length)
        if stage.select == "none":
            turn.alive = turn.alive & ~turn.visual
            return states
        states = states if stage.residual.name == "drop" else states.clone()
        scored = None if turn.previous is None else turn.previous.clone()
        for group in turn.budgets(stage.per):
            reading = Reading(self._places, turn, stage, group, states, slots, self._seed)
            if not len(reading.columns):
                continue
            merged, scores = decided(stage, reading, len(group.columns))
            kept = reading.columns[merged.kept]
            if self._record is not None:
                self._record.went(group.row, reading.columns, merged)
            if merged.weights is not None:
                own = states[group.row, slot[group.row, reading.columns]].float()
                states[group.row, slot[group.row, kept]] = (merged.weights @ own).to(states.dtype)
                sizes = turn.sizes[group.row, reading.columns]
                turn.sizes[group.row, kept] = ((merged.weights > 0).float() @ sizes).float()
            turn.alive[group.row, reading.columns] = False
            turn.alive[group.row, kept] = True
            if scores is not None:
                scored = torch.zeros(turn.visual.shape, device=states.device) if scored is None else scored
                scored[group.row, reading.columns] = scores
        turn.previous = scored
        return states

    def _own_positions(self) -> Tensor:
        """Positions of the slots: as they came, or counted anew."""
        columns = self.slots.columns.clamp_min(0)
        positions = taken(self._positions, columns, -1)
        if not self._renumbered:
            return positions
        return positions - (~self.turn.alive).long().cumsum(1).gather(1, columns)

    def _deep(self, kwargs: dict[str, Any], index: Tensor) -> dict[str, Any]:
        """What a decoder adds to visual tokens in its first layers, for those that stay."""
        if (where := kwargs.get("visual_pos_masks")) is None:
            return {}
        stay = self.turn.alive[where]
        return {
            "visual_pos_masks": where.gather(1, index) & ~self.slots.filler,
            "deepstack_visual_embeds": [one[stay] for one in kwargs["deepstack_visual_embeds"]],
        }


def moved_modules(layer: nn.Module) -> dict[str, nn.Module]:
    """The layer's `attention` and `mlp`, those that there are."""
    children = dict(layer.named_children())
    names = {"attention": "self_attn", "mlp": "mlp"}
    return {kind: children[name] for kind, name in names.items() if name in children}
