"""Models that predict each token from those before it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from compress.inputs.batch import LABELS, Batch
from compress.registry import tasks
from compress.tasks.tokens import IDS, MASK, Tokens, following, generates


@tasks.add("next_token")
class NextToken(Tokens):
    """The next token of a text: decoders, and models of images and text that write."""

    name = "next_token"

    @classmethod
    def fits(cls, model: nn.Module, config: Any) -> bool:
        """Models that generate, without an encoder."""
        return generates(model) and not getattr(config, "is_encoder_decoder", False)

    def targets(self, batch: Batch) -> tuple[Tensor, int]:
        """The labels where there are any, else the tokens that are read; the first of a sequence is not predicted."""
        return following(batch.get(LABELS, batch[IDS]), batch.get(MASK)), 1
