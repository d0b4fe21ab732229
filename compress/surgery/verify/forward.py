"""Random tokens through a model whose blocks are read one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from compress.model.build import text_config
from compress.model.weights import Weights
from compress.stream.baton import Walk
from compress.stream.stream import Batch, Stream, Watch
from compress.surgery.verify.noise import Reordered

Advance = Callable[[], None]


def tokens(config: PretrainedConfig, rows: int = 2, length: int = 16, seed: int = 0) -> Batch:
    """Random tokens `[rows, length]`, fewer where the model has not as many positions, the same for each `seed`.

    Raises ModelError for a model that takes no tokens.
    """
    generator = torch.Generator().manual_seed(seed)
    text = text_config(config)
    length = min(length, getattr(text, "max_position_embeddings", None) or length)
    ids = torch.randint(0, text.vocab_size, (rows, length), generator=generator)
    pad = getattr(text, "pad_token_id", None)
    if pad is not None and text.vocab_size > 2:  # padding shifts some models' positions
        ids[ids == pad] = (pad + 1) % text.vocab_size
    return (
        {"input_ids": ids, "decoder_input_ids": ids}
        if getattr(config, "is_encoder_decoder", False)
        else {"input_ids": ids}
    )


class _Twice(Stream):
    """The first batch as it is, others with products summed in another order, by the weights of one reading."""

    first: Walk | None = None

    def execute(self, walk: Walk) -> Any:
        """Run what the batch's thread asks for."""
        self.first = self.first or walk
        with nullcontext() if walk is self.first else Reordered():
            return super().execute(walk)


def output(
    model: nn.Module, weights: Weights, blocks: Iterable[str], batch: Batch, advance: Advance, *, twice: bool = False
) -> list[Tensor]:
    """Logits, or the last hidden state, of one forward in float32; with `twice` of another one that sums anew, too.

    `advance` is called after each block.
    """
    found: list[Tensor] = []

    def end(output: Any, batch: Batch) -> None:
        logits = getattr(output, "logits", None)
        found.append((logits if logits is not None else output[0]).float())

    watch = Watch(end=end, leave=lambda block: advance())
    (_Twice if twice else Stream)(model, weights, blocks, watch).run([batch, batch] if twice else [batch])
    return found
