"""What a model's graph takes: the names of its inputs, and samples of them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compress.errors import ModelError

AXES: dict[str, tuple[str, str]] = {
    "input_ids": ("batch", "sequence"),
    "attention_mask": ("batch", "sequence"),
    "token_type_ids": ("batch", "sequence"),
    "position_ids": ("batch", "sequence"),
    "decoder_input_ids": ("batch", "decoder_sequence"),
}
"""Inputs that hold a number for every token, and what their axes are called."""

PADDED = 2
"""Tokens of the last row that are padding. Without any, the exporter would leave the mask out of the graph."""


@dataclass(frozen=True)
class Interface:
    """The inputs of a model's graph; `cache` says whether keys and values of earlier tokens are among them.

    Padding is on the `left` where tokens are written after the last one.
    """

    names: tuple[str, ...]
    cache: bool
    left: bool
    vocabulary: int
    longest: int | None

    def sample(self, batch: int, length: int, seed: int = 0) -> dict[str, Tensor]:
        """Random inputs `[batch, length]`, the last row padded."""
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(self.vocabulary, (batch, length), generator=generator)
        mask = torch.ones_like(ids)
        padded = min(PADDED, length - 1)
        if self.left:
            mask[-1, :padded] = 0
        else:
            mask[-1, length - padded :] = 0
        whole = {
            "input_ids": ids,
            "attention_mask": mask,
            "token_type_ids": (torch.arange(length) >= length // 2).long().expand(batch, length).contiguous(),
            "position_ids": positions(mask),
            "decoder_input_ids": ids.roll(1, 1)[:, : max(2, length // 2)].contiguous(),
        }
        return {name: whole[name] for name in self.names}


def positions(mask: Tensor) -> Tensor:
    """Positions `[batch, length]` that do not count padding on the left."""
    return (mask.cumsum(1) - 1).clamp(min=0)


def part(sample: Mapping[str, Tensor], start: int, stop: int) -> dict[str, Tensor]:
    """The tokens `start` to `stop` of a sample as a decoder with a cache takes them; the mask spans those before."""
    found = {name: value[:, start:stop] for name, value in sample.items()}
    found["attention_mask"] = sample["attention_mask"][:, :stop]
    return {name: value.contiguous() for name, value in found.items()}


def interface_of(model: nn.Module, cache: bool) -> Interface:
    """What `model` takes. Raises ModelError for a model that reads anything but text."""
    config: Any = model.config
    if getattr(model, "main_input_name", "input_ids") != "input_ids":
        raise ModelError(f"{type(model).__name__} takes {model.main_input_name}; only models of text are exported")
    taken = inspect.signature(model.forward).parameters
    both = bool(getattr(config, "is_encoder_decoder", False))
    writes = bool(getattr(model, "can_generate", bool)())
    text = config.get_text_config()
    wanted = {
        "input_ids": True,
        "attention_mask": True,
        "token_type_ids": getattr(text, "type_vocab_size", 0) > 1,
        "position_ids": writes and not both,
        "decoder_input_ids": both,
    }
    names = tuple(name for name in AXES if wanted[name] and name in taken)
    longest = getattr(text, "max_position_embeddings", None)
    return Interface(names, cache and writes and not both, writes and not both, text.vocab_size, longest)
