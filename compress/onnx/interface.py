"""What a model's graph takes: its inputs by name, what their axes are called, and samples of them."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compress.errors import ModelError
from compress.inputs.batch import END_TO_END, Batch
from compress.inputs.choose import inputs_of
from compress.inputs.kind import Inputs
from compress.inputs.text import Text

BATCH, SEQUENCE = "batch", "sequence"

TOKEN_AXES: dict[str, tuple[str, str]] = {
    "input_ids": (BATCH, SEQUENCE),
    "attention_mask": (BATCH, SEQUENCE),
    "token_type_ids": (BATCH, SEQUENCE),
    "position_ids": (BATCH, SEQUENCE),
    "decoder_input_ids": (BATCH, "decoder_sequence"),
}
"""Inputs that hold a number for every token, and what their axes are called."""

PADDED = 2
"""Tokens of the last row that are padding. Without any, the exporter would leave the mask out of the graph."""


class Interface(ABC):
    """The inputs of a model's graph.

    `axes`: name of an input → what each of its axes is called, None for one that is never free; the first is the batch.
    `cache`: keys and values of earlier tokens are among the inputs. `longest`: how long a sample may be. `noun`: what
    the length counts.
    """

    axes: Mapping[str, tuple[str | None, ...]]
    cache: bool
    longest: int | None
    noun: str

    @abstractmethod
    def sample(self, batch: int, length: int, seed: int = 0) -> Batch:
        """Random inputs of `batch` samples, `length` long where that is free."""

    @abstractmethod
    def length(self, sample: Batch) -> int:
        """How long the samples are."""

    def seen(self, sample: Batch) -> Tensor | None:
        """Which positions are no padding, `[batch, length]`; None where there is none."""
        return None

    @property
    def free(self) -> bool:
        """Whether the length of a sample is free."""
        return any(SEQUENCE in names for names in self.axes.values())


@dataclass
class SampleInterface(Interface):
    """Of a model that takes samples as its kind of inputs gives them: of images, pixels of one size."""

    inputs: Inputs

    def __post_init__(self) -> None:
        batch = self.inputs.check(1)
        if any(name.endswith(END_TO_END) for name in batch):
            raise ModelError(
                f"{type(self.inputs.model).__name__} takes the patches of all images end to end, so that a graph holds "
                "for one number of samples and one size of images; it is not exported to ONNX"
            )
        self.axes = {name: (BATCH, *([None] * (value.dim() - 1))) for name, value in batch.items()}
        self.cache, self.longest, self.noun = False, None, self.inputs.noun

    def sample(self, batch: int, length: int, seed: int = 0) -> Batch:
        """Such as what was written is verified by."""
        return self.inputs.check(batch, seed)

    def length(self, sample: Batch) -> int:
        """How many positions a sample has."""
        return self.inputs.length(sample)


@dataclass
class TextInterface(Interface):
    """Of a model of text, those of `TOKEN_AXES` that it takes. Padding is on the `left` where tokens are written after
    the last one."""

    names: tuple[str, ...]
    cache: bool
    left: bool
    vocabulary: int
    longest: int | None

    def __post_init__(self) -> None:
        self.axes, self.noun = {name: TOKEN_AXES[name] for name in self.names}, Text.noun

    def sample(self, batch: int, length: int, seed: int = 0) -> Batch:
        """Random tokens `[batch, length]`, the last row padded."""
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(self.vocabulary, (batch, length), generator=generator)
        mask = torch.ones_like(ids)
        padded = min(PADDED, length - 1)
        if self.left:
            mask[-1, :padded] = 0
        else:
            mask[-1, length - padded :] = 0
        whole = filled({"input_ids": ids, "attention_mask": mask})
        return {name: whole[name] for name in self.names}

    def length(self, sample: Batch) -> int:
        """Tokens of a row."""
        return sample["input_ids"].shape[1]

    def seen(self, sample: Batch) -> Tensor | None:
        """The mask."""
        return sample["attention_mask"].bool()


def filled(tokens: Mapping[str, Tensor]) -> Batch:
    """With `input_ids` `[batch, length]` all that a graph of text may take beside them, whatever is there as it is."""
    ids = tokens["input_ids"]
    length, mask = ids.shape[1], tokens.get("attention_mask", torch.ones_like(ids))
    return {
        "attention_mask": mask,
        "token_type_ids": (torch.arange(length) >= length // 2).long().expand(ids.shape).contiguous(),
        "position_ids": positions(mask),
        "decoder_input_ids": ids.roll(1, 1)[:, : max(2, length // 2)].contiguous(),
        **tokens,
    }


def positions(mask: Tensor) -> Tensor:
    """Positions `[batch, length]` that do not count padding on the left."""
    return (mask.cumsum(1) - 1).clamp(min=0)


def part(sample: Mapping[str, Tensor], start: int, stop: int) -> Batch:
    """The tokens `start` to `stop` of a sample as a decoder with a cache takes them; the mask spans those before."""
    found = {name: value[:, start:stop] for name, value in sample.items()}
    found["attention_mask"] = sample["attention_mask"][:, :stop]
    return {name: value.contiguous() for name, value in found.items()}


def interface_of(model: nn.Module, cache: bool) -> Interface:
    """What `model` takes, by its kind of inputs. Raises ModelError where it has none."""
    inputs = inputs_of(model)
    if not isinstance(inputs, Text) or not inputs.check(1).keys() <= TOKEN_AXES.keys():
        return SampleInterface(inputs)
    config: Any = model.config
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
    names = tuple(name for name in TOKEN_AXES if wanted[name] and name in taken)
    longest = getattr(text, "max_position_embeddings", None)
    return TextInterface(names, cache and writes and not both, writes and not both, text.vocab_size, longest)
