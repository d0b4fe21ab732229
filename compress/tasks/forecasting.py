"""Models that predict how a series of numbers goes on."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from compress.errors import InputError, ModelError
from compress.inputs.batch import Batch
from compress.metrics.kind import Metric
from compress.metrics.mean import Mean
from compress.registry import tasks
from compress.tasks.kind import Task

FUTURE = "future_values"


@tasks.add("forecasting")
class Forecasting(Task):
    """The values that follow, `[batch, length]` or `[batch, length, channels]`: what is predicted itself, or the mean
    of a distribution. The batch holds the right ones as `future_values`, from which the forward takes its loss."""

    name, hub_task, logits = "forecasting", "time-series-forecasting", False

    @classmethod
    def fits(cls, model: nn.Module, config: Any) -> bool:
        """Models of series that are called so."""
        return getattr(model, "main_input_name", None) == "past_values" and "Prediction" in type(model).__name__

    def result(self, output: Any) -> Tensor:
        """What is predicted."""
        names = ("prediction_outputs", "mean_predictions", "params")
        found: Any = next((made for name in names if (made := getattr(output, name, None)) is not None), None)
        if found is None:
            raise ModelError(f"a {type(output).__name__} predicts no values")
        if isinstance(found, Tensor):
            return found
        distribution: Any = getattr(self.model, "distribution_output", None)
        if distribution is None:
            raise ModelError(f"a {type(output).__name__} has parameters of a distribution that the model does not name")
        return distribution.distribution(found, loc=output.loc, scale=output.scale).mean

    def compared(self, output: Any) -> Tensor:
        """What is predicted, which stands behind the loss in the output."""
        return self.result(output)

    def loss(self, output: Any, batch: Batch) -> Tensor:
        """The forward's own: the mean squared error, or −log of the likelihood."""
        loss = getattr(output, "loss", None)
        if loss is None:
            raise ModelError(
                f"the forward of {type(self.model).__name__} gives no loss for {FUTURE}; "
                "choose a criterion without gradients"
            )
        return loss

    def metric(self, batch: Batch) -> Metric[Any]:
        """The mean squared error."""
        return Mean("forecast_error", "Squared error", self._errors, higher_is_better=False)

    def distance(self, one: Any, other: Any) -> Tensor:
        """Squared difference of every predicted value."""
        return (self.result(one) - self.result(other)).square()

    def _errors(self, output: Any, batch: Batch) -> Tensor:
        made = self.result(output)
        if FUTURE not in batch or made.shape != batch[FUTURE].shape:
            raise InputError(f"the model predicts {list(made.shape)} values, and the batch does not say the right ones")
        return (made - batch[FUTURE].to(made.device)).square().flatten(1).mean(1)
