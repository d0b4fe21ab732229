"""Small inputs through a model whose blocks are read one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

from torch import Tensor, nn

from compress.inputs.batch import Batch
from compress.model.weights import Weights
from compress.stream.baton import Walk
from compress.stream.stream import Stream, StreamCallbacks
from compress.surgery.verify.noise import Reordered
from compress.tasks.choose import task_of

Advance = Callable[[], None]


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
    """What is compared of one forward in float32 (`Task.compared`); with `twice` of another one that sums anew, too.

    `advance` is called after each block.
    """
    found: list[Tensor] = []
    task = task_of(model)

    def end(output: Any, batch: Batch) -> None:
        found.append(task.compared(output).float())

    callbacks = StreamCallbacks(end=end, leave=lambda block: advance())
    (_Twice if twice else Stream)(model, weights, blocks, callbacks).run([batch, batch] if twice else [batch])
    return found
