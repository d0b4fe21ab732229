"""Taking the statistics of batch norms anew, of the model as the steps before left it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from compress.calibrate.batch_norms import norms_of, taken_anew
from compress.errors import InputError
from compress.execution.context import Context
from compress.output_format.find import find_output_format
from compress.recipe.reestimate import Reestimate
from compress.registry import steps
from compress.steps.kind import Decision, ModelStep
from compress.surgery.claims.norms import SameButNorms
from compress.surgery.edit import Edit, Put, unchanged_specs


@steps.add("reestimate", paper="2403.18955")
class ReestimateBatchNorms(ModelStep):
    """Take means and variances of batch norms anew."""

    settings, verb = Reestimate, "reestimate"
    unforeseen = "its statistics are measured on data"

    def calibrates(self, *, given: bool) -> bool:
        return True

    def gather(self, context: Context, given: Decision | None) -> dict[str, Tensor]:
        """The new means and variances, by state name. Raises InputError for a model without batch norms."""
        source = context.source
        if not norms_of(source.module):
            raise InputError(f"reestimate: {source.cls.__name__} has no batch norms; leave the step out")
        return taken_anew(source.checkpoint, context.batches, context.device)

    def decide(self, context: Context, gathered: dict[str, Tensor]) -> dict[str, Any]:
        """`norms`: the batch norms whose statistics are taken anew."""
        return {"norms": list(norms_of(context.source.module))}

    def edit(self, context: Context, decision: Decision, gathered: dict[str, Tensor]) -> Edit:
        source, specs = context.source, unchanged_specs(context.source)
        weights = source.weights
        taken = {disk: tensor for name, tensor in gathered.items() for disk in weights.disk_names(name)}

        def produce(put: Put) -> None:
            for name, dtype, _ in specs:
                put(name, taken[name].to(dtype) if name in taken else weights.read_stored(name))

        output_format = find_output_format(source, {})
        return Edit(specs, produce, output_format.config, SameButNorms(taken), output_format.described)

    @staticmethod
    def rows(decision: Decision) -> dict[str, str]:
        """How many batch norms there are."""
        return {"batch norms": str(len(decision["norms"]))}
