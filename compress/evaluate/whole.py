"""A model asked what it makes of samples: whole in memory, or block by block where it is large."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from compress.checkpoint.open import Checkpoint
from compress.errors import InputError
from compress.evaluate.load import load_model
from compress.evaluate.read import read
from compress.graph.families import Graph
from compress.inputs.batch import Batch
from compress.metrics.kind import Metric
from compress.model.weights import Weights, runnable_model
from compress.runtime import attach
from compress.stream.stream import Stream, StreamCallbacks
from compress.tasks.asked import asked


class Whole:
    """Loaded at once, as stock transformers do."""

    def __init__(self, checkpoint: Checkpoint, device: str) -> None:
        self.model = load_model(checkpoint, device)

    def read(self, metric: Metric[Any], batches: Sequence[Batch], advance: Callable[[], Any]) -> list[Any]:
        """The reading of each batch."""
        found = []
        for batch in batches:
            found.append(read(self.model, metric, batch))
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

    def read(self, metric: Metric[Any], batches: Sequence[Batch], advance: Callable[[], Any]) -> list[Any]:
        """The reading of each batch; raises ModelError for a model that cannot be streamed."""
        model = runnable_model(self._checkpoint, self._dtype)
        attach(model)
        found: dict[int, Any] = {}

        def end(output: Any, batch: Batch) -> None:
            number = next(i for i, one in enumerate(batches) if i not in found and _same(one, batch))
            found[number] = metric.read(output, batch)

        one = asked(model, metric.asks)
        callbacks = StreamCallbacks(leave=lambda block: advance(), end=end)
        Stream(
            model,
            Weights(self._checkpoint, model),
            self._graph.blocks,
            callbacks,
            dtype=self._dtype,
            device=self._device,
            forward=lambda **batch: metric.run(one, batch),
        ).run(batches)
        if len(found) < len(batches):
            raise InputError(f"{self._checkpoint.folder}: not all samples went through the model")
        return [found[number] for number in range(len(batches))]


def _same(one: Batch, other: Batch) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name].cpu()) for name, value in one.items())
