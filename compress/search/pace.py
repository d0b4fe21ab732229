"""How much there is time for: rounds of trials, and samples; by what a pass and a sample of it take."""

from __future__ import annotations

import time
from dataclasses import dataclass

from compress.console import human_seconds
from compress.damage.divergence import divergences
from compress.errors import InputError
from compress.execution.context import Context
from compress.recipe.prune import Widths
from compress.search.candidates import RIDGES

TRIED = 4
"""Samples that trials are measured on, of the usual number that is calibrated on."""

FEWEST, ENOUGH, MOST = 8, 16, 256
"""Samples that are calibrated on: at the least; for which a round of trials is given up; whatever the time."""

FORWARD, BACKWARD, REPAIR = 1.2, 3.5, 2.0
"""In forwards of a sample: one with its statistics, one there and back, and solving anew what a cut's blocks read."""

FREER: dict[Widths, int] = {"uniform": 19, "per-layer": 143}
"""Cuts that the last round tries, most of them to decide."""

ROUNDS = 3

APART = 45.0
"""Seconds of what comes after: the cut and its verification, and the evaluation."""


@dataclass(frozen=True)
class Pace:
    """How many `rounds` and samples there is time for, and the `seconds` that all of it is expected to take."""

    rounds: int
    samples: int
    gradients: int
    tried: int
    seconds: float


@dataclass(frozen=True)
class Speed:
    """Seconds of loading all of a model's weights once, and of one sample's forward."""

    load: float
    each: float

    @staticmethod
    def of(context: Context) -> Speed:
        """Measured, by passes of one sample and of three."""
        divergences(context.source, context.fresh(1)[0], [], device=context.device)  # the first one takes longer
        one, three = (_seconds(context, samples) for samples in (1, 3))
        each = max((three - one) / 2, 1e-3)
        return Speed(max(one - each, 0.0), each)


def pace(context: Context, minutes: float | None, ways: int, widths: Widths = "uniform") -> Pace:
    """What fits into so many `minutes` of finding out; without them all rounds, and the usual samples.

    The usual ones are those of the context's recipe, and `ways` as many candidates as the first round tries. Rather a
    round less than too few samples. Raises InputError where not even the fewest samples without any trial do, saying
    how long these take.
    """
    speed, usual = Speed.of(context), context.recipe.calibrate
    cuts = (1 + ways, len(RIDGES) - 1, FREER[widths])  # among the first the model as it is

    def taking(rounds: int, samples: int) -> Pace:
        share = samples / usual.samples
        gradients = max(round((usual.gradients or usual.samples) * share), 2)
        tried = max(round(TRIED * min(share, 2)), 2)
        forwards = samples * FORWARD + gradients * BACKWARD + sum(cuts[:rounds]) * (tried + REPAIR)
        return Pace(rounds, samples, gradients, tried, APART + (2 + 2 * rounds) * speed.load + forwards * speed.each)

    if minutes is None:
        return taking(ROUNDS, usual.samples)
    for rounds in range(ROUNDS, -1, -1):
        found = [taking(rounds, samples) for samples in range(FEWEST, MOST + 1)]
        fits = [one for one in found if one.seconds - APART <= minutes * 60]
        if fits and (fits[-1].samples >= ENOUGH or rounds == 0):
            return fits[-1]
    least = taking(0, FEWEST).seconds - APART
    raise InputError(
        f"--minutes {minutes:g}: too short for one pass, which takes about {human_seconds(least)} on this model and "
        f"machine; give it --minutes {least / 60 + 0.5:.0f}"
    )


def _seconds(context: Context, samples: int) -> float:
    data, _ = context.fresh(samples)
    start = time.perf_counter()
    divergences(context.source, data, [], device=context.device)
    return time.perf_counter() - start
