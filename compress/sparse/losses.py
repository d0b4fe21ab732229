"""Losses of a model one of whose matrices is moved: what zeroth-order ratios measure."""

from __future__ import annotations

import torch
from torch import nn

from compress.checkpoint.open import Checkpoint
from compress.inputs.batch import Batch, given
from compress.model.weights import Weights, runnable_model
from compress.tasks.choose import task_of


class WholeModel:
    """The model in memory, in float32."""

    def __init__(self, checkpoint: Checkpoint, batches: list[Batch], device: str) -> None:
        self.model: nn.Module = runnable_model(checkpoint)
        self.weights = Weights(checkpoint, self.model)
        self.weights.load_names(self.weights.names(""), torch.float32)
        self.model.to(device)
        self._task = task_of(self.model)
        self.batches = [{name: rows.to(device) for name, rows in batch.items()} for batch in batches]

    @torch.no_grad()
    def sensitivity(self, name: str, step: float, generator: torch.Generator) -> float:
        """Σ over batches of |L(θ + `step`·z) − L(θ − `step`·z)| / (2 · `step`), z normal noise on one tensor."""
        weight, total = self.weights.current(name), 0.0
        for batch in self.batches:
            noise = torch.randn(weight.shape, generator=generator).to(weight.device) * step
            weight.add_(noise)
            above = self._loss(batch)
            weight.sub_(2 * noise)
            below = self._loss(batch)
            weight.add_(noise)
            total += abs(above - below) / (2 * step)
        return total

    def _loss(self, batch: Batch) -> float:
        return float(self._task.loss(self.model(**given(batch)), batch))
