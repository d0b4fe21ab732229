"""The divisor of every pruned tensor, as the recipe's step asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from compress.console import task
from compress.recipe.delta import PruneDelta
from compress.steps.delta.drop import keep
from compress.steps.delta.rescale import row_divisors, search, without_outlier
from compress.steps.delta.trial import Trial


@dataclass(frozen=True)
class Divisors:
    """`common` divides a tensor that `own`, per row or whole, does not name. `rows_last`: names whose rows are the last
    dimension."""

    common: float
    own: Mapping[str, Tensor] = field(default_factory=dict)
    rows_last: frozenset[str] = frozenset()

    def divide(self, name: str, delta: Tensor) -> Tensor:
        """Δ / q, float32 `[out, in]`."""
        if (q := self.own.get(name)) is None:
            return delta / self.common
        return delta / (q if q.dim() == 0 or name in self.rows_last else q[:, None])


def find_divisors(step: PruneDelta, trial: Trial | None, seed: int) -> Divisors:
    """The divisors of `step`; darex needs a `trial`, whose model holds the base afterwards."""
    if step.by == "magnitude":
        return Divisors(1.0)
    if step.by == "dare":
        return Divisors(1 - step.remove)
    assert trial is not None, "darex is tried on a model"
    return _global(step, trial, seed) if step.q == "global" else _closed(step, trial)


def _global(step: PruneDelta, trial: Trial, seed: int) -> Divisors:
    """The q that keeps the outputs nearest over several masks, the worst outlier among them left out."""
    masks = [partial(_drawn, step=step, seed=seed + i) for i in range(step.seeds)]
    drawn = [trial.entries(mask) for mask in masks]
    trial.put_base()
    with task("searching q") as advance:

        def objective(q: float) -> float:
            advance()
            return without_outlier([trial.distance(entries, q) for entries in drawn])

        q, _ = search(objective, round(1 - step.remove, 9))
    return Divisors(q)


def _drawn(name: str, delta: Tensor, *, step: PruneDelta, seed: int) -> Tensor:
    return keep(delta, step.remove, step.by, name=name, seed=seed)


def _closed(step: PruneDelta, trial: Trial) -> Divisors:
    """By rows from the mean inputs; tensors that take none are divided by the mean of all others, as the authors do."""
    conv = {id(module.weight) for module in trial.model.modules() if isinstance(module, Conv1D)}
    last = frozenset(name for name, place in trial.places.items() if id(place) in conv)
    own = {}
    for name, mean in trial.input_means().items():
        delta = trial.difference.delta(name)
        influence = (delta.T if name in last else delta) * mean
        bias = name.removesuffix("weight") + "bias"
        if name.endswith(".weight") and bias in trial.difference.base_names:
            influence = torch.cat([influence, trial.difference.delta(bias)[:, None]], 1)
        q = row_divisors(influence, step.remove, step.eta)
        own[name] = q if step.q == "rows" else q.mean()
    trial.put_base()
    common = sum(float(q.mean()) for q in own.values()) / len(own) if own else 1 - step.remove
    return Divisors(common, own, last)
