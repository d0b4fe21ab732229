"""The mean of a number that every sample has: a share of right answers, an error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from compress.inputs.batch import Batch
from compress.metrics.change import Sampled, ratio_change
from compress.metrics.kind import Figure, Metric, Quality, Scale

Samples = Callable[[Any, Batch], Tensor]


class Mean(Metric[Tensor]):
    """The mean over samples of `of(output, batch)`, `[samples]`; a reading is these numbers in float64.

    `name` is the key of its record, {value, samples}, and of its change, the ratio to the dense model's mean with the
    jackknife's error. `title`: in words. `noun`: what a sample is called.
    """

    def __init__(
        self,
        name: str,
        title: str,
        of: Samples,
        *,
        higher_is_better: bool,
        scale: Scale = Scale.NUMBER,
        noun: str = "samples",
    ) -> None:
        self.name, self._title, self._of = name, title, of
        self._higher_is_better, self._scale, self._noun = higher_is_better, scale, noun

    def read(self, output: Any, batch: Batch) -> Tensor:
        """One number for each sample, `[samples]`."""
        return self._of(output, batch).detach().double().cpu()

    def merged(self, readings: Sequence[Tensor]) -> Tensor:
        """One number for each sample of all batches."""
        return torch.cat(list(readings))

    def quality(self, model: Tensor, dense: Tensor | None = None) -> Quality:
        """The mean, and its change where the dense model's is not zero."""
        own, other = sampled_mean(model), sampled_mean(dense) if dense is not None else None
        figure = Figure(
            self.name,
            self._title,
            f"{len(model)} {self._noun}",
            own.value,
            other.value if other is not None else None,
            self._higher_is_better,
            self._scale,
        )
        change = ratio_change(other, own) if other is not None else None
        return Quality(
            (figure,),
            {self.name: _record(model)},
            {self.name: _record(dense)} if dense is not None else {},
            {self.name: change} if change is not None else {},
            own,
        )


def sampled_mean(values: Tensor) -> Sampled:
    """The mean, and the same without each of the samples."""
    total, count = values.sum(), len(values)
    rest = (total - values) / max(count - 1, 1)
    return Sampled(float(total / count), rest.numpy())


def _record(values: Tensor) -> dict[str, Any]:
    return {"value": float(values.mean()), "samples": len(values)}
