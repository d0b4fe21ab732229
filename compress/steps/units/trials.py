"""What cuts of a step cost, tried out on the model: for allocators that measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from compress.allocate.pools import Pool
from compress.calibrate import distributed
from compress.console import task
from compress.damage.divergence import Cut, divergences
from compress.damage.reconstruction import NEEDS, Repaired, consumers, reconstruction
from compress.damage.remembered import Remembered
from compress.execution.context import Context
from compress.graph.families import Family
from compress.model.model import Model
from compress.recipe.prune import Prune
from compress.registry import repairs
from compress.score.views import Stats
from compress.surgery.cut import Repair

AT_ONCE = 16
"""Candidates of one pass through the model: what an interrupted run loses, and what divides the time of loading."""

Kept = Mapping[str, np.ndarray]


def needs_of(source: Model, families: Sequence[Family]) -> dict[str, set[str]]:
    """The statistics that the errors inside blocks are computed from."""
    keys = {name for family in families if family.kind != "layers" for name in consumers(source, family)}
    return {need: keys for need in NEEDS} if keys else {}


class CutTrials:
    """Trials of a `step` (see `compress.allocate.trials`), with its `repair`.

    `scores` are those of the criterion. The samples are drawn from the calibration's data anew.
    """

    def __init__(
        self,
        context: Context,
        scores: Mapping[str, np.ndarray],
        stats: Stats,
        step: Prune,
        repair: Repair | None,
    ) -> None:
        self.context, self.scores, self.stats, self.repair = context, scores, stats, repair
        self._described = str(step.repair)
        adds = step.repair is not None and repairs.get(step.repair.name).meta.adds_bias
        self.repaired: Repaired = "not" if repair is None else "mean" if adds else "fitted"
        self._remembered: dict[int, Remembered] = {}
        self._batches: dict[int, Any] = {}

    def own_error(self, pool: Pool) -> np.ndarray:
        """Of each family the share of its consumers' output that is wrong, added up over the pool's.

        Where no projection reads a family alone (experts, whole layers) it is what its groups' scores add up to.
        """
        total = np.zeros(pool.size + 1)
        for family, order in zip(pool.families, pool.orders, strict=True):
            source, counts = self.context.source, np.minimum(np.arange(pool.size + 1) * pool.step, len(order))
            if family.kind != "layers" and consumers(source, family):
                errors = reconstruction(source, family, order, self.stats, self.repaired)
            else:
                worth = self.scores[family.name][order]
                worth = worth - min(float(worth.min()), 0.0)
                errors = np.append(np.cumsum(worth[::-1])[::-1], 0.0) / max(float(worth.sum()), 1e-300)
            total += errors[counts]
        return np.maximum.accumulate(total[::-1])[::-1]

    def divergence(self, candidates: Sequence[Kept], samples: int, label: str) -> np.ndarray:
        """Every process of a distributed run must call it."""
        remembered = self._of(samples)
        wanted = distributed.agreed(
            [i for i, kept in enumerate(candidates) if remembered.get(kept) is None and _removes(kept)]
        )
        if wanted:
            with task(label, len(wanted)) as advance:
                for start in range(0, len(wanted), AT_ONCE):
                    some = [Cut(candidates[i], self.repair) for i in wanted[start : start + AT_ONCE]]
                    source, device = self.context.source, self.context.device
                    found = divergences(source, self._data(samples)[0], some, device=device)
                    values = {Remembered.of(cut.kept): float(value) for cut, value in zip(some, found, strict=True)}
                    if distributed.rank() == 0:
                        remembered.put(values)
                    else:
                        remembered.note(values)
                    advance(len(some))
        return np.array(distributed.agreed([remembered.get(kept) if _removes(kept) else 0.0 for kept in candidates]))

    def known(self, candidate: Kept, samples: int) -> float | None:
        return distributed.agreed(self._of(samples).get(candidate))

    def _data(self, samples: int) -> tuple[list[Any], str]:
        if samples not in self._batches:
            self._batches[samples] = self.context.fresh(samples)
        return self._batches[samples]

    def _of(self, samples: int) -> Remembered:
        if samples not in self._remembered:
            source, (_, key) = self.context.source, self._data(samples)
            of = (source.checkpoint.digest, key, self.context.data_key, self.context.device, self._described)
            self._remembered[samples] = Remembered(" ".join(of))
        return self._remembered[samples]


def _removes(kept: Kept) -> bool:
    return any(not mask.all() for mask in kept.values())
