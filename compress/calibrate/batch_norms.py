"""What batch norms see: their means and variances over data, each normalised as in training meanwhile."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compress.checkpoint.open import Checkpoint
from compress.errors import InputError
from compress.inputs.batch import Batch, given
from compress.model.weights import Weights, runnable_model


def norms_of(model: nn.Module) -> dict[str, _BatchNorm]:
    """The batch norms of a model that keep statistics, by name."""
    found = ((name, module) for name, module in model.named_modules() if isinstance(module, _BatchNorm))
    return {name: module for name, module in found if module.track_running_stats and module.running_mean is not None}


def taken_anew(
    checkpoint: Checkpoint, batches: Iterable[Batch], device: torch.device | str = "cpu"
) -> dict[str, Tensor]:
    """The running means and variances of all batch norms, float32 `[channels]` by state name: averages over `batches`.

    The whole model is in memory, and computes in float32. Raises InputError for a batch of a single value per channel.
    """
    model = runnable_model(checkpoint)
    weights = Weights(checkpoint, model)
    weights.load_names(weights.names(""), torch.float32, device)
    model.to(device)
    norms = norms_of(model)
    for norm in norms.values():
        norm.reset_running_stats()
        norm.momentum = None  # then all batches count the same
        norm.train()
    with torch.no_grad():
        for batch in batches:
            try:
                model(**{name: tensor.to(device) for name, tensor in given(batch).items()})
            except ValueError as error:  # torch's own, where a variance is of one value
                raise InputError(f"calibrate.batch: {error}; let a batch have more samples") from None
    kinds = ("running_mean", "running_var")
    return {f"{name}.{kind}": getattr(norm, kind).cpu() for name, norm in norms.items() for kind in kinds}
