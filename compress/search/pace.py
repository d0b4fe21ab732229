"""How much there is time for: the shares of a run that grow with the number of samples, and what one sample takes."""

from __future__ import annotations

import time
from dataclasses import dataclass

from compress.console import human_seconds
from compress.damage.divergence import divergences
from compress.errors import InputError
from compress.execution.context import Context

SAMPLES, GRADIENTS, TRIED = 64, 16, 4
"""Samples that are calibrated on, those of them that are run backwards, and those that trials are measured on."""

FEWEST, MOST = 8, 256
"""Samples that are calibrated on, whatever the time."""

FORWARD, BACKWARD, TRIALS = 1.6, 4.5, 20
"""In forwards: a calibrated sample with its statistics, a sample there and back, and all trials on one sample."""

APART = 40.0
"""Seconds of what does not depend on samples: decisions, the cut and its verification, and the evaluation."""


@dataclass(frozen=True)
class Pace:
    """How many samples there is time for, and the seconds that this is expected to take."""

    samples: int
    gradients: int
    tried: int
    seconds: float


def pace(context: Context, minutes: float | None) -> Pace:
    """What fits into so many `minutes`; without them the usual amount.

    Raises InputError where not even the fewest samples do, saying how long these take.
    """
    data, _ = context.fresh(2)
    start = time.perf_counter()
    divergences(context.source, data, [], device=context.device)
    each = (time.perf_counter() - start) / 2

    def cost(samples: int) -> float:
        share = samples / SAMPLES
        return APART + each * (samples * FORWARD + GRADIENTS * share * BACKWARD + TRIED * TRIALS * max(share, 0.5))

    if minutes is None:
        return _of(SAMPLES, cost(SAMPLES))
    if minutes * 60 < cost(FEWEST):
        raise InputError(
            f"--minutes {minutes:g}: too short for one pass, which takes about {human_seconds(cost(FEWEST))} on this "
            f"model and machine; give it --minutes {cost(FEWEST) / 60 + 0.5:.0f}"
        )
    samples = max(n for n in range(FEWEST, MOST + 1) if cost(n) <= minutes * 60)
    return _of(samples, cost(samples))


def _of(samples: int, seconds: float) -> Pace:
    share = samples / SAMPLES
    return Pace(samples, max(round(GRADIENTS * share), 2), max(round(TRIED * min(share, 2)), 2), seconds)
