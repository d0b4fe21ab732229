"""How much there is time for: rounds of trials, and samples; by what a pass and a sample of it take."""

from __future__ import annotations

import time
from dataclasses import dataclass

from compress.console import human_seconds
from compress.damage.divergence import divergences
from compress.errors import InputError
from compress.execution.context import Context
from compress.recipe.prune import Widths

SAMPLES, GRADIENTS, TRIED = 64, 16, 4
"""Samples that are calibrated on, those of them that are run backwards, and those that trials are measured on."""

FEWEST, ENOUGH, MOST = 8, 16, 256
"""Samples that are calibrated on: at the least; for which a round of trials is given up; whatever the time."""

FORWARD, BACKWARD, REPAIR = 1.2, 3.5, 2.0
"""In forwards of a sample: one with its statistics, one there and back, and solving anew what a cut's blocks read."""

CUTS: dict[Widths, tuple[int, ...]] = {"uniform": (0, 4, 7, 26), "per-layer": (0, 4, 7, 150)}
"""Cuts that are tried in no round, the first, the first two and all three."""

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


def pace(context: Context, minutes: float | None, widths: Widths = "uniform") -> Pace:
    """What fits into so many `minutes` of finding out; without them all rounds, and the usual samples.

    Rather a round less than too few samples. Raises InputError where not even the fewest samples without any trial do,
    saying how long these take.
    """
    speed = Speed.of(context)
    if minutes is None:
        return _pace(ROUNDS, SAMPLES, speed, widths)
    for rounds in range(ROUNDS, -1, -1):
        found = [_pace(rounds, samples, speed, widths) for samples in range(FEWEST, MOST + 1)]
        fits = [one for one in found if one.seconds - APART <= minutes * 60]
        if fits and (fits[-1].samples >= ENOUGH or rounds == 0):
            return fits[-1]
    least = _pace(0, FEWEST, speed, widths).seconds - APART
    raise InputError(
        f"--minutes {minutes:g}: too short for one pass, which takes about {human_seconds(least)} on this model and "
        f"machine; give it --minutes {least / 60 + 0.5:.0f}"
    )


def _pace(rounds: int, samples: int, speed: Speed, widths: Widths) -> Pace:
    share = samples / SAMPLES
    gradients, tried = max(round(GRADIENTS * share), 2), max(round(TRIED * min(share, 2)), 2)
    forwards = samples * FORWARD + gradients * BACKWARD + CUTS[widths][rounds] * (tried + REPAIR)
    return Pace(rounds, samples, gradients, tried, APART + (2 + 2 * rounds) * speed.load + forwards * speed.each)


def _seconds(context: Context, samples: int) -> float:
    data, _ = context.fresh(samples)
    start = time.perf_counter()
    divergences(context.source, data, [], device=context.device)
    return time.perf_counter() - start
