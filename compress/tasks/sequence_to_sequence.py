"""Models that read a text and write another."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from compress.errors import InputError
from compress.inputs.batch import LABELS, Batch
from compress.registry import tasks
from compress.tasks.tokens import DECODER_IDS, DECODER_MASK, Tokens, following, generates, hears


@tasks.add("sequence_to_sequence")
class SequenceToSequence(Tokens):
    """The text that an encoder-decoder writes."""

    name, hub_task = "sequence_to_sequence", "text2text-generation"

    @classmethod
    def fits(cls, model: nn.Module, config: Any) -> bool:
        """Models that generate, with an encoder that does not hear."""
        return cls.generates_from_encoder(model, config) and not hears(model)

    @staticmethod
    def generates_from_encoder(model: nn.Module, config: Any) -> bool:
        """Whether a decoder writes what an encoder is given."""
        return generates(model) and bool(getattr(config, "is_encoder_decoder", False))

    def targets(self, batch: Batch) -> tuple[Tensor, int]:
        """The labels, or the decoder's own tokens where there are none."""
        if LABELS in batch:
            return batch[LABELS], 0
        if DECODER_IDS not in batch:
            raise InputError("an encoder-decoder predicts labels or its decoder's tokens; this batch has neither")
        return following(batch[DECODER_IDS], batch.get(DECODER_MASK)), 1
