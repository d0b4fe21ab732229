"""What a module in memory is for, as far as it was said: its output, and the loss that came with it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from compress.errors import InputError, ModelError
from compress.inputs.arguments import tensors_in
from compress.inputs.batch import LABELS, Batch
from compress.inputs.given import declared
from compress.metrics.mean import Mean
from compress.tasks.distance import cosine_distance
from compress.tasks.kind import Task


class GivenTask(Task):
    """Outputs of any form. The first floating tensor is the result; all of them are compared."""

    name, hub_task, logits = "given", "other", False

    @classmethod
    def fits(cls, model: nn.Module, config: Any) -> bool:
        """Modules of which it was declared what they read."""
        return declared(model) is not None

    def result(self, output: Any) -> Tensor:
        """The first floating-point tensor of the output."""
        return _floating(output)[0]

    def compared(self, output: Any) -> Tensor:
        """All floating-point tensors of the output as one vector."""
        return compared(output)

    def loss(self, output: Any, batch: Batch) -> Tensor:
        """The loss that was given. Raises InputError without one, or without targets."""
        given = declared(self.model)
        if given is None or given.loss is None:
            raise InputError("loss: gradients are taken of a loss; pass `loss=`, a function of the output and a target")
        return given.loss(output, given.target(batch))

    def answer(self, output: Any, batch: Batch) -> Tensor:
        """Of `[batch, classes]` the values of the target classes, or of the largest where no classes were given.

        Raises ModelError for an output of another form.
        """
        result, given = self.result(output), declared(self.model)
        if result.dim() != 2:
            raise ModelError(
                f"relevance starts from one of several classes, `[batch, classes]`, and the module puts out "
                f"{list(result.shape)}; choose another criterion"
            )
        right: Any = given.target(batch) if given is not None and LABELS in batch else None
        classes = isinstance(right, Tensor) and right.shape == result.shape[:1] and not right.is_floating_point()
        place = right.to(result.device) if classes else result.argmax(1)
        return result.gather(1, place[:, None]).sum()

    def metric(self, batch: Batch) -> Mean:
        """The loss of each batch, of its samples alike."""

        def of(output: Any, batch: Batch) -> Tensor:
            return self.loss(output, batch).reshape(1)

        return Mean("loss", "Loss", of, higher_is_better=False, noun="batches")

    def distance(self, one: Any, other: Any) -> Tensor:
        """1 − cos of a sample's results, `[batch]`."""
        return cosine_distance(self.result(one).flatten(1), self.result(other).flatten(1))


def compared(output: Any) -> Tensor:
    """Every floating-point number of an output, `[numbers]`, float32. Raises ModelError where there is none."""
    return torch.cat([tensor.detach().float().reshape(-1) for tensor in _floating(output)])


def _floating(output: Any) -> list[Tensor]:
    tensors = [torch.view_as_real(x) if x.is_complex() else x for x in tensors_in(output)]
    found = [tensor for tensor in tensors if tensor.is_floating_point()]
    if not found:
        raise ModelError(f"the module's output, a {type(output).__name__}, holds no floating-point tensor to compare")
    return found
