"""A call that goes on after a prompt of which tokens went: decoding, and further text."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from compress.errors import ModelError
from compress.runtime.tokens.memory import Held, Memory
from compress.runtime.tokens.places.kind import Places
from compress.runtime.tokens.slots import beyond


class Resume:
    """Masks and positions of one call, by what the cache remembers."""

    def __init__(self, places: Places, memory: Memory) -> None:
        self._places, self._memory = places, memory
        self._first = memory.stages[0]

    def enter(self, given: dict[str, Any]) -> dict[str, Any]:
        """The core's arguments: the mask of the keys that are left, and the dense prompt's next positions."""
        first = given["input_ids"] if given.get("input_ids") is not None else given["inputs_embeds"]
        batch, new = first.shape[:2]
        held = self._first.repeated(batch)
        mask = given.get("attention_mask")
        if mask is not None and not (isinstance(mask, Tensor) and mask.dim() == 2):
            raise ModelError("tokens: attention_mask has to be [batch, tokens] where a cache is gone on with")
        physical = held.slots.columns.shape[1]
        past = self._memory.length + given["past_key_values"].get_seq_length() - physical
        positions = given.get("position_ids")
        if positions is None:
            positions = self._positions(mask, past, batch, new, first.device)
        if held.moved is not None:
            positions = positions - held.moved[:, None]
        if mask is None and bool(held.slots.filler.any()):
            mask = torch.ones(batch, past + new, dtype=torch.long, device=first.device)
        self._given = mask
        return {**given, "position_ids": positions, "attention_mask": self._mask(mask, held)}

    def layer(self, number: int, states: Tensor, kwargs: dict[str, Any]) -> dict[str, Any]:
        """A layer's arguments, where it holds other keys than the first, or looks a limited way back."""
        batch, new = states.shape[:2]
        held = self._memory.at(number)
        if held is self._first and self._places.window(number) is None:
            return kwargs
        held, first = held.repeated(batch), self._first.repeated(batch)
        found = {**kwargs, "attention_mask": self._own_mask(number, held, kwargs, new)}
        if held.moved is not None:
            before = 0 if first.moved is None else first.moved
            found["position_ids"] = kwargs["position_ids"] - (held.moved - before)[:, None]
            rotate: Any = self._places.text.rotary_emb
            found["position_embeddings"] = rotate(states, found["position_ids"])
        return found

    def _own_mask(self, number: int, held: Held, kwargs: dict[str, Any], new: int) -> Tensor | None:
        """The mask of a layer that holds other columns than the first: of its `keys`, in the form that it was given."""
        cache, batch, window = kwargs["past_key_values"], len(held.slots.columns), self._places.window(number)
        form, filler = kwargs.get("attention_mask"), held.slots.filler
        later = cache.get_seq_length(number) - filler.shape[1] + new
        mine = self._mask(self._given, held)
        if mine is None:
            if not filler.any() and (self._places.flash or (new == 1 and window is None)):
                return None
            mine = torch.cat([~filler, filler.new_ones(batch, later)], 1)
        keys, _ = cache.get_mask_sizes(new, number)  # those of a sliding window are the last ones
        mine = mine.bool()[:, -keys:]
        if self._places.flash:
            return mine.long()
        visible = mine[:, None, None] & mine.new_ones(new, keys).tril(keys - new)
        if window is not None:
            columns = self._memory.length + torch.arange(later, device=mine.device).expand(batch, later)
            columns = torch.cat([held.slots.columns, columns], 1)
            visible &= ~beyond(columns[:, -new:], columns[:, -keys:], window)
        if form is None or form.dtype == torch.bool:
            return visible
        return torch.zeros_like(visible, dtype=form.dtype).masked_fill(~visible, torch.finfo(form.dtype).min)

    def _mask(self, mask: Tensor | None, held: Held) -> Tensor | None:
        """The mask `[batch, keys]` of the first layer's keys from one of all columns so far."""
        if mask is None:
            return None
        columns, length = held.slots.columns, self._memory.length
        mask = mask.to(columns.device)
        own = mask[:, :length].gather(1, columns.clamp_min(0)).masked_fill(held.slots.filler, 0)
        return torch.cat([own, mask[:, length:]], 1)

    def _positions(self, mask: Tensor | None, past: int, batch: int, new: int, device: Any) -> Tensor:
        """As the model has them for the dense prompt, where the caller gives none."""
        deltas = getattr(self._places.core, "rope_deltas", None)
        if deltas is None or mask is None:
            positions = torch.arange(past, past + new, device=device).expand(batch, new)
        else:
            positions = (mask.long().cumsum(1) - 1)[:, -new:]
        return positions if deltas is None else positions + deltas.to(device).repeat_interleave(batch // len(deltas), 0)
