"""Models that predict the tokens that were masked."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from compress.errors import InputError
from compress.inputs.batch import LABELS, Batch
from compress.registry import tasks
from compress.tasks.tokens import Tokens


@tasks.add("masked_token")
class MaskedToken(Tokens):
    """Tokens that were masked: encoders with a head over the vocabulary."""

    name, hub_task = "masked_token", "fill-mask"

    @classmethod
    def fits(cls, model: nn.Module, config: Any) -> bool:
        """Models that are called so."""
        return "MaskedLM" in type(model).__name__

    def targets(self, batch: Batch) -> tuple[Tensor, int]:
        """The labels, which are -100 where nothing was masked."""
        if LABELS not in batch:
            raise InputError(
                "a masked language model predicts labels, and this batch has none, so it has no perplexity"
            )
        return batch[LABELS], 0
