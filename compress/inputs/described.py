"""What a forward's docstring says of its arguments: `states (torch.Tensor of shape (batch_size, length, width))`."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

from torch import nn

from compress.inputs.ask import options, takes
from compress.inputs.layout import USUAL, pair

ARGUMENT = re.compile(
    r"^[ ]*(?P<name>\w+)[ ]*\([`']*torch\.(?P<type>\w*Tensor)[`']*\s+of shape\s+[`']*[(\[](?P<sizes>.*?)[)\]][`']*"
    r"(?P<optional>,[^)\n]*\*optional\*)?[^)\n]*\)",
    re.MULTILINE,
)
SYNONYMS = {
    "dim": "hidden_size",
    "channels": "num_channels",
    "height": "image_size",
    "width": "image_size",
}
"""What docstrings call a setting, and what configs do."""

FREE = re.compile(r"(length|len|frames|features|boxes|tokens|steps)$")
"""Ends of the names of sizes that are free."""

WHOLE = ("LongTensor", "IntTensor")


@dataclass(frozen=True)
class Said:
    """`sizes` of a sample, as they are written, whether its numbers are `whole`, and whether it may be left out."""

    sizes: tuple[str, ...]
    whole: bool
    optional: bool


def described(model: nn.Module) -> dict[str, Said]:
    """The tensors that the docstring of a model's forward describes, of those whose first dimension is the sample."""
    found = _read(inspect.getdoc(model.forward) or "")
    return {name: said for name, said in found.items() if takes(model, name)}


@cache
def _read(text: str) -> dict[str, Said]:
    found = {}
    for match in ARGUMENT.finditer(text):
        first, *sizes = [size.strip() for size in match["sizes"].split(",") if size.strip()] or [""]
        if first in ("batch_size", "batch"):
            whole = match["type"] in WHOLE or match["name"].endswith("_ids")
            found[match["name"]] = Said(tuple(sizes), whole, bool(match["optional"]))
    return found


def sizes_of(said: Said, config: Any, length: int, *, encoder: bool = False) -> tuple[int, ...] | None:
    """The sizes as numbers, those that are free being `length`; None where one is not known of the config. `encoder`:
    it is what an encoder before the model has made, whose width the config may say, too."""
    wide = encoder and options(config, "encoder_hidden_size")
    named = ["encoder_hidden_size" if wide and size == "hidden_size" else size for size in said.sizes]
    found = [_size(size, config, length) for size in named]
    return None if None in found else tuple(size for size in found if size is not None)


def _size(size: str, config: Any, length: int) -> int | None:
    """One size: a number, the name of a setting or of what is free, or a sum or product of such."""
    for sign, together in (("+", sum), ("*", prod)):
        if sign in size:
            parts = [_size(part.strip(), config, length) for part in size.split(sign)]
            return None if None in parts else together(part for part in parts if part is not None)
    if size.isdecimal():
        return int(size)
    if counted := re.fullmatch(r"len\((?:config\.)?(\w+)\)?", size):
        several = options(config, counted[1])
        return len(several) if several else None
    name = size.removeprefix("config.")
    name = SYNONYMS.get(name, name)
    if name == "image_size":
        return pair(options(config, name) or USUAL)[size == "width"]
    value = options(config, name)
    if type(value) is int and not name.endswith(("length", "len")):
        return value
    return length if FREE.search(name) else None
