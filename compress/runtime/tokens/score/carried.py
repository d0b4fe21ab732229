"""The score of the stage before, carried along (VFlowOpt, Yang et al. 2025, https://arxiv.org/abs/2508.05211)."""

from __future__ import annotations

from torch import Tensor

from compress.errors import InputError
from compress.registry import token_scores


@token_scores.add("carried", needs=("previous",), paper="2508.05211")
def carried(previous: Tensor | None) -> Tensor:
    """What the stage before scored these tokens, whatever it read. `[n]` → `[n]`.

    Raises InputError where no stage before had a score.
    """
    if previous is None:
        raise InputError("token score carried: no stage before this one has a score; score the first stage otherwise")
    return previous
