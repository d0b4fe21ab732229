"""A model asked for its losses or embeddings: whole in memory, or block by block where it is large."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from compress.checkpoint.open import Checkpoint
from compress.errors import InputError
from compress.evaluate.load import load_model, predicts
from compress.evaluate.perplexity import Losses, losses, output_losses
from compress.evaluate.similarity import embed, pooled
from compress.graph.families import Graph
from compress.model.weights import Weights, runnable_model
from compress.runtime import attach
from compress.stream.stream import Stream, Watch

Batch = dict[str, Tensor]
Read = Losses | Tensor
"""Of one batch: its losses where the model predicts tokens, else its embeddings `[batch, hidden]`."""


class Whole:
    """Loaded at once, as stock transformers do."""

    def __init__(self, checkpoint: Checkpoint, device: str) -> None:
        self.model = load_model(checkpoint, device)

    def read(self, batches: list[Batch], advance: Callable[[], Any]) -> list[Read]:
        """What the model makes of each batch."""
        found: list[Read] = []
        for batch in batches:
            found.append(losses(self.model, batch) if predicts(self.model) else embed(self.model, [batch])[0])
            advance()
        return found


class Streamed:
    """One block of `graph` in memory at a time; all batches of one `read` go through the model together."""

    def __init__(self, checkpoint: Checkpoint, graph: Graph, device: str) -> None:
        self._checkpoint, self._graph, self._device = checkpoint, graph, device
        self._dtype = torch.float32
        if device != "cpu":
            stored = max(checkpoint.tensors.values(), key=lambda spec: spec.bytes).dtype
            self._dtype = stored if stored.is_floating_point else torch.float32

    def read(self, batches: list[Batch], advance: Callable[[], Any]) -> list[Read]:
        """What the model makes of each batch; raises ModelError for a model that cannot be streamed."""
        model = runnable_model(self._checkpoint, self._dtype)
        attach(model)
        if not predicts(model):
            model.config.output_hidden_states = True  # pyright: ignore
        found: dict[int, Read] = {}

        def end(output: Any, batch: Batch) -> None:
            number = next(i for i, one in enumerate(batches) if _same(one, batch) and i not in found)
            found[number] = output_losses(model, batch, output) if predicts(model) else pooled(model, batch, output)

        watch = Watch(leave=lambda block: advance(), end=end)
        weights = Weights(self._checkpoint, model)
        Stream(model, weights, self._graph.blocks, watch, dtype=self._dtype, device=self._device).run(batches)
        if len(found) < len(batches):
            raise InputError(f"{self._checkpoint.folder}: not all texts went through the model")
        return [found[number] for number in range(len(batches))]


def _same(one: Batch, other: Batch) -> bool:
    return torch.equal(one["input_ids"], other["input_ids"].cpu())
