"""Evenly spaced tokens: the baseline of every selection, and LVLM_CSP's first stage."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from compress.registry import token_selects
from compress.runtime.tokens.selection import Selection, checked


@token_selects.add("uniform", needs=("hidden", "keep"))
def uniform(hidden: Tensor, keep: int, *, spacing: Literal["centred", "step"] = "centred") -> Selection:
    """Tokens at even distances in their order, whatever they hold.

    `centred`: the middles of `keep` equal parts. `step`: multiples of ⌊n / keep⌋ from the first token on, as LVLM_CSP
    (https://arxiv.org/abs/2504.10854) has them. `hidden` `[n, dim]` is only counted.
    """
    return Selection(spaced(len(hidden), checked(keep, len(hidden)), spacing).to(hidden.device))


def spaced(n: int, count: int, spacing: Literal["centred", "step"]) -> Tensor:
    """`count` of n tokens."""
    number = torch.arange(count)
    return number * (n // count) if spacing == "step" else (2 * number + 1) * n // (2 * count)
