"""The contract between the package and what a model is for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from compress.errors import ModelError
from compress.inputs.batch import Batch
from compress.metrics.kind import Metric


class Task(ABC):
    """What `model`, built from `config`, puts out. The model may be on the meta device: no weight is looked at.

    Registered tasks say of a model whether they fit it; an instance speaks of that one model. An output is what the
    model's forward returns for a batch without its labels (`compress.inputs.batch`).
    """

    name: ClassVar[str]
    """As it is registered."""

    hub_task: str
    """What the Hugging Face hub calls it, for model cards: `text-generation`."""

    general: ClassVar[bool] = False
    """It stands back where another task fits too."""

    logits: ClassVar[bool] = True
    """Whether its result is logits over classes; if not, it is hidden states."""

    asks: ClassVar[Mapping[str, Any]] = {}
    """What a forward is asked for beside its batch, where the model knows it, so that there is a result."""

    labelled: ClassVar[bool] = False
    """Only samples with labels from outside tell how good the model is at it; there may be others to measure, too."""

    def __init__(self, model: nn.Module, config: Any) -> None:
        self.model, self.config = model, config

    @classmethod
    @abstractmethod
    def fits(cls, model: nn.Module, config: Any) -> bool:
        """Whether the model puts out what this task is about."""

    @abstractmethod
    def result(self, output: Any) -> Tensor:
        """What the model says, out of all that it returns: logits or hidden states, `[batch, …, width]`.

        Raises ModelError where the output has none.
        """

    def compared(self, output: Any) -> Tensor:
        """What of an output two models must agree in that should compute the same: the logits, several of them as one
        vector. Without any all floating-point tensors: a head beside the hidden states may pool them."""
        logits = getattr(output, "logits", None)
        if isinstance(logits, Tensor):
            return logits
        each = logits if logits is not None else output.values() if hasattr(output, "values") else output
        found = [x for x in each if isinstance(x, Tensor) and x.is_floating_point()]
        return found[0] if len(found) == 1 else torch.cat([x.float().flatten() for x in found])

    @abstractmethod
    def loss(self, output: Any, batch: Batch) -> Tensor:
        """What gradients are taken of, `[]`: the mean over the samples of `batch`.

        Raises ModelError, with what to do instead, where nothing is known that the output should have been.
        """

    def answer(self, output: Any, batch: Batch) -> Tensor:
        """What of an output is to be explained, `[]`: the sum over the samples of the logits of the right classes, of
        those that the model itself says where these are not known. Raises ModelError for an output without classes."""
        raise ModelError(
            f"a {type(output).__name__} says no classes, so there is no answer to explain; choose a criterion without "
            "relevance"
        )

    @abstractmethod
    def metric(self, batch: Batch) -> Metric[Any]:
        """What quality is measured by on samples such as those of `batch`, with labels or without."""

    @abstractmethod
    def distance(self, one: Any, other: Any) -> Tensor:
        """How far the output `other` is from `one` (the dense model's) at every position, `[batch, …]`.

        Zero for equal outputs, never negative, and differentiable in `other`. Raises ModelError for outputs that do not
        compare.
        """
