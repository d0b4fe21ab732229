"""Encoder-decoders that hear, and write what is said."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from compress.inputs.batch import LABELS, Batch
from compress.metrics.kind import Metric
from compress.metrics.word_errors import ErrorRate
from compress.registry import tasks
from compress.tasks.sequence_to_sequence import SequenceToSequence
from compress.tasks.spelling import spelling
from compress.tasks.tokens import DECODER_IDS, hears

LONGER = 1.5
"""How many times as many tokens as were said are written at most."""


@tasks.add("transcription")
class Transcription(SequenceToSequence):
    """The text that is said: its cross-entropy is the loss, its word error rate, written greedily, the quality."""

    name, hub_task = "transcription", "automatic-speech-recognition"

    @classmethod
    def fits(cls, model: nn.Module, config: Any) -> bool:
        """Models that generate, with an encoder that hears."""
        return cls.generates_from_encoder(model, config) and hears(model)

    def metric(self, batch: Batch) -> Metric[Any]:
        """Word error rate; without labels the perplexity of the decoder's own tokens."""
        if LABELS not in batch:
            return super().metric(batch)
        noun, spell = spelling(self.config)

        def read(output: Any, batch: Batch) -> list[tuple[list[Any], list[Any]]]:
            pairs = zip(batch[LABELS].tolist(), output.tokens.tolist(), strict=True)
            return [(spell(self._ended(said)), spell(self._ended(row))) for said, row in pairs]

        return ErrorRate(noun, read, self._write)

    def _write(self, forward: Callable[..., Any], batch: Batch) -> Any:
        """The likeliest tokens `[batch, length]` one after the other, behind the one that the decoder begins with."""
        tokens = batch[DECODER_IDS][:, :1]
        heard = {name: value for name, value in batch.items() if name != DECODER_IDS}
        most = int(LONGER * batch[DECODER_IDS].shape[1]) + 1
        most = min(most, getattr(self.config, "max_target_positions", most) - 1)
        for _ in range(most):
            output = forward(**heard, **{DECODER_IDS: tokens})
            heard = {"encoder_outputs": (output.encoder_last_hidden_state,)}
            tokens = torch.cat([tokens, output.logits[:, -1:].argmax(-1)], 1)
            if self._end is not None and (tokens[:, 1:] == self._end).any(1).all():
                break
        return SimpleNamespace(tokens=tokens[:, 1:])

    def _ended(self, row: list[int]) -> list[int]:
        """Up to the token that ends a text."""
        return row[: row.index(self._end)] if self._end in row else row

    @property
    def _end(self) -> int | None:
        end = getattr(self.config, "eos_token_id", None)
        return end[0] if isinstance(end, list) else end
