"""Merging into the nearest token that is kept (ToMe, VisionZip, HoliTom)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from compress.registry import token_residuals
from compress.runtime.tokens.cosine import cosine
from compress.runtime.tokens.merged import Merged, means
from compress.runtime.tokens.selection import Selection


@token_residuals.add("nearest", needs=("selection", "hidden"), paper="2210.09461")
def nearest(selection: Selection, hidden: Tensor, *, own: Annotated[float, Field(gt=0, lt=1)] | None = None) -> Merged:
    """Tokens merge into those kept that the selection says, or that are most similar, by cosine.

    A token is then the mean of itself and of what merged into it; with `own` its own share is that, and the others
    share the rest (0.5 is HoliTom's in the language model, 0.6 its β in front of it). `hidden` `[n, dim]`.
    """
    n, kept = len(hidden), selection.kept
    if len(kept) == n:
        return Merged(kept)
    into, weight = _into(selection, hidden), torch.ones(n, device=hidden.device)
    if own is not None:
        merged = (into == torch.arange(len(kept), device=into.device)[:, None]).sum(1) - 1
        weight[kept] = own / (1 - own) * merged.clamp(min=1).to(weight)
    return means(kept, into, weight)


@token_residuals.add("nearest_by_size", needs=("selection", "hidden", "sizes"), paper="2210.09461")
def nearest_by_size(selection: Selection, hidden: Tensor, sizes: Tensor) -> Merged:
    """As `nearest`, in the mean a token counts as many as it stands for already (ToMe).

    `hidden` `[n, dim]`, `sizes` `[n]`.
    """
    if len(selection.kept) == len(hidden):
        return Merged(selection.kept)
    return means(selection.kept, _into(selection, hidden), sizes)


def _into(selection: Selection, hidden: Tensor) -> Tensor:
    if selection.assign is not None:
        return selection.assign
    into = cosine(hidden, hidden[selection.kept]).argmax(1)
    into[selection.kept] = torch.arange(len(selection.kept), device=into.device)
    return into
