"""What a model of text needs beside the tokens: boxes of words on a page, features of an image."""

from __future__ import annotations

import torch
from torch import Tensor

from compress.errors import ModelError
from compress.inputs.ask import answer, on_meta, takes
from compress.inputs.batch import LABELS, Batch
from compress.inputs.described import Said, described, sizes_of
from compress.inputs.kind import Inputs
from compress.inputs.once import once

BOXES = "bbox"
"""Left, top, right and bottom of each token, as shares of the page."""

ASKED = 2, 16
"""Rows and tokens that a forward is asked with."""


def beside(inputs: Inputs, tokens: Batch) -> Batch:
    """What the forward of a model needs beside its `tokens`, ids `[rows, length]` by name: noise of the sizes that its
    docstring says, and boxes. Nothing where tokens are enough, or it runs with none of it."""
    told = described(inputs.model)
    candidates = [name for name, said in told.items() if not said.optional and name not in (*tokens, LABELS)]
    candidates += [BOXES] if takes(inputs.model, BOXES) and BOXES not in candidates else []
    if not candidates:
        return {}
    ids = next(iter(tokens.values()))
    needed = once(inputs, lambda: _needed(inputs, list(tokens), candidates))
    return {name: made for name in needed if (made := _drawn(name, told.get(name), inputs, ids)) is not None}


def _needed(inputs: Inputs, names: list[str], candidates: list[str]) -> list[str]:
    model, told, ids = on_meta(inputs.model), described(inputs.model), torch.ones(ASKED, dtype=torch.long)
    for count in range(len(candidates) + 1):
        made = {name: _drawn(name, told.get(name), inputs, ids) for name in candidates[:count]}
        try:
            answer(model, {**dict.fromkeys(names, ids), **{name: x for name, x in made.items() if x is not None}})
            return candidates[:count]
        except ModelError:
            continue
    return []


def _drawn(name: str, said: Said | None, inputs: Inputs, ids: Tensor) -> Tensor | None:
    """Numbers for the samples that `ids` are of; None where the config does not say how many."""
    rows, length = ids.shape[:2]
    if name == BOXES:
        corners = torch.rand(rows, length, 2, generator=torch.Generator().manual_seed(0)) / 2
        return torch.cat([corners, corners + 0.25], -1).to(ids.device)
    sizes = None if said is None else sizes_of(said, inputs.config, length)
    if said is None or sizes is None:
        return None
    if said.whole:
        return torch.zeros(rows, *sizes, dtype=torch.long, device=ids.device)
    return torch.randn(rows, *sizes, generator=torch.Generator().manual_seed(0)).to(ids.device)
