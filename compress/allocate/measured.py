"""Measured allocation: what each pool costs is tried out, as in ZipLM (https://arxiv.org/abs/2302.04089), then the
integer program decides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np
from pydantic import Field

from compress.allocate.milp import exact
from compress.allocate.pools import Pool, masks_of
from compress.allocate.swaps import swapped
from compress.allocate.trials import Trials
from compress.registry import allocators

Count = Annotated[int, Field(ge=1)]
Tries = Annotated[int, Field(ge=0)]

NEAREST = 4
"""Widths of one pool that are measured at most: those far from what is asked for decide nothing."""


@allocators.add("measured", measures=True, paper="2302.04089")
class Measured:
    """Measures how the output moves when each pool alone is cut, and takes the counts whose sum of it is least.

    Of every pool the error inside its blocks is computed at all widths. At up to `points` of them, at most four of a
    pool, around the share that is to go, on a grid of `levels` widths of a pool, forwards of `samples` held-out samples
    measure how far the model's output moves (KL divergence of logits, else 1 − cosine); the former says how it goes on
    in between. What several pools cost together is taken to be the sum, which the integer program makes least; at the
    end `search` exchanges of a level between two pools are tried out on the whole model.
    """

    def __init__(self, *, levels: Count = 8, points: Count = 60, samples: Count = 4, search: Tries = 8) -> None:
        self.levels, self.points, self.samples, self.search = levels, points, samples, search
        self.damage: list[np.ndarray] = []

    def measure(self, pools: Sequence[Pool], budget: float, trials: Trials) -> None:
        """Find out `damage`, of every pool what keeping 0, 1, … bundles of it costs, `[bundles + 1]`."""
        if len(pools) == 1:  # nothing to divide
            self.damage = [trials.own_error(pools[0])]
            return
        share = budget / max(sum(float(pool.cost.sum()) for pool in pools), 1e-300)
        each = min(max(self.points // max(len(pools), 1), 1), NEAREST)
        tried = [self._levels(pool, share, each, trials) for pool in pools]
        # Where there are more pools than points, those with the largest share of the cost are measured.
        largest = sorted(range(len(pools)), key=lambda i: -float(pools[i].cost.sum()))[: self.points]
        wanted = [(i, n) for i in sorted(largest) for n in tried[i]]
        values = trials.divergence([pools[i].masks(n) for i, n in wanted], self.samples, "measuring cuts")
        found: dict[int, dict[int, float]] = {}
        for (i, n), value in zip(wanted, values, strict=True):
            found.setdefault(i, {})[n] = float(value)
        errors = [trials.own_error(pool) for pool in pools]
        usual = _scales(pools, errors, found)
        self.damage = [
            _curve(error, found.get(i, {}), usual.get(pool.kind, usual.get("", 1.0)))
            for i, (pool, error) in enumerate(zip(pools, errors, strict=True))
        ]

    def __call__(self, pools: Sequence[Pool], budget: float) -> list[int]:
        """The kept counts with the least sum of damages that save the budget; `measure` comes first."""
        priced = [
            replace(pool, scores=-np.diff(damage) / pool.units) for pool, damage in zip(pools, self.damage, strict=True)
        ]
        return exact(priced, budget)

    def improve(
        self, pools: Sequence[Pool], kept: list[int], fits: Callable[[list[int]], bool], trials: Trials
    ) -> list[int]:
        """Better counts than `kept` where an exchange between two pools turns out to be one; `fits` the budget."""
        moves = swapped(pools, kept, self.damage, fits, self.search, self.levels)
        if not moves:
            return kept
        candidates = [kept, *moves]

        def tried(some: Sequence[list[int]]) -> np.ndarray:
            return trials.divergence([masks_of(pools, counts) for counts in some], self.samples, "trying exchanges")

        values = tried(candidates)
        better = [i for i in np.argsort(values) if values[i] < values[0]]
        if not better:
            return kept
        best = candidates[better[0]]
        together = _together(kept, [candidates[i] for i in better])
        if together != best and fits(together) and tried([together])[0] < values[better[0]]:
            return together
        return best

    def _levels(self, pool: Pool, share: float, count: int, trials: Trials) -> list[int]:
        """Kept counts that are measured: those known already, else `count` around what would stay of an equal share."""
        grid = _grid(pool, self.levels)
        if known := [n for n in grid if trials.known(pool.masks(n), self.samples) is not None]:
            return known
        usual = np.abs(np.array(grid) - pool.size * (1 - share))
        return sorted(grid[i] for i in np.argsort(usual, kind="stable")[:count])


def _grid(pool: Pool, levels: int) -> list[int]:
    """At most so many kept counts below all, evenly from the minimum on."""
    return [int(n) for n in np.unique(np.linspace(pool.minimum, pool.size, levels + 1).round())[:-1]]


def _scales(
    pools: Sequence[Pool], errors: Sequence[np.ndarray], found: dict[int, dict[int, float]]
) -> dict[str, float]:
    """Kind → the median of what one of its pools' own error moves the output, for pools that are not measured.

    Under "" it is that of all kinds.
    """
    each: dict[str, list[float]] = {}
    for i, values in found.items():
        ratios = [value / errors[i][n] for n, value in values.items() if errors[i][n] > 0]
        for kind in (pools[i].kind, ""):
            each.setdefault(kind, []).extend(ratios)
    return {kind: float(np.median(ratios)) for kind, ratios in each.items() if ratios}


def _curve(error: np.ndarray, found: dict[int, float], usual: float) -> np.ndarray:
    """What keeping 0, 1, … bundles costs, `[bundles + 1]`: never less with fewer bundles.

    Between what was measured it goes as the error inside the blocks does, beyond it in proportion.
    """
    known = sorted((float(error[n]), value) for n, value in found.items())
    x, y = np.array([0.0, *(e for e, _ in known)]), np.maximum.accumulate([0.0, *(v for _, v in known)])
    beyond = y[-1] / x[-1] if x[-1] > 0 else usual
    return np.where(error <= x[-1], np.interp(error, x, y), y[-1] + (error - x[-1]) * beyond)


def _together(kept: list[int], moves: Sequence[list[int]]) -> list[int]:
    """All moves that touch pools which no better one does, at once."""
    result, touched = list(kept), set[int]()
    for move in moves:
        changed = {i for i, (old, new) in enumerate(zip(kept, move, strict=True)) if old != new}
        if changed and not changed & touched:
            touched |= changed
            result = [move[i] if i in changed else n for i, n in enumerate(result)]
    return result
